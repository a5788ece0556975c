"""The experiments' commands are understood, and their tables say what their rows hold."""

import argparse
import csv
import itertools
import json
import pathlib
import sys

import jax
import numpy as np
import pytest
from scipy.spatial.distance import pdist
from watched import IMAGES, LABELS, MODEL

from robustjax import config, detection, models, training

FOLDER = pathlib.Path(__file__).parents[1] / "experiments"
sys.path.insert(0, str(FOLDER))

import at_methods
import bag_of_tricks
import convergence
import detecting
import detection_study
import detection_tables
import mmc_cifar10
import rce_detection
import record
import separation
import table16
import tables

KINDS = {
    "SCE": training.SCE,
    "Center": training.Center,
    "MMLDA": training.MMLDA,
    "L-GM": training.LGM,
    "MMC-10": training.MMC,
    "(rand)": training.MMC,
}
RADII = (8, 16)
COLUMNS = [f"{column}@{k}" for k in RADII for column in tables.WEAK + tables.STRONG]


@pytest.fixture
def asked(monkeypatch):
    """What `robustjax train` was last asked for; nothing is trained."""
    found = {}

    def train(method, recipe, options):
        found.update(method=method, recipe=recipe, options=options)

    monkeypatch.setattr(sys.modules["robustjax.cli.train"], "train", train)
    return found


@pytest.mark.parametrize(
    ("name", "scale"),
    [(n, s) for s, scale in mmc_cifar10.SCALES.items() for n in mmc_cifar10.rows_of(scale)],
)
def test_every_row_of_the_mmc_table_trains_what_it_is_called(name, scale, tmp_path, asked):
    options = argparse.Namespace(data="digits", data_dir=None, scale=scale, runs=tmp_path)
    run = mmc_cifar10.train(name, 1, mmc_cifar10.SCALES[scale], options)
    method = asked["method"]
    assert type(method) is KINDS[name.split()[-1]]
    assert method.adversarial == {"AT-tar": "targeted", "AT-un": "untargeted"}.get(
        name.split()[0], "none"
    )
    assert (getattr(method, "centers", None) == "random") == ("rand" in name)
    assert asked["options"].out == run and asked["options"].seed == 1
    assert asked["recipe"].epochs == mmc_cifar10.SCALES[scale].epochs["AT" in name]
    assert asked["options"].model == "cnn" or asked["options"].model.startswith("resnet-")
    models.create(asked["options"].model, num_classes=10, **method.model)


def test_the_published_table_has_the_same_rows_and_columns():
    assert mmc_cifar10.PUBLISHED.keys() == mmc_cifar10.ROWS.keys()
    assert {len(row) for row in mmc_cifar10.PUBLISHED.values()} == {1 + len(RADII) * 4}
    assert set(convergence.LOSSES) < set(mmc_cifar10.ROWS)


def shown(header):
    """The README's table whose columns begin like this: name -> cells."""
    lines = (FOLDER.parent / "README.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| | {header}"))
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return {
        name.strip(): [c.strip() for c in cells]
        for _, name, *cells, _ in csv.reader(rows, delimiter="|")
    }


NATURAL = ["clean", *COLUMNS[:4], "worst@8", "zero gradient of CE"]
BOTH = ["clean", "pgd-50-tar@8", "pgd-50-un@8", "worst@2", "worst@8", "worst@16"]


@pytest.mark.parametrize(
    ("scale", "header", "columns"),
    [("gpu", "clean | PGD-10", NATURAL), ("cpu", "clean | PGD-50", BOTH)],
)
def test_the_readme_shows_what_was_measured(scale, header, columns):
    found = json.loads((FOLDER / "results" / f"mmc_cifar10_{scale}.json").read_text())
    for name, cells in shown(header).items():
        row = name.replace("MMC", "MMC-10")
        beside = found["published"][row][:5] if scale == "gpu" else ()
        pairs = itertools.zip_longest(columns, beside)
        want = [tables.cell(found["rows"][row], column, known) for column, known in pairs]
        if scale == "gpu":
            want[-1] = f"{float(want[-1]):.0f}"
        assert cells == want


