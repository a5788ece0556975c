"""Sums of one order: their values, and that a batch leaves their bits alone; the maximum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.deterministic import largest, ordered_sum, spread

VALUES = np.random.default_rng(0).normal(size=(13, 40)).astype(np.float32)


@pytest.mark.parametrize("n", [1, 2, 7, 13])
def test_an_ordered_sum_is_a_sum(n):
    np.testing.assert_allclose(ordered_sum(jnp.asarray(VALUES[:n])), VALUES[:n].sum(0), atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_spread_copies_and_its_gradient_is_the_ordered_sum(n):
    copies, transpose = jax.vjp(lambda v: spread(v, n), jnp.asarray(VALUES[0]))
    np.testing.assert_array_equal(copies, np.stack([VALUES[0]] * n))
    (gradient,) = transpose(jnp.asarray(VALUES[:n]))
    np.testing.assert_array_equal(gradient, ordered_sum(jnp.asarray(VALUES[:n])))


def test_largest_is_the_maximum_and_its_gradient_one_of_its_places():
    for values in (VALUES[0], -VALUES[0], np.float32([1, 3, 3, -np.inf]), np.float32([-np.inf, 0])):
        found, gradient = jax.value_and_grad(largest)(jnp.asarray(values))
        assert found == values.max()
        np.testing.assert_array_equal(gradient, np.arange(len(values)) == values.argmax())
    assert np.isnan(largest(jnp.asarray([0.0, np.nan, 1.0])))
