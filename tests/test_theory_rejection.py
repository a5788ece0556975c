"""Two coupled metrics tell wrong inputs from right ones: never violated, and tight."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from robustjax import theory


def test_the_error_is_its_definition():
    """F = (1/2, 1/4, 1/4): A* is 1 for the first class, 1/2 for the others."""
    probabilities = np.array([2, 1, 1]) / 4
    assert theory.auxiliary_error(probabilities, 0, 1.0) == 0
    assert theory.auxiliary_error(probabilities, 0, 0.9) == pytest.approx(0.2)
    assert theory.auxiliary_error(probabilities, 1, 0.5) == 0
    assert theory.auxiliary_error(probabilities, 1, 0.55) == pytest.approx(0.1)
    assert theory.auxiliary_error(probabilities, 1, 1.0) == pytest.approx(1.0)
    assert theory.sufficient_confidence(0.5) == pytest.approx(2 / 3)


@hypothesis.given(st.floats(1e-6, 1), st.floats(1e-6, 1))
def test_a_bounded_ratio_bounds_the_error(ideal, auxiliary):
    xi = 2 - 2 * np.exp(-abs(np.log(auxiliary / ideal)))
    confidence = 1 / (1 + ideal)
    hypothesis.assume(confidence > 0.5)
    probabilities = np.array([confidence, 1 - confidence])
    assert theory.auxiliary_error(probabilities, 1, auxiliary) <= xi + 1e-9


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_no_random_case_violates_it(num_classes):
    rng = np.random.default_rng(num_classes)
    scale = rng.exponential(4, (50_000, 1))
    odds = rng.normal(size=(50_000, num_classes)) * scale
    probabilities = np.exp(odds - odds.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    labels = rng.integers(num_classes, size=50_000)
    ideal = np.take_along_axis(probabilities, labels[:, None], -1)[:, 0] / probabilities.max(-1)
    noisy = ideal * np.exp(rng.normal(0, 0.3, 50_000)) + rng.normal(0, 0.2, 50_000)
    auxiliary = np.where(rng.random(50_000) < 0.3, rng.random(50_000), np.clip(noisy, 1e-6, 1))
    slack = theory.rejection_slack(probabilities, labels, auxiliary)
    right = probabilities.argmax(-1) == labels
    for kind in (right, ~right):
        assert np.isfinite(slack[kind]).sum() > 1000
    assert slack.min() >= -1e-12


@hypothesis.given(st.floats(0, 0.95), st.floats(0, 1), st.booleans())
def test_an_input_just_above_the_sufficient_confidence(xi, fraction, right):
    confidence = theory.sufficient_confidence(xi) + 1e-9 + fraction * 0.02
    hypothesis.assume(confidence < 1)
    probabilities = np.array([confidence, 1 - confidence])
    ideal = 1.0 if right else (1 - confidence) / confidence
    auxiliary = ideal - xi / 2 if right else min(1, ideal + xi / 2)
    assert theory.auxiliary_error(probabilities, int(not right), auxiliary) <= xi + 1e-9
    slack = theory.rejection_slack(probabilities, int(not right), auxiliary)
    assert slack >= -1e-8
    assert slack <= 0.02 + 1e-6 or not np.isfinite(slack)


def test_the_bound_cannot_be_lowered():
    """Half a thousandth below it, both kinds of inputs cross 1/2 at the same error."""
    for xi in (0.1, 0.5, 0.9):
        confidence = theory.sufficient_confidence(xi) - 5e-4
        assert confidence * (1 - xi / 2) < 0.5
        assert (1 - confidence) + confidence * xi / 2 > 0.5
        nothing = theory.rejection_slack(np.array([confidence, 1 - confidence]), 0, 1 - xi / 2)
        assert nothing == np.inf