def test_a_table_and_its_figure(tmp_path):
    seed = {"clean": 0.9, "clean (strong)": 0.8} | dict.fromkeys(COLUMNS, 0.25)
    weak_only = {k: v + 0.05 for k, v in seed.items() if "strong" not in k and "worst" not in k}
    rows = {"SCE": [seed, weak_only], "AT-un SCE": [seed]}
    text = tables.markdown(rows, {"SCE": range(9)}, RADII).splitlines()
    sce = next(line for line in text if line.startswith("| SCE"))
    assert [cell.strip() for cell in sce.split("|")[2:4]] == ["92.5 ± 3.5 (0)", "27.5 ± 3.5 (1)"]
    assert text[-1].split("|")[2:4] == [" 80.0 ", " 25.0 "]
    tables.draw(rows, RADII, tmp_path / "table.png")
    assert (tmp_path / "table.png").stat().st_size > 5000


@pytest.mark.parametrize("scale", rce_detection.SCALES)
@pytest.mark.parametrize("name", detection_study.NETS)
def test_both_nets_train_alike_but_for_the_loss_and_its_rate(name, scale, tmp_path, asked):
    options = argparse.Namespace(data="digits", data_dir=None, scale=scale, runs=tmp_path)
    sizes = rce_detection.SCALES[scale]
    run = detection_study.Study(options, sizes).train(name)
    recipe = asked["recipe"]
    assert type(asked["method"]) is {"CE": training.Natural, "RCE": training.RCE}[name]
    assert recipe.optimizer == training.RECIPES["rce"].optimizer and recipe.batch_size == 128
    assert (recipe.epochs, recipe.lr) == (sizes.epochs[0], sizes.lr[name == "RCE"])
    assert asked["options"].out == run and asked["options"].augment == "none"
    assert recipe.schedule.boundaries == (1 / 2, 3 / 4)


@pytest.mark.parametrize("name", at_methods.ROWS)
def test_every_method_is_a_row_on_one_card(name, tmp_path, asked, monkeypatch):
    class Trained(Exception):
        pass

    def evaluated(run, words, options):
        raise Trained

    monkeypatch.setattr(at_methods, "evaluated", evaluated)
    options = argparse.Namespace(data="digits", data_dir=None, scale="full", runs=tmp_path)
    with pytest.raises(Trained):
        at_methods.row(name, options)
    assert asked["method"] == training.METHODS[at_methods.ROWS[name]]
    assert asked["recipe"].lr == 0.1 and asked["recipe"].epochs == 110


def test_a_setting_changes_what_its_takeaway_is_about(tmp_path, asked, monkeypatch):
    report = {"clean": 1.0, "robust": {}}
    monkeypatch.setattr(bag_of_tricks, "evaluated", lambda run, words, options: report)
    monkeypatch.setattr(bag_of_tricks.files, "read_json", lambda path: {})
    options = argparse.Namespace(data="digits", data_dir=None, scale="full", runs=tmp_path)
    scale, seen = bag_of_tricks.SCALES["full"], {}
    for takeaway, choices in bag_of_tricks.settings(scale).items():
        for name, flags in choices.items():
            bag_of_tricks.measure(flags, 3, scale, options)
            seen[takeaway, name] = dict(asked)
            assert asked["options"].seed == 3
    card = {k: v["recipe"] for k, v in seen.items()}
    assert card["weight decay", "1e-3"].optimizer.weight_decay == 1e-3
    assert card["weight decay", "5e-4"] == card["batch size", "128, lr .1"] == training.Recipe()
    assert card["label smoothing", "0.2"].label_smoothing == 0.2
    assert (card["batch size", "256, lr .2"].batch_size, card["batch size", "256, lr .2"].lr) == (
        256,
        0.2,
    )
    assert seen["BatchNorm while crafting", "train"]["method"].bn == "commit"
    stop = seen["early-stopped attack", "0, 1, 2 steps later"]["method"].attack.stop
    assert (stop.tau, stop.later) == (0, (60 / 110, 100 / 110))
    wide = seen["activation", "silu, width x 128"]["options"]
    assert (wide.activation, wide.width) == ("silu", 128)


