"""Mixup against its definition."""

import jax
import numpy as np
import pytest
from scipy import stats

from robustjax.data import mixup

SHAPE = (3, 4, 2)


@pytest.fixture(scope="module")
def pair():
    return np.random.default_rng(0).uniform(size=(2, *SHAPE)).astype(np.float32)


def test_every_pixel_is_mixed_alike(pair):
    mixed, kept = mixup(jax.random.key(1), *pair, alpha=1.4)
    assert 0 < kept < 1
    np.testing.assert_allclose(mixed, kept * pair[0] + (1 - kept) * pair[1], rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 1.4])
def test_the_weights_are_a_symmetric_beta_s(pair, alpha):
    keys = jax.random.split(jax.random.key(2), 4000)
    draw = jax.jit(jax.vmap(lambda key: mixup(key, *pair, alpha=alpha)[1]))
    assert stats.kstest(np.asarray(draw(keys)), stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_a_batch_needs_vmap(pair):
    with pytest.raises(ValueError, match="vmap"):
        mixup(jax.random.key(0), pair, pair, alpha=1.0)
