"""Laws of all detectors, fitted to one tiny model: a new one is a row in DETECTORS."""

import jax
import numpy as np
import pytest
from jax.tree_util import Partial
from watched import IMAGES, LABELS, MODEL, PREDICTED, WEIGHTS, network

from robustjax.attacks import PGD, Zero, perturb
from robustjax.detection import (
    CenterDistance,
    Confidence,
    Energy,
    Entropy,
    KDensity,
    MaxMargin,
    NonME,
    scores,
    with_score,
)
from robustjax.threats import Linf

DETECTORS = {
    "confidence": Confidence(),
    "entropy": Entropy(),
    "non-me": NonME(),
    "energy": Energy(),
    "max-margin": MaxMargin(),
    "center-distance": CenterDistance(),
    "k-density": KDensity(count=10),
}
FITTED = {}
"""By name; a detector is fitted once."""


@pytest.fixture(params=DETECTORS)
def fitted(request):
    name = request.param
    if name not in FITTED:
        FITTED[name] = DETECTORS[name].fit(MODEL, IMAGES, LABELS, batch_size=16)
    return FITTED[name]


def test_no_bit_depends_on_the_batch(fitted):
    whole = scores(fitted, IMAGES, batch_size=60)
    assert whole.shape == (60,) and np.isfinite(whole).all()
    np.testing.assert_array_equal(scores(fitted, IMAGES[13:30], batch_size=8), whole[13:30])
    np.testing.assert_array_equal(scores(fitted, IMAGES[::-1], batch_size=16)[::-1], whole)


def test_a_fitted_detector_is_a_function_and_a_pytree_with_finite_gradients(fitted):
    run = jax.jit(jax.value_and_grad(lambda detector, x: detector(x), argnums=1))
    value, gradient = run(fitted, IMAGES[1])
    assert value == pytest.approx(scores(fitted, IMAGES[1:2])[0], rel=1e-4, abs=1e-5)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    assert all(isinstance(leaf, jax.typing.ArrayLike) for leaf in jax.tree.leaves(fitted))


def test_new_weights_compile_nothing(fitted, monkeypatch):
    traced = []
    again = jax.tree.map(lambda a: a, fitted)
    statistics = type(fitted.detector).statistics
    monkeypatch.setattr(
        type(fitted.detector), "statistics", lambda *args: traced.append(1) or statistics(*args)
    )
    scores(fitted, IMAGES, batch_size=12)
    first = len(traced)
    scores(jax.tree.map(lambda a: a, again), IMAGES, batch_size=12)
    assert first > 0 and len(traced) == first


def test_an_attack_on_the_score_raises_it(fitted):
    attack = PGD(Linf(0.02), steps=10, start=Zero(), loss=higher_score)
    x_adv = perturb(attack, with_score(fitted), jax.random.key(0), IMAGES[:8], LABELS[:8])
    assert np.abs(x_adv - IMAGES[:8]).max() <= 0.02 + 1e-6
    assert (scores(fitted, x_adv) > scores(fitted, IMAGES[:8])).mean() > 0.8


def higher_score(output, target):
    return output["score"]


def test_the_model_with_the_score_keeps_its_logits(fitted):
    output = with_score(fitted)(IMAGES[:3])
    np.testing.assert_array_equal(output["logits"].argmax(-1), PREDICTED[:3])
    np.testing.assert_allclose(output["score"], scores(fitted, IMAGES[:3]), rtol=1e-4, atol=1e-5)


def test_pixels_of_255_are_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        Confidence().fit(MODEL, 255 * IMAGES, LABELS)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        scores(Confidence().fit(Partial(network, WEIGHTS), IMAGES, LABELS), 255 * IMAGES)