# Table 16 of Pang et al. 2021: net, eps, clean, AutoAttack.
LEADERBOARD = {
    "Ours, WRN-34-20": ("wrn-34-20", 8 / 255, 86.43, 54.39),
    "Ours": ("wrn-34-10", 8 / 255, 85.49, 53.94),
    "Pang et al. 2020c": ("wrn-34-20", 8 / 255, 85.14, 53.74),
    "Zhang et al. 2020": ("wrn-34-10", 8 / 255, 84.52, 53.51),
    "Rice et al. 2020": ("wrn-34-20", 8 / 255, 85.34, 53.42),
    "Qin et al. 2019": ("wrn-40-8", 8 / 255, 86.28, 52.84),
    "Ours, 0.031": ("wrn-34-10", 0.031, 85.45, 54.28),
    "Huang et al. 2020": ("wrn-34-10", 0.031, 83.48, 53.34),
    "Zhang et al. 2019b": ("wrn-34-10", 0.031, 84.92, 53.08),
}


@pytest.mark.parametrize("name", LEADERBOARD)
def test_every_row_of_the_leaderboard_is_its_card(name, tmp_path, asked, monkeypatch):
    class Evaluated(Exception):
        pass

    def evaluated(run, words, options):
        raise Evaluated(dict(itertools.pairwise(words)))

    monkeypatch.setattr(table16, "evaluated", evaluated)
    options = argparse.Namespace(data="digits", data_dir=None, scale="full", runs=tmp_path)
    with pytest.raises(Evaluated) as stopped:
        table16.measure(name, 2, options)
    row, made, (net, eps, clean, robust) = table16.ROWS[name], asked["options"], LEADERBOARD[name]
    card = training.card(row.train.split()[0], made.card)
    assert (made.model, made.seed) == (net, 2) and asked["recipe"] == card.recipe
    assert made.normalize == card.options.get("normalize", True)
    assert config.parse_number(stopped.value.args[0]["--eps"]) == eps
    published = [float(text.partition("±")[0]) for text in (row.clean, row.autoattack)]
    assert published == [clean, robust] and row.seeds == (5 if "±" in row.clean else 1)
    radius = made.eps or training.threat_of(asked["method"]).eps
    assert radius == {"Zhang et al. 2020": 0.062, "Pang et al. 2020c": 0.031}.get(name, eps)


def test_the_leaderboard_has_published_figures_beside_ours():
    assert table16.ROWS.keys() == LEADERBOARD.keys()
    seeds = [
        {"clean": c, "autoattack": a, "config": {"model": {"name": "cnn"}}}
        for c, a in ((0.8, 0.5), (0.9, 0.5))
    ]
    line = table16.markdown({"Ours": seeds}, published=True).splitlines()[-1]
    want = "85.00±7.07 (85.49±0.24) | 50.00±0.00 (53.94±0.10) |"
    assert line == f"| Ours | cnn | 8/255 | {want}"
    line = table16.markdown({"Ours": seeds[:1]}, published=False).splitlines()[-1]
    assert line == "| Ours | cnn | 8/255 | 80.00 | 50.00 |"


@pytest.mark.parametrize("panels", [2, 6])
def test_a_figure_of_the_takeaways(panels, tmp_path):
    row = dict.fromkeys(bag_of_tricks.COLUMNS, 0.5) | {"report": {"n": 100}}
    assert bag_of_tricks.mean_and_spread("clean", [row]) == (50, 5)
    names = list(bag_of_tricks.TAKEAWAYS)[:panels]
    table = {name: {"a": [row, row], "b": [row]} for name in names}
    bag_of_tricks.draw(table, tmp_path / "tricks.png")
    assert (tmp_path / "tricks.png").stat().st_size > 5000


def test_a_coloured_set_takes_the_schedule_of_the_card():
    words = detection_study.CARDS[False].split()
    assert words[words.index("--schedule") + 1] == "piecewise:boundaries=4/9,6/9,8/9"
    np.testing.assert_allclose((4 / 9, 6 / 9, 8 / 9), training.RECIPES["rce"].schedule.boundaries)


def test_the_detectors_are_those_that_are_named_and_fit_nets_with_nothing_beside_their_layers():
    def net(images):
        return {kind: MODEL(images)[kind] for kind in ("logits", "features")}

    images, labels = np.concatenate([IMAGES, 1 - IMAGES]), np.tile(LABELS, 2)  # LID needs 100
    made = detecting.detectors(np.uint8(255 * images), 1.0)
    assert list(made) == list(detecting.NAMES) and len(made) == 12
    for detector in made.values():
        fitted = detector.fit(net, images, labels)
        assert jax.eval_shape(fitted, IMAGES[0]).shape == ()


