"""MART against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from tiny import CLASSES, SIZE, cross_entropies, divergences, linear

from robustjax import losses
from robustjax.losses.pair import boost
from robustjax.training import MART


def boosted(z, label):
    p = softmax(z, -1)
    p[np.arange(SIZE), label] = 0
    return cross_entropies(z, label) - np.log(1 - p.max(-1))


@pytest.mark.parametrize("beta", [0.0, 5.0])
def test_mart_is_its_formula_and_without_beta_the_boosted_cross_entropy(beta):
    loss, clean, moved, label = linear(MART(beta=beta))
    doubt = 1 - softmax(clean, -1)[np.arange(SIZE), label]
    want = boosted(moved, label) + beta * divergences(clean, moved) * doubt
    assert loss == pytest.approx(want.mean(), rel=1e-5)


def test_mart_forgets_examples_it_is_sure_of():
    """Where p_y(x) = 1 the KL weighs nothing; here it does for every example."""
    clean = jnp.full((CLASSES,), -50.0).at[1].set(50.0)
    assert 1 - jnp.exp(-losses.cross_entropy(clean, jnp.int32(1))) < 1e-6


def test_mart_s_logarithm_is_exact_where_the_runner_up_is_certain():
    z = jnp.array([0.0, 40.0, 3.0, -2.0])
    want = -(logsumexp([0.0, 3.0, -2.0]) - logsumexp(np.asarray(z)))
    assert float(boost(z, jnp.int32(0))) == pytest.approx(want, rel=1e-5)
    assert jnp.isfinite(jax.grad(boost)(z, jnp.int32(0))).all()
