"""Haiku networks as functions, with and without a state."""

import jax
import numpy as np
import pytest

hk = pytest.importorskip("haiku")

from robustjax import attacks, models
from robustjax.threats import Linf

IMAGES = np.random.default_rng(0).uniform(size=(3, 6, 6, 3)).astype(np.float32)


def plain(images, is_training=False):
    h = hk.Flatten()(jax.nn.relu(hk.Conv2D(4, 3)(images)))
    return hk.Linear(5)(hk.dropout(hk.next_rng_key(), 0.5, h) if is_training else h)


def normalised(images, is_training):
    h = hk.Conv2D(4, 3)(images)
    h = hk.BatchNorm(True, True, decay_rate=0.9)(h, is_training)
    return hk.Linear(5)(hk.Flatten()(jax.nn.relu(h)))


def test_without_a_state():
    net = hk.transform(plain)
    params, traced = net.init(jax.random.key(0), IMAGES), []
    run = jax.jit(lambda f, x: traced.append(1) or f(x))
    found = run(models.from_haiku(net, params), IMAGES)
    np.testing.assert_allclose(found, net.apply(params, None, IMAGES), atol=1e-6)
    other = jax.tree.map(lambda a: a + 1, params)
    assert not np.allclose(found, run(models.from_haiku(net, other), IMAGES)) and len(traced) == 1
    quiet = models.from_haiku(hk.without_apply_rng(net), params)
    np.testing.assert_allclose(quiet(IMAGES), found, atol=1e-6)
    with pytest.raises(ValueError, match="draws random numbers: switch it to evaluation"):
        models.from_haiku(net, params, is_training=True)(IMAGES)


def test_with_a_state():
    net = hk.transform_with_state(normalised)
    params, state = net.init(jax.random.key(0), IMAGES, True)
    logits_fn = models.from_haiku(net, params, state, is_training=False)
    wanted, _ = net.apply(params, state, None, IMAGES, False)
    np.testing.assert_allclose(jax.jit(logits_fn)(IMAGES), wanted, atol=1e-6)
    z = attacks.perturb(attacks.FGSM(Linf(0.1)), logits_fn, jax.random.key(0), IMAGES, [0, 1, 2])
    assert np.isclose(np.abs(z - IMAGES).max(), 0.1)
    with pytest.raises(ValueError, match="updates its state: switch it to evaluation"):
        models.from_haiku(net, params, state, is_training=True)(IMAGES)
    with pytest.raises(ValueError, match="pass state="):
        models.from_haiku(net, params, is_training=False)
    with pytest.raises(ValueError, match="has no state"):
        models.from_haiku(hk.transform(plain), params, state)
    with pytest.raises(TypeError, match="must be numbers, text or functions"):
        models.from_haiku(net, params, state, is_training=[False])