@pytest.mark.parametrize("scale", rce_detection.SCALES.values(), ids=rce_detection.SCALES)
def test_the_attacks_of_a_scale(scale):
    assert set(scale.joint) <= set(detecting.NAMES) and set(scale.joint_radii) <= set(scale.radii)
    assert {"gradient", "jsma", "cw", "wb", "joint", "geometry"} == set(scale.n)
    names = [
        name
        for phase in detection_study.OBLIVIOUS
        for name in detection_study.oblivious(phase, scale, (8, 8, 1))
    ]
    assert len(names) == len(set(names)) == 4 * len(scale.radii) + 3
    jsma = detection_study.oblivious("jsma", scale, (32, 32, 3))["JSMA"]
    assert round(jsma.gamma * 3072) == 100 and jsma.theta == 0.16


def test_an_array_folder_and_a_set_by_name_make_file_names():
    assert record.slug("arrays:/some/where/mnist/") == record.slug("mnist") == "mnist"


@pytest.mark.parametrize(
    ("experiment", "known"),
    [
        (at_methods, "PGD-AT"),
        (bag_of_tricks, "weight decay"),
        (convergence, "MMC-10"),
        (mmc_cifar10, "MMC-10"),
        (rce_detection, "RCE"),
        (table16, "Ours"),
    ],
)
def test_a_row_that_does_not_exist_is_answered_with_those_that_do(experiment, known, tmp_path):
    flags = {"data": "digits", "data_dir": None, "scale": "smoke", "runs": tmp_path, "phase": None}
    with pytest.raises(SystemExit, match=f"no row 'PGT'; choose one of .*{known}"):
        experiment.main(argparse.Namespace(**flags, only="PGT", without=()))


def test_courses_are_added_to_those_that_are_there(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(convergence, "train", lambda name, *rest: trained.append(name))
    course = {"epoch": [1.0, 2.0], "seconds": [3.0, 6.0], "error": [0.5, 0.25]}
    monkeypatch.setattr(convergence, "course", lambda run: course)
    flags = {"data": "digits", "scale": "smoke", "runs": tmp_path}
    for name in ("SCE", "MMC-10"):
        convergence.main(argparse.Namespace(**flags, only=name))
    assert set(trained) == {"SCE", "MMC-10"}
    kept = record.files.read_json(tmp_path / "convergence_digits_smoke.json")["courses"]
    assert kept == {name: [course] * trained.count(name) for name in ("SCE", "MMC-10")}


def test_rows_by_name_are_reproduced_and_kept(tmp_path, monkeypatch):
    lines, kept = [], []
    monkeypatch.setattr(record.cli, "main", lines.append)
    monkeypatch.setattr(record, "keep", kept.append)
    rows = {"a": ("natural", "--n 1"), "b": ("mmc --weight 2", "--n 2")}
    options = argparse.Namespace(runs=tmp_path, data_dir="sets", only="b")
    record.reproduce(rows, options)
    out, where = str(tmp_path / "b"), ["--data-dir", "sets"]
    assert lines == [
        ["train", "mmc", "--weight", "2", "--out", out, "--resume", *where],
        ["evaluate", out, "--n", "2", *where],
    ]
    assert kept == [tmp_path / "b"]


def test_something_measured_is_measured_once(tmp_path):
    calls = []

    def measure():
        calls.append(1)
        return {"a": np.float32(0.5)}

    found = [record.once(tmp_path / "new" / "a.json", measure) for _ in range(2)]
    assert found == [{"a": 0.5}] * 2 and len(calls) == 1


def simplex_head():
    """Three classes in the plane, their weights 120 degrees apart."""
    angles = 2 * np.pi * np.arange(3) / 3
    return separation.Head(np.stack([np.cos(angles), np.sin(angles)]), np.zeros(3))


def test_z1_is_the_foot_on_the_nearest_boundary():
    head, z0 = simplex_head(), np.array([1.0, 0.2])
    z1 = separation.nearest_wrong(head, z0)
    logits = np.sort(head.logits(z1))
    assert logits[-1] == pytest.approx(logits[-2])
    angle = np.pi / 3 - np.arctan2(0.2, 1)  # to the boundary, which is a ray at 60 degrees
    assert np.linalg.norm(z1 - z0) == pytest.approx(np.linalg.norm(z0) * np.sin(angle))


def test_z2_is_z1_without_a_bound_and_on_the_ray_of_equal_logits_at_the_largest():
    head, z0 = simplex_head(), np.array([1.0, 0.2])
    z1 = separation.nearest_wrong(head, z0)
    np.testing.assert_allclose(separation.nearest_unnoticed(head, z0, 0.0), z1, atol=1e-3)
    # Wrong logits of class 1 are equal along its own ray, of which the origin is nearest to z0.
    z2 = separation.nearest_unnoticed(head, z0, np.log(2))
    np.testing.assert_allclose(z2, 0, atol=2e-3)
    found = separation.measure(head, z0[None], 0.0)
    assert found["images"] == 1 and found["none found"] == 0
    assert found["z2 over z1, quartiles"] == pytest.approx([1, 1, 1], abs=1e-2)


def test_z2_among_many_points_that_are_unnoticed_is_the_nearest():
    rng = np.random.default_rng(0)
    head = separation.Head(rng.normal(size=(3, 4)), rng.normal(size=4))
    z0, least = rng.normal(size=3), 0.9
    points = z0 + rng.normal(size=(200_000, 3)) * rng.uniform(0, 4, (200_000, 1))
    logits = head.logits(points)
    y = head.logits(z0).argmax()
    fit = points[(logits.argmax(-1) != y) & (separation.non_me(logits) >= least)]
    distance = np.linalg.norm(separation.nearest_unnoticed(head, z0, least) - z0)
    best = np.linalg.norm(fit - z0, axis=1).min()
    assert 0.9 * best < distance < best + 1e-3


def test_non_me_is_the_detector_s():
    logits = np.random.default_rng(1).normal(size=(5, 10)).astype(np.float32)
    mine = [detection.NonME().statistics((), lambda x: x, row) for row in logits]
    np.testing.assert_allclose(separation.non_me(logits.astype(float)), mine, rtol=1e-5)


def test_a_plane_is_orthonormal_even_of_parallel_vectors():
    u, v = np.array([3.0, 4.0, 0.0]), np.array([1.0, 1.0, 1.0])
    for second in (v, 2 * u):
        basis = np.stack(separation.plane(u, second))
        np.testing.assert_allclose(basis @ basis.T, np.eye(2), atol=1e-12)


def test_the_linear_autoencoder_reconstructs_its_own_subspace():
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (50, 8, 8, 1)).astype(np.uint8)
    autoencoder = detecting.principal_components(images)
    once = autoencoder(images / np.float32(255))
    np.testing.assert_allclose(autoencoder(once), once, atol=1e-4)
    assert pdist(np.asarray(once).reshape(50, -1)).min() > 0.1


