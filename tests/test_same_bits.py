"""The same bits for any number of images, order and devices, on networks that are not ours."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REAL_TILE

from robustjax.attacks import APGD, DDN, perturb
from robustjax.attacks._engine import tiles
from robustjax.threats import L2, Linf

N, SHAPE = 70, (12, 12, 2)
IMAGES = np.random.default_rng(0).uniform(size=(N, *SHAPE)).astype(np.float32)
ATTACKS = {"ddn": DDN(L2(1.0), steps=8), "apgd": APGD(Linf(0.01), steps=4)}


def plain_lax(weights, x):
    """Kernels of 4 x 4, an even number, without any library."""
    for kernel in weights["kernels"]:
        numbers = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=numbers
        )
        x = jax.nn.relu(x)
    return x.reshape(len(x), -1) @ weights["dense"]


class Odd(nn.Module):
    @nn.compact
    def __call__(self, x):
        for size, stride in ((3, 1), (5, 2)):
            x = nn.relu(nn.Conv(8, (size, size), strides=stride)(x))
        return nn.Dense(5)(x.reshape(len(x), -1))


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x):
        for size in (100, 37):
            x = nn.relu(nn.Dense(size)(x.reshape(len(x), -1)))
        return nn.Dense(5)(x)


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(16, (4, 4), strides=4)(x).reshape(len(x), -1, 16)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
        return nn.Dense(5)(nn.gelu(nn.Dense(32)(x)).mean(1))


def network(name):
    keys = iter(jax.random.split(jax.random.key(1), 3))
    if name == "plain lax":
        shapes = {"kernels": [(4, 4, 2, 8), (4, 4, 8, 16)], "dense": (144, 5)}
        weights = jax.tree.map(
            lambda shape: 0.2 * jax.random.normal(next(keys), shape),
            shapes,
            is_leaf=lambda leaf: isinstance(leaf, tuple),
        )
        return jax.tree_util.Partial(plain_lax, weights)
    module = {"nn.Conv": Odd(), "dense": Dense(), "attention": Attention()}[name]
    return jax.tree_util.Partial(module.apply, module.init(next(keys), jnp.zeros((1, *SHAPE))))


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("name", ["plain lax", "nn.Conv", "dense", "attention"])
def test_no_bit_depends_on_what_is_beside_an_image(name, attack, monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", REAL_TILE)
    model, key = network(name), jax.random.key(2)
    labels = np.asarray(model(IMAGES)).argmax(-1)
    whole = perturb(attack, model, key, IMAGES, labels)
    assert (whole != IMAGES).any((1, 2, 3)).mean() > 0.9
    for order, batch_size in ((np.arange(N)[::-1], None), (np.array([69, 3, 41]), 2)):
        found = perturb(
            attack, model, key, IMAGES[order], labels[order], indices=order, batch_size=batch_size
        )
        np.testing.assert_array_equal(found, whole[order])
    first = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: first)
    few = slice(0, 20)
    np.testing.assert_array_equal(perturb(attack, model, key, IMAGES[few], labels[few]), whole[few])
