"""Prediction inconsistency: another network's log-odds of the predicted class."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.special import logsumexp
from watched import IMAGES, LABELS, LOGITS, MODEL, PREDICTED

from robustjax.detection import Confidence, PredictionInconsistency, scores


def shifted(model, images):
    """The network whose class k is the other's class k + 1."""
    return jnp.roll(model(images)["logits"], 1, -1)


def test_it_is_the_log_odds_of_the_predicted_class():
    detector = PredictionInconsistency(Partial(shifted, MODEL))
    found = scores(detector.fit(MODEL, IMAGES, LABELS), IMAGES, batch_size=16)
    other, rows = np.roll(LOGITS, 1, -1), np.arange(len(IMAGES))
    rest = np.stack([np.delete(z, k) for z, k in zip(other, PREDICTED, strict=True)])
    want = other[rows, PREDICTED] - logsumexp(rest, -1)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)


def test_of_the_classifier_itself_it_is_its_confidence():
    found, known = (
        scores(detector.fit(MODEL, IMAGES, LABELS), IMAGES, batch_size=16)
        for detector in (PredictionInconsistency(MODEL), Confidence())
    )
    np.testing.assert_allclose(found, known, rtol=1e-4)


def test_a_network_of_other_classes_is_refused():
    two = Partial(lambda images: images[:, 0, 0, :])
    with pytest.raises(ValueError, match="2 classes and the model has 3"):
        PredictionInconsistency(two).fit(MODEL, IMAGES, LABELS % 2)