def test_the_detection_tables_say_what_their_rows_hold():
    def row(auc, accuracy=0.25):
        numbers = dict.fromkeys(detecting.KEPT, auc)
        watched = {"accuracy": accuracy, "pairs": 7} | dict.fromkeys(detecting.NAMES, numbers)
        return {"on": {"CE": watched, "RCE": watched}}

    found = {"CE": {"BIM@.1": row(0.5)}, "RCE": {"BIM@.1": row(None), "C&W": row(1.0)}}
    lines = detection_tables.aucs(found, {"CE": "CE", "RCE": "RCE"}).splitlines()
    assert lines[2] == "| BIM@.1 |" + " 25.0 | 7 | 50.0 | 50.0 | 50.0 |" + " 25.0 | 7 | - | - | - |"
    assert lines[3] == "| C&W |" + " - |" * 5 + " 25.0 | 7 | 100.0 | 100.0 | 100.0 |"
    joint = {"CE": {"lid@.1": row(0.125)}, "RCE": {"lid@.1": row(0.75)}}
    line = detection_tables.beside(found, joint, [".1"]).splitlines()[-1]
    assert line == "| lid | 50.0 | 50.0 | 12.5 | 12.5 | - | - | 75.0 | 75.0 |"


def test_the_figures_of_features_and_domains(tmp_path):
    head, rng = simplex_head(), np.random.default_rng(3)
    png = tmp_path / "domain.png"
    separation.draw_domains({"CE": (head, np.array([1.0, 0.2]), 0.1)}, png)
    features = rng.normal(size=(20, 4))
    separation.draw_features(
        {"CE": (features, np.arange(20) % 3, features[:4])}, tmp_path / "t.png"
    )
    assert min(png.stat().st_size, (tmp_path / "t.png").stat().st_size) > 5000
