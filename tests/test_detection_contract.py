"""Laws of all detectors, fitted to one tiny model: a new one is a row in DETECTORS."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from watched import AUTOENCODER, DROPOUT, IMAGES, LABELS, MODEL, PREDICTED, TRACED

from robustjax.attacks import PGD, perturb
from robustjax.attacks.starts import Zero
from robustjax.detection import (
    LID,
    Autoencoder,
    BitDepth,
    CenterDistance,
    Confidence,
    Energy,
    Entropy,
    FeatureSqueezing,
    GradNorm,
    KDensity,
    LayerInconsistency,
    Mahalanobis,
    MaxMargin,
    MedianSmoothing,
    Neighbors,
    NonLocalMeans,
    NonME,
    PredictionInconsistency,
    ReconstructionDivergence,
    ReconstructionError,
    Rectified,
    Uncertainty,
    combine,
    scores,
    with_score,
)
from robustjax.outputs import features_of, layers_of
from robustjax.threats import Linf

DETECTORS = {
    "confidence": Confidence(),
    "entropy": Entropy(),
    "non-me": NonME(),
    "energy": Energy(),
    "max-margin": MaxMargin(),
    "center-distance": CenterDistance(),
    "grad-norm": GradNorm(),
    "k-density": KDensity(count=10),
    "mahalanobis": Mahalanobis(),
    "lid": LID(k=5, references=12, minibatches=2),
    "layer-inconsistency": LayerInconsistency(),
    "neighbors": Neighbors(count=3, shift=1),
    "neighbors, another encoder": Neighbors(MODEL, count=3, shift=1),
    "prediction-inconsistency": PredictionInconsistency(MODEL),
    "squeezing": FeatureSqueezing((BitDepth(3), MedianSmoothing(2), NonLocalMeans(3, 3, 0.1))),
    "reconstruction-error": ReconstructionError(AUTOENCODER),
    "reconstruction-divergence": ReconstructionDivergence(AUTOENCODER, 2.0),
    "reconstruction-error, trained": ReconstructionError(Autoencoder(epochs=2), p=2),
    "reconstruction-divergence, trained, pooled": ReconstructionDivergence(
        Autoencoder(epochs=2, pool=True), 2.0
    ),
    "uncertainty": Uncertainty(draws=4),
    "rectified": Rectified(),
    "combined": None,
}
FITTED = {}
"""By name; a detector is fitted once."""


@pytest.fixture(params=DETECTORS)
def fitted(request):
    return fit(request.param)


def fit(name):
    if name not in FITTED and name == "combined":
        parts = [fit("mahalanobis"), fit("confidence")]
        FITTED[name] = combine(parts, IMAGES[::2], 1 - IMAGES[1::2])
    elif name not in FITTED:
        model = DROPOUT if name == "uncertainty" else MODEL
        FITTED[name] = DETECTORS[name].fit(model, IMAGES, LABELS, batch_size=16)
    return FITTED[name]


def test_no_bit_depends_on_the_batch_and_new_weights_compile_nothing(fitted):
    whole = scores(fitted, IMAGES, batch_size=60)
    assert whole.shape == (60,) and np.isfinite(whole).all()
    np.testing.assert_array_equal(scores(fitted, IMAGES[::-1], batch_size=16)[::-1], whole)
    traced = len(TRACED)
    other = jax.tree.map(moved, fitted)
    assert (scores(other, IMAGES[:20], batch_size=16) != whole[:20]).any()
    assert len(TRACED) == traced


def moved(leaf):
    return leaf * 1.01 if getattr(leaf, "dtype", None) == np.float32 else leaf


def test_a_fitted_detector_is_a_function_and_a_pytree_whose_gradient_ascends(fitted):
    assert all(isinstance(leaf, jax.typing.ArrayLike) for leaf in jax.tree.leaves(fitted))
    run = jax.jit(jax.value_and_grad(lambda detector, x: detector(x), argnums=1))
    value, gradient = run(fitted, IMAGES[1])
    assert value == pytest.approx(scores(fitted, IMAGES[1:2], batch_size=16)[0], rel=1e-3)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    if fitted is not FITTED.get("squeezing"):  # whose rounded image has another image's gradient
        ahead = 1e-3 * gradient / np.linalg.norm(gradient)
        assert run(fitted, IMAGES[1] + ahead)[0] > value


@pytest.mark.parametrize("name", ["k-density", "combined"])
def test_an_attack_on_the_score_raises_it_and_sees_the_logits(name):
    watched, few = with_score(fit(name)), IMAGES[:8]
    attack = PGD(Linf(0.02), steps=10, start=Zero(), loss=higher_score)
    x_adv = perturb(attack, watched, jax.random.key(0), few, LABELS[:8])
    before, after = jax.jit(watched)(few), jax.jit(watched)(x_adv)
    assert np.abs(x_adv - few).max() <= 0.02 + 1e-6
    assert (after["score"] > before["score"]).all()
    np.testing.assert_array_equal(before["logits"].argmax(-1), PREDICTED[:8])


def higher_score(output, target):
    return output["score"]


def test_pixels_of_255_and_unknown_labels_are_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        Confidence().fit(MODEL, 255 * IMAGES, LABELS)
    with pytest.raises(ValueError, match="3 classes, but there is a label 7"):
        KDensity().fit(MODEL, IMAGES, LABELS + 5)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        scores(Confidence().fit(MODEL, IMAGES, LABELS), 255 * IMAGES)


def test_thresholds_of_another_number_are_refused():
    watched = with_score(fit("confidence"), np.zeros(4))
    with pytest.raises(ValueError, match="4 thresholds for 3 classes"):
        watched(IMAGES[:2])


def test_logits_of_few_bits_have_scores_of_many():
    half = Confidence().fit(lambda x: MODEL(x)["logits"].astype(jnp.bfloat16), IMAGES, LABELS)
    assert scores(half, IMAGES).dtype == np.float32


def test_layers_of_every_form_of_output():
    logits, a, b = np.zeros(3), np.ones(4), np.ones((2, 2, 1))
    for output in ((logits, (b, a)), [logits, [b, a]], {"logits": logits, "features": (b, a)}):
        assert [layer.shape for layer in layers_of(output)] == [(2, 2, 1), (4,)]
    assert features_of((logits, b)).shape == (4,) and len(layers_of((logits, b))) == 1
    for output in (logits, (logits,), {"logits": logits}):
        with pytest.raises(ValueError, match="logits alone"):
            layers_of(output)
