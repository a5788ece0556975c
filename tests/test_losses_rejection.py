"""Confidences as log-odds, against their definitions in float64."""

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy.special import expit, logit, softmax

from robustjax.detection import Confidence
from robustjax.losses import confidence_odds, rectified_odds

numbers = st.floats(-12, 12, width=32)


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_the_confidence_is_the_largest_probability(num_classes):
    z = np.random.default_rng(0).normal(0, 5, (200, num_classes)).astype(np.float32)
    found, slopes = jax.vmap(jax.value_and_grad(confidence_odds))(z)
    p = softmax(z.astype(float), -1)
    top, certainty = np.eye(num_classes)[z.argmax(-1)], p.max(-1)
    wrong = (p * (1 - top)).sum(-1)
    np.testing.assert_allclose(found, np.log(certainty / wrong), atol=1e-4)
    np.testing.assert_allclose(slopes, top - (1 - top) * p / wrong[:, None], atol=1e-4)
    detector = jax.vmap(lambda z: Confidence().statistics((), lambda x: x, z))(z)
    np.testing.assert_allclose(found, detector, atol=1e-4)


@hypothesis.given(numbers, numbers)
def test_rectified_odds_are_those_of_the_product(confidence, auxiliary):
    found = float(rectified_odds(confidence, auxiliary))
    product = expit(float(confidence)) * expit(float(auxiliary))
    assert found == pytest.approx(logit(product), rel=1e-5, abs=1e-4)
    assert found < min(confidence, auxiliary) + 1e-4


def test_nothing_saturates():
    both = jax.value_and_grad(rectified_odds, (0, 1))
    pairs = [(a, b) for a in (-1e30, -200.0, 200.0, 1e30) for b in (-1e30, -300.0, 300.0)]
    for confidence, auxiliary in pairs:
        value, slopes = both(confidence, auxiliary)
        assert np.isfinite([value, *slopes]).all() and min(slopes) >= 0 and max(slopes) > 0.9
