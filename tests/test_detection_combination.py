"""The logistic combination of statistics against scikit-learn."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import MinMaxScaler
from watched import IMAGES, LABELS, MODEL

from robustjax.detection import LID, Mahalanobis, auc, combine, scores
from robustjax.detection.detector import over_images

RNG = np.random.default_rng(0)


def by_layer(fitted, images=IMAGES):
    return over_images(lambda fitted, x: fitted.statistics(x), fitted, images, 16)


def test_combination_is_scikit_learns_on_scaled_statistics():
    parts = [Mahalanobis().fit(MODEL, IMAGES, LABELS), LID(5, 12).fit(MODEL, IMAGES, LABELS)]
    bad = np.clip(IMAGES + RNG.uniform(-0.4, 0.4, IMAGES.shape), 0, 1).astype(np.float32)
    combined = combine(parts, IMAGES[:30], bad[:30])
    both = np.concatenate([IMAGES[:30], bad[:30]])
    table = np.concatenate([by_layer(part, both) for part in parts], 1).astype(np.float64)
    truth = np.repeat([1, 0], 30)
    scaled = MinMaxScaler().fit_transform(table)
    expected = LogisticRegression().fit(scaled, truth).decision_function(scaled)
    np.testing.assert_allclose(scores(combined, both), expected, atol=1e-3)
    assert auc(scores(combined, IMAGES[30:]), scores(combined, bad[30:])) > 0.95
