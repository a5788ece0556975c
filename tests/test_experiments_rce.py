"""The parts of experiments/rce: detectors, attacks, geometry and tables."""

import json
import pathlib
import sys

import jax
import numpy as np
import pytest
from scipy.spatial.distance import pdist
from watched import IMAGES, LABELS, MODEL

from robustjax import detection, training

FOLDER = pathlib.Path(__file__).parents[1] / "experiments"
RESULTS = FOLDER / "results"
sys.path.insert(0, str(FOLDER))

import rce_detection
import rce_features
from rce import feature_geometry, nets, study, tables


def test_a_coloured_set_takes_the_schedule_of_the_card():
    words = study.CARDS[False].split()
    assert words[words.index("--schedule") + 1] == "piecewise:boundaries=4/9,6/9,8/9"
    np.testing.assert_allclose(
        (4 / 9, 6 / 9, 8 / 9), training.card("rce").recipe.schedule.boundaries
    )


def test_the_detectors_are_those_that_are_named_and_fit_nets_with_nothing_beside_their_layers():
    def net(images):
        return {kind: MODEL(images)[kind] for kind in ("logits", "features")}

    images, labels = np.concatenate([IMAGES, 1 - IMAGES]), np.tile(LABELS, 2)  # LID needs 100
    made = nets.detectors(np.uint8(255 * images), 1.0)
    assert list(made) == list(nets.NAMES) and len(made) == 12
    for detector in made.values():
        fitted = detector.fit(net, images, labels)
        assert jax.eval_shape(fitted, IMAGES[0]).shape == ()


@pytest.mark.parametrize("scale", rce_detection.SCALES.values(), ids=rce_detection.SCALES)
def test_the_attacks_of_a_scale(scale):
    assert set(scale.joint) <= set(nets.NAMES) and set(scale.joint_radii) <= set(scale.radii)
    assert {"gradient", "jsma", "cw", "wb", "joint", "geometry"} == set(scale.n)
    names = [name for phase in study.OBLIVIOUS for name in study.oblivious(phase, scale, (8, 8, 1))]
    assert len(names) == len(set(names)) == 4 * len(scale.radii) + 3
    jsma = study.oblivious("jsma", scale, (32, 32, 3))["JSMA"]
    assert round(jsma.gamma * 3072) == 100 and jsma.theta == 0.16


def simplex_head():
    """Three classes in the plane, their weights 120 degrees apart."""
    angles = 2 * np.pi * np.arange(3) / 3
    return feature_geometry.Head(np.stack([np.cos(angles), np.sin(angles)]), np.zeros(3))


def test_z1_is_the_foot_on_the_nearest_boundary():
    head, z0 = simplex_head(), np.array([1.0, 0.2])
    z1 = feature_geometry.nearest_wrong(head, z0)
    logits = np.sort(head.logits(z1))
    assert logits[-1] == pytest.approx(logits[-2])
    angle = np.pi / 3 - np.arctan2(0.2, 1)  # to the boundary, which is a ray at 60 degrees
    assert np.linalg.norm(z1 - z0) == pytest.approx(np.linalg.norm(z0) * np.sin(angle))


def test_z2_is_z1_without_a_bound_and_on_the_ray_of_equal_logits_at_the_largest():
    head, z0 = simplex_head(), np.array([1.0, 0.2])
    z1 = feature_geometry.nearest_wrong(head, z0)
    np.testing.assert_allclose(feature_geometry.nearest_unnoticed(head, z0, 0.0), z1, atol=1e-3)
    # Wrong logits of class 1 are equal along its own ray, of which the origin is nearest to z0.
    z2 = feature_geometry.nearest_unnoticed(head, z0, np.log(2))
    np.testing.assert_allclose(z2, 0, atol=2e-3)
    found = feature_geometry.measure(head, z0[None], 0.0)
    assert found["images"] == 1 and found["none found"] == 0
    assert found["z2 over z1, quartiles"] == pytest.approx([1, 1, 1], abs=1e-2)


