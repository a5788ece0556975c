"""Adversarial weight perturbation: where it takes the gradient, and when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import net_and_batch, on_one_device

from robustjax.attacks import PGD
from robustjax.training import AWP, PGDAT
from robustjax.training.methods.base import Crafted


def gradients(method):
    state, net, batch = net_and_batch(PGDAT())
    crafted = Crafted(jnp.clip(batch.image + 0.05, 0, 1), net.stats)
    g = on_one_device(lambda: method.grads(net, state.params, batch, crafted))
    return state.params, g


def test_awp_with_gamma_zero_is_the_inner_method():
    _, inner = gradients(PGDAT())
    params, wrapped = gradients(AWP(PGDAT(), gamma=0.0))
    for a, b in zip(jax.tree.leaves(inner.grads), jax.tree.leaves(wrapped.grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(wrapped.anchor), strict=True):
        np.testing.assert_allclose(a, b)


def test_awp_moves_kernels_by_gamma_and_takes_the_gradient_there():
    params, inner = gradients(PGDAT())
    _, wrapped = gradients(AWP(PGDAT(), gamma=0.02))
    for w, g, v in zip(*map(jax.tree.leaves, (params, inner.grads, wrapped.anchor)), strict=True):
        if w.ndim > 1:
            np.testing.assert_allclose(jnp.linalg.norm(v - w), 0.02 * jnp.linalg.norm(w), rtol=1e-3)
            np.testing.assert_allclose(
                v - w, 0.02 * jnp.linalg.norm(w) * g / jnp.linalg.norm(g), atol=1e-5
            )
        else:
            np.testing.assert_array_equal(v, w)
    _, net, batch = net_and_batch(PGDAT())
    crafted = Crafted(jnp.clip(batch.image + 0.05, 0, 1), net.stats)
    there = on_one_device(lambda: PGDAT().grads(net, wrapped.anchor, batch, crafted))
    for a, b in zip(jax.tree.leaves(there.grads), jax.tree.leaves(wrapped.grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("start", [0.5, 0.9])
def test_awp_waits_for_its_start(start):
    """The step that ends there is the last one before."""
    params, wrapped = gradients(AWP(PGDAT(), gamma=0.02, start=start))
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(wrapped.anchor), strict=True):
        np.testing.assert_array_equal(a, b)


def test_awp_wraps_methods_only():
    with pytest.raises(ValueError, match="inner must be a Method, got PGD"):
        AWP(PGD())
