"""Example: a detector of your own, known to the command line; nothing of robustjax is touched."""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from watched import IMAGES, LABELS, LOGITS, MODEL

from robustjax import cli, config, detection, evaluation, files
from robustjax.attacks import FGSM
from robustjax.config import number
from robustjax.deterministic import log_probabilities, ordered_sum
from robustjax.outputs import float_logits
from robustjax.threats import Linf

# ---- DOCTOR: Granese et al., "DOCTOR: a simple method for detecting misclassification errors",
# NeurIPS 2021, with total access to the probabilities


@config.config
class Doctor(detection.Detector):
    """log(sum_i p_i^2 / (1 - sum_i p_i^2)), p = softmax(z / T); T the temperature."""

    temperature: float = number(default=1.0, low=1e-6)

    def statistics(self, learned, logits_fn, x):
        p = jnp.exp(log_probabilities(float_logits(logits_fn(x)) / self.temperature))
        mixed = ordered_sum(p * (1 - p))
        return jnp.log1p(-mixed) - jnp.log(mixed)


@pytest.fixture
def registered():
    detection.register("doctor", Doctor())
    yield
    del detection.DETECTORS["doctor"]


# ---- what holds for it

FITTED = Doctor(2.0).fit(MODEL, IMAGES, LABELS)


def test_it_is_the_odds_that_two_draws_of_the_prediction_agree():
    agree = np.square(softmax(LOGITS / 2, axis=-1)).sum(-1)
    want = np.log(agree / (1 - agree))
    np.testing.assert_allclose(detection.scores(FITTED, IMAGES), want, rtol=1e-4, atol=1e-5)


def test_its_bits_depend_on_the_image_alone():
    whole = detection.scores(FITTED, IMAGES, batch_size=32)
    np.testing.assert_array_equal(
        detection.scores(FITTED, IMAGES[::-1], batch_size=16), whole[::-1]
    )


def test_it_is_attacked_together_with_the_classifier():
    threshold = detection.threshold_at(detection.scores(FITTED, IMAGES), 0.05)
    watched = detection.with_score(FITTED, threshold)
    attacks = {"oblivious": FGSM(Linf(0.2)), "joint": detection.AdaptivePGD(Linf(0.2), steps=10)}
    success = detection.accepted_and_wrong
    found = evaluation.evaluate(
        watched, IMAGES, LABELS, attacks, jax.random.key(0), success=success, diagnose=False
    )
    assert found.robust["joint"] <= found.robust["oblivious"] < found.clean


def test_the_command_line_knows_it(registered, tmp_path):
    run = shutil.copytree(
        pathlib.Path(__file__).parent / "golden" / "runs" / "pgd-at-cnn", tmp_path / "run"
    )
    words = ["--detectors", "doctor:temperature=2", "--attacks", "fgsm", "--no-adaptive"]
    cli.main(["detect", str(run), *words, "--n", "16", "--fit", "16", "--batch-size", "16"])
    about = files.read_json(run / "detection.json")["detectors"]
    assert config.decode(about["doctor:temperature=2"], {}) == Doctor(2.0)
