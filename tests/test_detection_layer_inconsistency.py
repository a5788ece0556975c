"""Layer inconsistency against scikit-learn's ridge regression."""

import numpy as np
import pytest
from jax.tree_util import Partial
from sklearn.linear_model import Ridge
from watched import FEATURES, IMAGES, LABELS, MODEL

from robustjax.detection import LayerInconsistency
from robustjax.detection.detector import over_images


def statistics(fitted, images):
    return over_images(_statistics, fitted, images, 16)


def _statistics(fitted, x):
    return fitted.statistics(x)


def test_it_is_the_error_of_a_ridge_regression_in_units_of_the_usual_one():
    last, early = FEATURES[-1], FEATURES[0].mean((1, 2))
    penalty = 0.01 * np.square(last - last.mean(0)).mean() * len(last)
    guess = Ridge(penalty).fit(last, early).predict(last)
    want = np.square(guess - early).sum(1)
    found = statistics(LayerInconsistency(0.01).fit(MODEL, IMAGES, LABELS), IMAGES)
    np.testing.assert_allclose(found[:, 0], -want / want.mean(), rtol=1e-3)
    assert found.mean() == pytest.approx(-1, rel=1e-4)


def test_a_shift_of_a_layer_changes_nothing():
    def moved(images):
        first, last = MODEL(images)["features"]
        return {"logits": MODEL(images)["logits"], "features": (first + 3, last - 2)}

    found, known = (
        statistics(LayerInconsistency().fit(model, IMAGES, LABELS), IMAGES[:20])
        for model in (Partial(moved), MODEL)
    )
    np.testing.assert_allclose(found, known, rtol=1e-3)


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (lambda a, b: b, "one layer only"),
        (lambda a, b: (b, b), "follows from the last one exactly"),
        (lambda a, b: (a, 0 * b), "the same for all images"),
    ],
)
def test_layers_that_cannot_be_compared_are_refused(layers, reason):
    def model(images):
        output = MODEL(images)
        return {"logits": output["logits"], "features": layers(*output["features"])}

    with pytest.raises(ValueError, match=reason):
        LayerInconsistency(1e-9).fit(model, IMAGES, LABELS)
