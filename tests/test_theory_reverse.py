"""Theorem 2 of reverse cross-entropy: its two bounds, at random and where they are equalities."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

from robustjax import theory

CLASSES = (3, 5, 10, 100)


def parts(probabilities, labels):
    """Both slacks, as parts of their bounds."""
    bound = theory.reverse_error(probabilities, labels) * (probabilities.shape[-1] - 1) ** 2
    other = 2 * theory.reverse_error(probabilities, labels) * bound
    return (
        theory.one_hot_slack(probabilities, labels) / bound,
        theory.uniformity_slack(probabilities, labels) / other,
    )


def test_reversed_probabilities_are_the_softmax_of_negated_logits():
    z = np.random.default_rng(0).normal(0, 5, (7, 2, 6))
    found = theory.reversed_probabilities(softmax(z, -1))
    np.testing.assert_allclose(found, softmax(-z, -1), rtol=1e-10)
    extreme = theory.reversed_probabilities(np.array([1e-300, 0.5, 0.5]))
    np.testing.assert_allclose(extreme, [1, 0, 0], atol=1e-290)
    with pytest.raises(ValueError, match="must be positive: clip them"):
        theory.reversed_probabilities(np.array([0.0, 1.0]))


def test_the_slacks_are_their_definitions():
    """A case that is worked out by hand: F = (1/8, 1/4, 5/8), so G = (10, 5, 2) / 17."""
    probabilities = np.array([1, 2, 5]) / 8
    np.testing.assert_allclose(
        theory.reversed_probabilities(probabilities), np.array([10, 5, 2]) / 17
    )
    assert theory.reverse_error(probabilities, 0) == pytest.approx(1 / 4)
    assert theory.one_hot_slack(probabilities, 0) == pytest.approx(1 - 7 / 17)
    assert theory.uniformity_slack(probabilities, 0) == pytest.approx(2 / 4 - 3 / 17)
    assert theory.reverse_error(probabilities, 1) == pytest.approx(3 / 8)
    assert theory.one_hot_slack(probabilities, 1) == pytest.approx(12 / 8 - 12 / 17)
    assert theory.uniformity_slack(probabilities, 1) == pytest.approx(2 * 9 / 16 - 8 / 17)


@pytest.mark.parametrize("num_classes", CLASSES)
def test_no_random_case_of_100000_violates_the_bounds(num_classes):
    """25,000 for each number of classes, with errors up to 0.9 / (L - 1) and any label."""
    order = np.tile(np.arange(num_classes), (5000, 1))
    order = np.random.default_rng(9).permuted(order, axis=1)
    labels = order.argmin(1)
    for seed, fraction in enumerate((0.9, 0.5, 0.1, 1e-2, 1e-4)):
        alpha = fraction / (num_classes - 1)
        found = theory.sampled_probabilities(num_classes, alpha, 5000, seed)
        np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-12)
        found = np.take_along_axis(found, order, 1)
        error = theory.reverse_error(found, labels)
        assert (error <= alpha * (1 + 1e-9)).all() and error.max() > 0.99 * alpha
        for slack in parts(found, labels):
            assert slack.min() > -1e-9


@hypothesis.given(
    arrays(np.float64, st.integers(3, 12), elements=st.floats(-20, 20)), st.floats(1e-3, 1)
)
@hypothesis.settings(deadline=None)
def test_the_bounds_hold_from_any_softmax_to_the_reverse_label(z, share):
    """However large the error: from 1 / (L - 1) on the bounds are above one."""
    target = np.full(len(z), 1 / (len(z) - 1))
    target[0] = 0
    probabilities = share * softmax(z) + (1 - share) * target
    hypothesis.assume(theory.reverse_error(probabilities, 0) > 1e-6)
    for slack in parts(probabilities, 0):
        assert slack > -1e-9


@pytest.mark.parametrize("num_classes", CLASSES)
def test_the_extreme_case_makes_equalities_of_the_bounds(num_classes):
    small = 1e-4 / num_classes**2
    for alpha in (0.9 / (num_classes - 1), small):
        extreme = theory.extreme_probabilities(num_classes, alpha)
        assert extreme.sum() == pytest.approx(1, rel=1e-12) and (extreme > 0).all()
        assert theory.reverse_error(extreme, 0) == pytest.approx(alpha, rel=1e-6)
    one_hot, uniform = parts(extreme, 0)
    assert 0 <= one_hot < 1e-3
    assert 0 <= uniform < 1e-3 or (num_classes == 3 and uniform == pytest.approx(0.5, abs=1e-3))


@pytest.mark.parametrize(("num_classes", "alpha"), [(2, 0.1), (5, 0.25), (5, 0.0)])
def test_impossible_extremes_are_refused(num_classes, alpha):
    with pytest.raises(ValueError, match=r"num_classes must lie|alpha must lie between 0"):
        theory.extreme_probabilities(num_classes, alpha)
