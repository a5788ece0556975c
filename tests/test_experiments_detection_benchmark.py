"""The detection benchmark, on a linear network: every attacker, its table, figure and claims."""

import argparse
import dataclasses
import functools
import json
import pathlib
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from robustjax import data, detection
from robustjax.attacks import PGD, WorstOf
from robustjax.threats import Linf

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "experiments"))

import detection_benchmark as bench

RNG = np.random.default_rng(0)
N, SHAPE = 24, (3, 3, 1)
IMAGES = RNG.integers(60, 200, (N, *SHAPE)).astype(np.uint8)
W = RNG.normal(size=(2, 9, 2)).astype(np.float32)
LABELS = (IMAGES.reshape(N, 9) / 255 @ W[0]).argmax(-1)


def linear(weights, images):
    return jnp.dot(images.reshape(len(images), 9), weights)


class Small(bench.Benchmark):
    """Two linear networks, and two detectors of logits."""

    def load(self, split):
        return data.Dataset(IMAGES, LABELS, np.arange(N), "tiny", split, 2)

    @functools.cached_property
    def networks(self):
        return [Partial(linear, weights) for weights in W]

    @functools.cache  # noqa: B019
    def watched(self, seed):
        parts = {"max-margin": detection.MaxMargin(), "confidence": detection.Confidence()}
        model = self.networks[seed]
        fitted = {name: part.fit(model, IMAGES, LABELS) for name, part in parts.items()}
        return bench.Watched(model, fitted)


def test_the_detectors_are_all_that_suit_one_network():
    assert set(detection.DETECTORS) - {"rectified"} == set(bench.NAMES) - {
        "prediction-inconsistency",
        bench.WEIGHTED,
    }
    assert len(bench.NAMES) == 18


def few(monkeypatch):
    """Two attackers compile where there would be eight."""

    def blind(threat, **how):
        return PGD(Linf(0.1), 3)

    def aware(threat, **how):
        return detection.JointPGD(Linf(0.1), 3)

    def parts(threat, steps):
        return WorstOf((detection.JointPGD(threat, steps),))

    for name, kept in (
        ("FORMS", ("sum",)),
        ("AWARE", ("sum", "Square on both")),
        ("PANELS", ("PGD", "transfer", "Square", "sum", "Square on both", bench.TOGETHER)),
        ("CarliniWagnerL2", blind),
    ):
        monkeypatch.setattr(bench, name, kept)
    monkeypatch.setattr(bench.detection, "CarliniWagnerWB", aware)
    monkeypatch.setattr(bench.detection, "AdaptivePGD", parts)


def test_a_row_is_measured_once_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "NAMES", ("max-margin", "confidence"))
    monkeypatch.setattr(bench, "Benchmark", Small)
    few(monkeypatch)
    scale = dataclasses.replace(
        bench.SCALES["smoke"], n=8, aware=8, steps=3, queries=4, cw=(1, 4), radii=(0.05, 0.3)
    )
    monkeypatch.setitem(bench.SCALES, "smoke", scale)
    stem = tmp_path / "detection_benchmark_tiny_smoke"
    flags = {"data": "tiny", "data_dir": None, "scale": "smoke", "runs": tmp_path}
    flags["results"] = stem.with_suffix(".json")
    for _ in range(2):
        bench.main(argparse.Namespace(**flags, only="confidence"))
        monkeypatch.setattr(Small, "measured", None)  # a second run has nothing to measure
    rows = json.loads(stem.with_suffix(".json").read_text())["rows"]
    row = rows["confidence"]
    attacks = {f"{name}@{eps:g}" for name in bench.PANELS for eps in scale.radii}
    assert attacks | {"C&W", "C&W-wb"} == {name for name in row if isinstance(row[name], dict)}
    assert all(len(seeds) == 2 for seeds in row["PGD@0.3"].values())
    for seed in range(2):  # whoever knows the detector does at least as well at a larger radius
        small, large = (
            row[f"{bench.TOGETHER}@{eps:g}"]["robust_accuracy"][seed] for eps in scale.radii
        )
        assert large <= small <= row["sum@0.05"]["robust_accuracy"][seed]
    assert stem.with_suffix(".png").stat().st_size > 5000
    assert bench.table(rows, 0.3).splitlines()[2].startswith("| confidence |")


def test_a_claim_beyond_every_known_classifier_is_flagged(tmp_path):
    assert bench.best_known("mnist", "PGD@0.3") == pytest.approx(0.974)
    assert bench.best_known("mnist", "PGD@0.4") == pytest.approx(0.974 - (0.974 - 0.9332) / 3)
    assert bench.best_known("mnist", "C&W") is bench.best_known("digits", "PGD@0.3") is None
    options = argparse.Namespace(data="mnist", runs=tmp_path, scale="smoke")
    made = Small(options, dataclasses.replace(bench.SCALES["cpu"], n=8))
    found = {
        "PGD@0.3": {"robust_accuracy": [0.99, 1.0, 0.98]},
        "sum@0.3": {"robust_accuracy": [0.97, 0.98, 0.97]},
        "C&W": {"robust_accuracy": [1.0, 1.0, 1.0]},
    }
    made.scale = bench.SCALES["cpu"]
    assert made.claims(found) == ["PGD@0.3"]


def test_the_hidden_goal_prefers_wrong_and_accepted_images():
    def goal(lead, score):
        output = {"logits": jnp.array([0.0, lead]), "score": jnp.float32(score)}
        return float(bench.hidden(output, 0))

    order = [(-3, 9), (-1, 9), (2, -1e4), (1, -5), (9, -1), (0.5, 0), (3, 4)]
    assert [goal(*pair) for pair in order] == sorted(goal(*pair) for pair in order)
    assert len({goal(*pair) for pair in order}) == len(order)
