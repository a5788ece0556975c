"""Example: a detector of your own, known to the command line; nothing of robustjax is touched."""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from watched import IMAGES, LABELS, MODEL, OUTPUT

from robustjax import cli, config, detection, evaluation, files
from robustjax.attacks import FGSM
from robustjax.config import number
from robustjax.deterministic import log_probabilities, ordered_sum
from robustjax.outputs import features_of, float_logits
from robustjax.threats import Linf

# ---- GradNorm: Huang et al., "On the importance of gradients for detecting distributional shifts
# in the wild", NeurIPS 2021


@config.config
class GradNorm(detection.Detector):
    """||d CE(1/K, softmax(z / T)) / dW||_1 of the last layer z = W f + b; T the temperature."""

    temperature: float = number(default=1.0, low=1e-6)

    def statistics(self, learned, logits_fn, x):
        output = logits_fn(x)
        p = jnp.exp(log_probabilities(float_logits(output) / self.temperature))
        away = ordered_sum(jnp.abs(p - 1 / p.size)) / self.temperature
        return away * ordered_sum(jnp.abs(features_of(output)))


@pytest.fixture
def registered():
    detection.register("grad-norm", GradNorm())
    yield
    del detection.DETECTORS["grad-norm"]


# ---- what holds for it

FITTED = GradNorm(2.0).fit(MODEL, IMAGES, LABELS)


def test_it_is_the_norm_of_the_gradient():
    features = OUTPUT["features"][-1]
    kernel = jnp.zeros((features.shape[-1], OUTPUT["logits"].shape[-1]))

    def loss(kernel, f, z):
        return -jax.nn.log_softmax((z + f @ kernel) / 2).mean()

    slopes = jax.vmap(jax.grad(loss), (None, 0, 0))(kernel, features, OUTPUT["logits"])
    want = np.abs(slopes).sum((1, 2))
    np.testing.assert_allclose(detection.scores(FITTED, IMAGES), want, rtol=1e-4)


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
    words = ["--detectors", "grad-norm:temperature=2", "--attacks", "fgsm", "--no-adaptive"]
    cli.main(["detect", str(run), *words, "--n", "16", "--fit", "16", "--batch-size", "16"])
    about = files.read_json(run / "detection.json")["detectors"]
    assert config.decode(about["grad-norm:temperature=2"], {}) == GradNorm(2.0)
