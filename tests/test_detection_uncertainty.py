"""The variance over draws of a randomised model against NumPy."""

import jax
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.special import softmax
from watched import DROPOUT, IMAGES, LABELS, LOGITS, MODEL, WEIGHTS, dropout, network

from robustjax.attacks import Randomized
from robustjax.detection import Uncertainty, scores, with_score


def test_uncertainty_is_the_variance_over_the_draws():
    found = scores(Uncertainty(draws=6).fit(DROPOUT, IMAGES, LABELS), IMAGES, batch_size=16)
    keys = jax.random.split(jax.random.clone(DROPOUT.key), 6)
    draws = [softmax(np.asarray(dropout(WEIGHTS, k, IMAGES)["logits"], float), -1) for k in keys]
    np.testing.assert_allclose(found, -np.var(draws, 0).sum(-1), rtol=1e-3, atol=1e-6)


def test_uncertainty_is_of_the_draws_and_its_model_predicts_without_them():
    def both(weights, key, images):
        drawn = dropout(weights, key, images)["logits"]
        return {"logits": network(weights, images)["logits"], "drawn": drawn}

    alone, beside = (
        Uncertainty(draws=4).fit(model, IMAGES, LABELS)
        for model in (DROPOUT, Randomized(Partial(both, WEIGHTS)))
    )
    drawn, free = (jax.jit(with_score(fitted))(IMAGES) for fitted in (alone, beside))
    np.testing.assert_allclose(drawn["score"], free["score"], rtol=1e-4)
    np.testing.assert_allclose(free["logits"], LOGITS, atol=1e-5)
    assert np.abs(drawn["logits"] - LOGITS).max() > 0.1


def test_uncertainty_of_a_model_without_randomness_is_zero_or_refused():
    constant = Randomized(Partial(lambda weights, key, images: network(weights, images), WEIGHTS))
    found = scores(Uncertainty(draws=4).fit(constant, IMAGES, LABELS), IMAGES)
    np.testing.assert_allclose(found, 0, atol=1e-12)
    with pytest.raises(ValueError, match="Randomized"):
        Uncertainty().fit(MODEL, IMAGES, LABELS)
