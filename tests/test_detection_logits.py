"""Detectors of one forward pass against NumPy and SciPy in float64, and at extreme logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from scipy.stats import entropy
from watched import CLASSES, IMAGES, LABELS, LOGITS, MODEL

from robustjax import centers
from robustjax.detection import (
    CenterDistance,
    Confidence,
    Energy,
    Entropy,
    MaxMargin,
    NonME,
    scores,
)
from robustjax.losses import gsce_logits

DETECTORS = [Confidence(), Entropy(), NonME(), Energy(), Energy(2.0), MaxMargin(), CenterDistance()]


def score(detector, logits):
    """The score of an image whose logits are these."""
    return _score(detector, jnp.asarray(logits, jnp.float32))


@jax.jit
def _score(detector, logits):
    return detector.statistics((), lambda x: logits, None)


def expected(detector, logits):
    p, z = softmax(logits), np.sort(logits)
    return {
        Confidence: lambda: np.log(p.max() / (1 - p.max())),
        Entropy: lambda: -entropy(p),
        NonME: lambda: entropy(np.delete(p, p.argmax())),  # SciPy normalises
        Energy: lambda: detector.temperature * logsumexp(logits / detector.temperature),
        MaxMargin: lambda: z[-1] - z[-2],
        CenterDistance: lambda: z[-1],
    }[type(detector)]()


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: repr(d)[:20])
def test_scores_are_the_formula(detector):
    found = scores(detector.fit(MODEL, IMAGES, LABELS), IMAGES, batch_size=16)
    truth = [expected(detector, z) for z in LOGITS]
    np.testing.assert_allclose(found, truth, rtol=2e-5, atol=1e-5)


def test_confidence_is_the_sigmoid_of_its_score_and_does_not_saturate():
    np.testing.assert_allclose(
        jax.nn.sigmoid(score(Confidence(), [1.0, 3.0, 0.0])), softmax([1, 3, 0]).max(), rtol=1e-6
    )
    sure, surer = score(Confidence(), [0.0, 200, 0]), score(Confidence(), [0.0, 300, 0])
    assert surer - sure == pytest.approx(100)


@pytest.mark.parametrize("others", [2, 5, 9])
def test_non_me_is_largest_where_the_other_logits_are_equal(others):
    logits = [-3.0] * others
    assert score(NonME(), [*logits, 400.0]) == pytest.approx(np.log(others), rel=1e-6)
    logits[0] += 0.1
    assert score(NonME(), [*logits, 400.0]) < np.log(others) - 1e-4


def test_non_me_of_two_classes_is_zero():
    for logits in ([0.0, 0.0], [-5.0, 3.0], [1e30, -1e30]):
        assert score(NonME(), logits) == 0


EXTREME = [[0, 0, 0, 0], [1e4, 0, -1e4, 0], [1e30, -1e30, 0, 5], [-1e30] * 4, [9, 9, 9, 0]]


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: repr(d)[:20])
def test_extreme_logits_have_finite_scores_and_gradients(detector):
    of = lambda z: detector.statistics((), lambda x: z, None)  # noqa: E731
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(of)))(jnp.asarray(EXTREME))
    assert np.isfinite(values).all() and np.isfinite(gradients).all()


@pytest.mark.parametrize("detector", [Confidence(), Energy(), MaxMargin(), CenterDistance()])
def test_scores_grow_with_the_largest_logit(detector):
    values = [float(score(detector, [1.0, top, 0.0])) for top in (1.5, 3, 10, 50)]
    assert values == sorted(values) and len(set(values)) == 4


def test_center_distance_of_a_max_mahalanobis_head():
    mu = centers.max_mahalanobis(CLASSES, 5, 10.0).astype(np.float32)
    z = mu[1] + np.float32([0.3, 0, -0.4, 0, 0])
    logits = gsce_logits(z, mu, jnp.full(CLASSES, 0.5), jnp.zeros(CLASSES))
    assert score(CenterDistance(), logits) == pytest.approx(-0.125, rel=1e-5)


def test_a_temperature_must_be_positive():
    with pytest.raises(ValueError, match="temperature"):
        Energy(0.0)