def test_z2_among_many_points_that_are_unnoticed_is_the_nearest():
    rng = np.random.default_rng(0)
    head = feature_geometry.Head(rng.normal(size=(3, 4)), rng.normal(size=4))
    z0, least = rng.normal(size=3), 0.9
    points = z0 + rng.normal(size=(200_000, 3)) * rng.uniform(0, 4, (200_000, 1))
    logits = head.logits(points)
    y = head.logits(z0).argmax()
    fit = points[(logits.argmax(-1) != y) & (feature_geometry.non_me(logits) >= least)]
    distance = np.linalg.norm(feature_geometry.nearest_unnoticed(head, z0, least) - z0)
    best = np.linalg.norm(fit - z0, axis=1).min()
    assert 0.9 * best < distance < best + 1e-3


def test_non_me_is_the_detector_s():
    logits = np.random.default_rng(1).normal(size=(5, 10)).astype(np.float32)
    mine = [detection.NonME().statistics((), lambda x: x, row) for row in logits]
    np.testing.assert_allclose(feature_geometry.non_me(logits.astype(float)), mine, rtol=1e-5)


def test_the_linear_autoencoder_reconstructs_its_own_subspace():
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (50, 8, 8, 1)).astype(np.uint8)
    autoencoder = nets.principal_components(images)
    once = autoencoder(images / np.float32(255))
    np.testing.assert_allclose(autoencoder(once), once, atol=1e-4)
    assert pdist(np.asarray(once).reshape(50, -1)).min() > 0.1


def test_the_detection_tables_say_what_their_rows_hold():
    def row(auc, accuracy=0.25):
        numbers = dict.fromkeys(nets.KEPT, auc)
        watched = {"accuracy": accuracy, "pairs": 7} | dict.fromkeys(nets.NAMES, numbers)
        return {"on": {"CE": watched, "RCE": watched}}

    found = {"CE": {"BIM@.1": row(0.5)}, "RCE": {"BIM@.1": row(None), "C&W": row(1.0)}}
    lines = tables.aucs(found, {"CE": "CE", "RCE": "RCE"}).splitlines()
    assert lines[2] == "| BIM@.1 |" + " 25.0 | 7 | 50.0 | 50.0 | 50.0 |" + " 25.0 | 7 | - | - | - |"
    assert lines[3] == "| C&W |" + " - |" * 5 + " 25.0 | 7 | 100.0 | 100.0 | 100.0 |"
    joint = {"CE": {"lid@.1": row(0.125)}, "RCE": {"lid@.1": row(0.75)}}
    line = tables.beside(found, joint, [".1"]).splitlines()[-1]
    assert line == "| lid | 50.0 | 50.0 | 12.5 | 12.5 | - | - | 75.0 | 75.0 |"


def test_the_share_along_one_direction_is_that_of_the_widest_class_in_the_middle():
    rng = np.random.default_rng(4)
    labels = np.repeat(np.arange(3), 2000)
    wide = rng.normal(size=(6000, 2)) * np.array([3, 1])
    share = rce_features.first_direction(wide + 100 * labels[:, None], labels)
    assert share == pytest.approx(0.9, abs=0.02)


def numbers(name):
    return json.loads((RESULTS / f"{name}.json").read_text())["nets"]


def test_the_claims_on_features_hold_in_the_results():
    """And the page says the ratio of both nets."""
    domain = numbers("rce_domain_mnist_cpu")
    far = {name: row["z2 over z1, quartiles"][1] for name, row in domain.items()}
    assert far["RCE"] > 1.5 and far["CE"] == pytest.approx(1, abs=1e-3)
    page = (FOLDER.parent / "docs" / "reproduce" / "reverse_cross_entropy.md").read_text()
    assert f"{far['RCE']:.1f} and {far['CE']:.1f} times" in page
    for row in domain.values():
        head = feature_geometry.Head(np.array(row["weights"]), np.array(row["bias"]))
        z0, z1, z2 = np.array(row["z"])
        classes = [head.logits(z0 + 1.01 * (z - z0)).argmax() for z in (z0, z1, z2)]
        assert classes[0] not in classes[1:]
        assert feature_geometry.non_me(head.logits(z2)) >= row["threshold"] - 1e-3
    for name in ("mnist", "cifar10"):
        rows = numbers(f"rce_features_{name}_cpu").items()
        share = {net: f"{100 * row['first direction']:.0f} %" for net, row in rows}
        assert share["RCE"] in page and share["CE"] in page
    found = numbers("rce_features_mnist_cpu")
    assert found["RCE"]["first direction"] > 0.8 > 2 * found["CE"]["first direction"]
    assert min(row["accuracy"] for row in (*domain.values(), *found.values())) > 0.98
