"""Detectors under attack: linear models under FGSM, where every image and score is known."""

import json

import jax
import numpy as np
import pytest
from jax.tree_util import Partial

from robustjax import detection
from robustjax.attacks import (
    BIM,
    FGSM,
    DeepFool,
    perturb,
)
from robustjax.config import config
from robustjax.detection import AdaptivePGD, Detector, JointPGD, accepted_and_wrong, with_score
from robustjax.deterministic import ordered_sum
from robustjax.evaluation import detect
from robustjax.threats import L2, Linf

N, EPS = 60, 0.05
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0.2, 0.8, (N, 4, 4, 1)).astype(np.float32)
CLEAN = RNG.uniform(0.2, 0.8, (40, 4, 4, 1)).astype(np.float32)
FLAT = IMAGES.reshape(N, -1)
W = {"own": RNG.normal(size=(16, 2)).astype(np.float32)}
W["other"] = W["own"] + 0.7 * RNG.normal(size=(16, 2)).astype(np.float32)
BIAS = {name: -np.median(FLAT @ w, axis=0) for name, w in W.items()}
LABELS = (FLAT @ W["own"] + BIAS["own"]).argmax(-1)
LABELS[:4] = 1 - LABELS[:4]
KEY = jax.random.key(0)


def linear(weights, x):
    return x.reshape(len(x), -1) @ weights[0] + weights[1][None]


MODEL, OTHER = (Partial(linear, (W[name], BIAS[name])) for name in ("own", "other"))


@config
class Along(Detector):
    """<slope, x>."""

    slope: jax.Array

    def statistics(self, learned, logits_fn, x):
        """(), linear in the pixels."""
        return ordered_sum(x.reshape(-1) * self.slope)


SLOPES = {name: RNG.normal(size=16).astype(np.float32) for name in ("first", "second")}
FITTED = {name: Along(slope).fit(MODEL, CLEAN, np.zeros(40, int)) for name, slope in SLOPES.items()}
WHITE_BOX = JointPGD(Linf(EPS), steps=10)


def run(attacks, **rest):
    return detect(MODEL, FITTED, IMAGES, LABELS, CLEAN, attacks, KEY, **rest)


@pytest.fixture(scope="module")
def found():
    return run(
        {"fgsm": FGSM(Linf(EPS))},
        false_rejection=0.2,
        substitutes={"other": OTHER},
        white_box=WHITE_BOX,
    )


def fgsm(name):
    """Away from the box every pixel moves by eps along the model's slope."""
    slope = np.sign(W[name][:, 1] - W[name][:, 0]) * (1 - 2 * LABELS)[:, None]
    return (FLAT + EPS * slope).astype(np.float32)


def predicted(flat):
    return (flat @ W["own"] + BIAS["own"]).argmax(-1)


@pytest.mark.parametrize("name", SLOPES)
def test_every_threat_model_is_judged_as_known(found, name):
    slope = SLOPES[name]
    threshold = detection.threshold_at(CLEAN.reshape(40, -1) @ slope, 0.2)
    assert found.threshold[name] == pytest.approx(threshold, abs=1e-5)
    clean = (LABELS, predicted(FLAT), FLAT @ slope)
    white = perturb(
        WHITE_BOX, with_score(FITTED[name], found.threshold[name]), KEY, IMAGES, LABELS
    ).reshape(N, -1)
    sets = {"fgsm": fgsm("own"), "fgsm from other": fgsm("other"), "white-box": white}
    assert list(found.found[name]) == list(sets)
    for attack, z in sets.items():
        np.testing.assert_array_equal(found.views[name][attack].prediction, predicted(z))
        np.testing.assert_allclose(found.views[name][attack].score, z @ slope, atol=1e-4)
        entry = found.found[name][attack]
        known = detection.rates(*clean, predicted(z), z @ slope, threshold=threshold - 1e-5)
        assert (entry.pairs, entry.n) == (known.pairs, N)
        for field in ("auc", "tpr", "fpr", "accepted_clean", "clean_accuracy", "accepted_wrong"):
            assert getattr(entry, field) == pytest.approx(getattr(known, field), abs=1e-6)
        fpr, tpr = found.curves[name][attack]
        assert np.trapezoid(tpr, fpr) == pytest.approx(entry.auc)


@pytest.mark.parametrize("name", SLOPES)
def test_whoever_sees_the_detector_gets_more_past_it(found, name):
    row = found.found[name]
    assert row["white-box"].accepted_wrong > row["fgsm"].accepted_wrong
    assert row["fgsm"].accepted_wrong > row["fgsm from other"].accepted_wrong > 0


def test_the_json_is_strict_and_says_how(found):
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["n"] == N and set(content["found"]) == set(SLOPES)
    assert content["attacks"]["white-box"]["type"] == "JointPGD"
    weak = run({"bim": BIM(Linf(1e-6))}).to_json()["found"]["first"]["bim"]
    assert weak["auc"] is None and weak["reasons"]["auc"] == (
        "every adversarial image that fools comes from a misclassified clean one"
    )


def test_an_image_outside_the_threat_model_is_replaced_by_the_clean_one():
    near, far = (run({"deepfool": DeepFool(L2(eps))}) for eps in (1e-3, 10.0))
    same = near.views["first"]["deepfool"].score == near.views["first"]["clean"].score
    assert same.mean() > 0.8 and near.found["first"]["deepfool"].pairs < 0.2 * N
    assert far.found["first"]["deepfool"].pairs == N - 4


def test_every_constraint_is_tried_on_what_is_left():
    """And a second time the images of the first that succeeds are kept."""
    watched = with_score(FITTED["first"], 0.1)
    attack = AdaptivePGD(Linf(EPS), steps=10)
    each = [
        perturb(a, watched, KEY, IMAGES, LABELS, success=accepted_and_wrong)
        for a in (attack, *attack.attacks)
    ]
    won = [np.asarray(jax.vmap(accepted_and_wrong)(watched(z), LABELS)) for z in each]
    assert won[0].sum() >= max(w.sum() for w in won[1:]) > 0


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="named white-box"):
        run({"white-box": FGSM()})
    with pytest.raises(ValueError, match="named joint"):
        run({"joint": FGSM()}, white_box={"joint": WHITE_BOX})
    with pytest.raises(ValueError, match="at least one attack"):
        detect(MODEL, FITTED, IMAGES, LABELS, CLEAN, {}, KEY)
    with pytest.raises(ValueError, match="at least one detector"):
        detect(MODEL, {}, IMAGES, LABELS, CLEAN, {"fgsm": FGSM()}, KEY)
