"""Models of Flax NNX and Equinox are two lines away, as docs/how_to has it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial

from robustjax import attacks, evaluation
from robustjax.threats import Linf

ATTACK = attacks.PGD(Linf(0.1), steps=2)
IMAGES = jax.random.uniform(jax.random.key(0), (6, 4, 4, 1))
LABELS = jnp.arange(6) % 3


def nnx_logits(graphdef, state, images):
    return nnx.merge(graphdef, state)(images)


def equinox_logits(model, images):
    return jax.vmap(model)(jnp.moveaxis(images, -1, 1))


def nnx_networks():
    """With batch normalisation and dropout, which `eval` puts out of the way."""

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.conv, self.norm = nnx.Conv(1, 2, (3, 3), rngs=rngs), nnx.BatchNorm(2, rngs=rngs)
            self.dropout, self.head = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(32, 3, rngs=rngs)

        def __call__(self, x):
            h = nnx.relu(self.norm(self.conv(x)))
            return self.head(self.dropout(h.reshape(len(x), -1)))

    def make(seed):
        model = Network(nnx.Rngs(seed))
        model.eval()
        return Partial(nnx_logits, *nnx.split(model)), model(IMAGES)

    return make


def equinox_networks():
    eqx = pytest.importorskip("equinox")

    class Network(eqx.Module):
        conv: eqx.nn.Conv2d
        head: eqx.nn.Linear

        def __init__(self, key):
            first, second = jax.random.split(key)
            self.conv = eqx.nn.Conv2d(1, 2, 3, padding=1, key=first)
            self.head = eqx.nn.Linear(32, 3, key=second)

        def __call__(self, x):
            return self.head(jax.nn.relu(self.conv(x)).ravel())

    def make(seed):
        model = Network(jax.random.key(seed))
        return Partial(equinox_logits, model), jax.vmap(model)(jnp.moveaxis(IMAGES, -1, 1))

    return make


@pytest.fixture(scope="module", params=[nnx_networks, equinox_networks], ids=["nnx", "equinox"])
def network(request):
    """seed -> (logits_fn, the logits of IMAGES)."""
    return request.param()


def test_attacks_and_evaluation_take_the_model(network, monkeypatch):
    logits_fn, expected = network(0)
    np.testing.assert_allclose(jax.jit(lambda f, x: f(x))(logits_fn, IMAGES), expected, atol=1e-6)
    labels = jnp.argmax(expected, -1)
    x_adv = attacks.perturb(ATTACK, logits_fn, jax.random.key(1), IMAGES, labels)
    moved = jnp.abs(x_adv - IMAGES).max((1, 2, 3))
    assert (moved > 0.05).all() and (moved <= 0.1 + 1e-6).all()
    report = evaluation.evaluate(logits_fn, IMAGES, labels, {"pgd": ATTACK}, jax.random.key(1))
    fooled = jnp.argmax(logits_fn(x_adv), -1) != labels
    assert report.clean == 1.0
    assert report.robust["pgd"] == pytest.approx(1 - fooled.mean())
    some = jax.local_devices()[:2]
    monkeypatch.setattr(jax, "local_devices", lambda: some)
    two = attacks.perturb(ATTACK, logits_fn, jax.random.key(1), IMAGES, labels)
    np.testing.assert_array_equal(two, x_adv)


def test_new_weights_compile_nothing(network):
    traces = []

    @jax.jit
    def call(f, x):
        traces.append(1)
        return f(x)

    call(network(0)[0], IMAGES)
    call(network(1)[0], IMAGES)
    assert len(traces) == 1


def test_an_equinox_model_with_functions_among_its_leaves_is_partitioned():
    """eqx.nn.MLP keeps its activation as a leaf, which no program takes as an argument."""
    eqx = pytest.importorskip("equinox")

    def call(static, arrays, images):
        return jax.vmap(eqx.combine(arrays, static))(images.reshape(len(images), -1))

    model = eqx.nn.MLP(16, 3, 4, 1, key=jax.random.key(0))
    arrays, static = eqx.partition(model, eqx.is_array)
    logits_fn = Partial(functools.partial(call, static), arrays)
    x_adv = attacks.perturb(ATTACK, logits_fn, jax.random.key(1), IMAGES, LABELS)
    assert jnp.abs(x_adv - IMAGES).max() > 0.05
