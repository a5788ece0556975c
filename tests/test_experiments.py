"""The experiments' commands are understood, and their tables say what their rows hold."""

import argparse
import ast
import csv
import dataclasses
import importlib
import itertools
import json
import pathlib
import runpy
import sys

import numpy as np
import pytest

from robustjax import config, models, training

FOLDER = pathlib.Path(__file__).parents[1] / "experiments"
sys.path.insert(0, str(FOLDER))

import at_methods
import at_seeds
import bag_of_tricks
import claims
import class_priors
import contents
import convergence
import densities
import detection_benchmark
import effects
import feature_density
import gsce_family
import hard_images
import mmc_at
import mmc_attacks
import mmc_cifar10
import origins
import rce_detection
import runner
import table16
import tables
from rce import study

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

    monkeypatch.setattr(importlib.import_module("robustjax.cli.train"), "train", train)
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


def test_the_family_trains_what_its_rows_say(tmp_path, asked, monkeypatch):
    """And its matrices are as long in one direction as the parameters of the head say."""
    options = argparse.Namespace(data="digits", data_dir=None, scale="cpu", runs=tmp_path)
    for name in gsce_family.ROWS:
        with pytest.raises(SystemExit):  # the evaluation: there is no run
            gsce_family.measure(name, 2, gsce_family.SCALES["cpu"], options)
        own, method = name.partition(", ")[2], asked["method"]
        kind = {"SCE": training.SCE, "L-GM": training.LGM, "g-SCE": training.GSCE}
        assert type(method) is kind[name.partition(",")[0]] and method.on_clean
        assert method.model.get("precisions", "") == own and asked["options"].seed == 2
    assert gsce_family.anisotropy({}) == 1
    assert gsce_family.anisotropy({"log_precisions": np.log([[1, 4], [1, 8]])}) == pytest.approx(6)
    assert gsce_family.anisotropy({"factors": [np.diag([1, 3]), -np.eye(2)]}) == pytest.approx(5)


def test_adversarial_networks_are_those_of_the_other_script(tmp_path, asked, monkeypatch):
    options = argparse.Namespace(data="digits", data_dir=None, scale="cpu", runs=tmp_path)
    for name in ("SCE", "MMC"):
        folder = mmc_attacks.network(f"AT {name}", 1, mmc_attacks.SCALES["cpu"], options)
        ours = asked.copy()
        with pytest.raises(SystemExit):  # the evaluation: there is no run
            rate = float(mmc_attacks.ROWS[f"AT {name}"][1].split()[-1])
            mmc_at.measure(name, rate, 1, mmc_at.SCALES["cpu"], options)
        assert (ours["method"], ours["recipe"]) == (asked["method"], asked["recipe"])
        assert folder == asked["options"].out and ours["options"].seed == 1


def test_natural_rows_and_their_table(tmp_path, asked, monkeypatch):
    options = argparse.Namespace(data="digits", data_dir=None, scale="cpu", runs=tmp_path)
    for name, kind in {"SCE": training.SCE, "MMC": training.MMC, "RCE": training.RCE}.items():
        mmc_attacks.network(name, 0, mmc_attacks.SCALES["cpu"], options)
        assert type(asked["method"]) is kind and asked["method"].on_clean
    seeds = [dict.fromkeys(mmc_attacks.COLUMNS, value) for value in (0.25, 0.75)]
    row = "| SCE |" + " 50.0 ± 35.4 |" * 4 + " 0.50 ± 0.35 |"
    assert mmc_attacks.lines({"SCE": seeds})[-1] == row


def test_density_is_per_distance_between_classes(tmp_path, asked, monkeypatch):
    """So the unit of the features says nothing, and a class in a smaller ball lies denser."""
    rng, labels = np.random.default_rng(0), np.arange(200) % 2
    z = rng.normal(size=(200, 3)) + 50 * labels[:, None]
    found = [densities.log_densities(s * z, labels, s * z[:50], 5)["test"] for s in (1, 7)]
    np.testing.assert_allclose(*found, rtol=1e-9)
    closer = z - 0.9 * (z - 50 * labels[:, None])
    assert (densities.log_densities(closer, labels, closer[:50], 5)["test"] > found[0] + 6).all()
    options = argparse.Namespace(data="digits", data_dir=None, scale="cpu", runs=tmp_path)
    for name, method in feature_density.ROWS.items():
        with pytest.raises(FileNotFoundError):  # nothing was trained
            feature_density.measure(name, 1, feature_density.SCALES["cpu"], options)
        assert type(asked["method"]) is getattr(training, method.upper())
        assert asked["method"].model["feature_dim"] == 10 and asked["options"].seed == 1
    seeds = [{"clean": c, "train": c, "test": 2 * c} for c in (0.25, 0.75)]
    made = feature_density.lines({"MMC": seeds})[-1]
    assert made == "| MMC | 50.0 ± 35.4 | 0.5 ± 0.4 | 1.0 ± 0.7 |"


def test_a_long_tail_and_its_priors(tmp_path, asked, monkeypatch):
    """The priors of training are the counts; with equal ones a net of mere priors knows nothing."""
    options = argparse.Namespace(data="digits", data_dir=None, scale="smoke", runs=tmp_path)
    scale = class_priors.SCALES["smoke"]
    name, counts = class_priors.long_tail(0, scale, options)
    train = class_priors.data.load(name, "train")
    assert sorted(counts) == [10, 13, 17, 22, 28, 36, 46, 60, 77, 100]
    assert (np.bincount(train.labels) <= counts).all() and len(train) > 0.7 * counts.sum()

    def logits_fn(images):
        return np.tile(np.log(counts), (len(images), 1))

    monkeypatch.setattr(class_priors.models, "load", lambda *_, **__: (logits_fn, None, None))
    monkeypatch.setattr(class_priors.files, "read_json", lambda path: {"provenance": path.parent})
    for row, (method, weighed) in class_priors.ROWS.items():
        found = class_priors.measure(row, 0, scale, options)
        assert found["images"] == sorted(counts, reverse=True)
        assert found["as trained"] == [1] + [0] * 9 and sum(found["equal priors"]) == 1
        assert type(asked["method"]) is getattr(training, method.upper())
        assert getattr(asked["method"], "priors", None) == (tuple(counts) if weighed else None)
    assert class_priors.summary(found)["all, as trained"] == 0.1
    class_priors.draw({"rows": {"SCE": [found]}}, tmp_path / "tail.png")
    assert (tmp_path / "tail.png").stat().st_size > 5000


def page(name):
    return (FOLDER.parent / "docs" / f"{name}.md").read_text()


def shown(where, header, first=""):
    """A page's table whose columns after `first` begin like this: name -> cells."""
    lines = page(where).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first}| {header}"))
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
def test_the_page_shows_what_was_measured(scale, header, columns):
    found = json.loads((FOLDER / "results" / f"mmc_cifar10_{scale}.json").read_text())
    for name, cells in shown("reproduce/mmc", header).items():
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
    tables.draw({"rows": rows, "scale": {"radii": RADII}}, tmp_path / "table.png")
    assert (tmp_path / "table.png").stat().st_size > 5000


def test_the_page_shows_the_attack_on_the_density_as_measured():
    """And what it says of RCE holds: no image of its network hides from the paper's threshold."""
    found = json.loads((FOLDER / "results" / "rce_cifar10_cpu.json").read_text())["wb"]
    table = shown("reproduce/reverse_cross_entropy", "reached | f2")
    assert list(table) == list(found)
    for name, cells in table.items():
        row, reached = found[name], found[name]["reached"]
        accepted = row["attacks"]["C&W-wb"]["on"][name]["k-density"]["accepted_wrong"]
        noticed, size = round(row["f2 > 0"] * reached), row["rms with those of f2 > 0"][1]
        assert cells == [str(reached), str(noticed), f"{100 * accepted:.0f} %", f"{size:.3f}"]
    assert found["RCE"]["f2 > 0"] == 1 and found["CE"]["f2 > 0"] == 0


@pytest.mark.parametrize("scale", detection_benchmark.SCALES)
def test_the_networks_of_the_detection_benchmark_have_dropout_and_seeds(
    scale, tmp_path, asked, monkeypatch
):
    monkeypatch.setattr(detection_benchmark.models, "load", lambda run, weights: (run,))
    sizes = detection_benchmark.SCALES[scale]
    options = argparse.Namespace(data="digits", data_dir=None, scale=scale, runs=tmp_path)
    benchmark = detection_benchmark.Benchmark(options, sizes)
    assert len(set(benchmark.networks)) == sizes.seeds
    assert type(asked["method"]) is training.Natural
    assert (asked["options"].seed, asked["options"].dropout) == (sizes.seeds - 1, 0.5)
    benchmark.network("auxiliary", sizes.auxiliary)
    assert type(asked["method"]) is training.PGDAT and asked["method"].attack.steps == 1


@pytest.mark.parametrize("scale", rce_detection.SCALES)
@pytest.mark.parametrize("name", study.NETS)
def test_both_nets_train_alike_but_for_the_loss_and_its_rate(name, scale, tmp_path, asked):
    options = argparse.Namespace(data="digits", data_dir=None, scale=scale, runs=tmp_path)
    sizes = rce_detection.SCALES[scale]
    run = study.Study(options, sizes).train(name)
    recipe = asked["recipe"]
    assert type(asked["method"]) is {"CE": training.Natural, "RCE": training.RCE}[name]
    assert recipe.optimizer == training.card("rce").recipe.optimizer and recipe.batch_size == 128
    assert (recipe.epochs, recipe.lr) == (sizes.epochs[0], sizes.lr[name == "RCE"])
    assert asked["options"].out == run and asked["options"].augment == "none"
    assert recipe.schedule.boundaries == (1 / 2, 3 / 4)


def test_the_page_ranks_the_methods_by_their_validation_images():
    """1,000 of them, where 200 test images were attacked; its numbers are those of the file."""
    path = FOLDER / "results" / "at_methods_cifar10_cpu.json"
    rows = at_methods.ranked(json.loads(path.read_text())["rows"])
    table = shown("results", "cost a step | validation", "method ")
    assert [name.removesuffix(" (our reading)") for name in table] == [n.lower() for n in rows]
    assert all(("our reading" in name) == ("adanet" in name) for name in table)
    for cells, row in zip(table.values(), rows.values(), strict=True):
        found = (row["training"]["best"], row["clean"], row["pgd-50"], row["autoattack"])
        assert cells[-4:] == [f"{100 * share:.1f}" for share in found]
    best = [row["training"]["best"] for row in rows.values()]
    assert best == sorted(best, reverse=True)
    assert {row["config"]["data"]["validation"] for row in rows.values()} == {1000}


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


class Evaluated(Exception):
    """Instead of an evaluation."""


@pytest.mark.parametrize("name", at_seeds.ROWS)
def test_every_method_has_one_recipe_and_what_it_needs(name, tmp_path, asked, monkeypatch):
    def evaluated(run, words, options):
        raise Evaluated

    monkeypatch.setattr(at_seeds, "evaluated", evaluated)
    monkeypatch.setattr(at_seeds, "pool", lambda *_: tmp_path / "pool")
    monkeypatch.setattr(at_seeds, "natural", lambda *_: tmp_path)
    runner.files.write_json(tmp_path / "training.json", {"best": 0.5})
    options = argparse.Namespace(data="digits", data_dir=None, scale="cpu", runs=tmp_path)
    with pytest.raises(Evaluated):
        at_seeds.measure(name, 2, at_seeds.SCALES["cpu"], options)
    kind, recipe, flags = (asked[part] for part in ("method", "recipe", "options"))
    known = training.METHODS[at_seeds.ROWS[name].split()[0]]
    assert type(kind) is type(known) and (flags.seed, flags.examples) == (2, 10_000)
    assert (flags.extra is not None) == (name in at_seeds.EXTRA)
    assert getattr(kind, "helper", None) == (str(tmp_path) if name == "HAT" else None)
    if name not in ("Free", "Fast AT", "N-FGSM"):
        assert kind.attack.steps == 5
    own = training.Recipe(epochs=4, batch_size=100, lr=0.05, lr_warmup=0.05)
    if name != "level sets":
        got = dataclasses.replace(recipe, augment=own.augment)
        assert got == own


def test_the_pool_has_other_images_than_the_labelled_ones(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(at_seeds, "natural", lambda *_: tmp_path / "net")
    monkeypatch.setattr(at_seeds.cli, "main", asked.append)
    options = argparse.Namespace(data="digits", data_dir=None, scale="smoke", runs=tmp_path)
    made = at_seeds.pool(1, at_seeds.SCALES["smoke"], options)
    ((command, net, _, where, _, out),) = asked
    assert (command, net, out) == ("pseudo-label", str(tmp_path / "net"), str(made))
    images = np.load(pathlib.Path(where.removeprefix("arrays:")) / "train_images.npy")
    train = at_seeds.data.load("digits", "train").images
    np.testing.assert_array_equal(images, train[500:1000])


def test_a_difference_from_pgd_at_is_bold_where_it_is_clear():
    def seeds(*values):
        return [dict.fromkeys(at_seeds.COLUMNS, value) for value in values]

    table = {"PGD-AT": seeds(0.2, 0.3), "AWP": seeds(0.3, 0.4), "FAT": seeds(0.3, 0.2)}
    lines = at_seeds.lines(table)[2:]
    assert [line.split("|")[-2].strip() for line in lines] == [
        "",
        "**+10.0 (+10.0 to +10.0)**",
        "+0.0 (-127.1 to +127.1)",
    ]
    assert at_seeds.lines({"FAT": seeds(0.3)})[-1] == "| FAT |" + " 30.0 ± 0.0 |" * 3 + "  |"


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
    bag_of_tricks.draw({"takeaways": table}, tmp_path / "tricks.png")
    assert (tmp_path / "tricks.png").stat().st_size > 5000


def test_an_array_folder_and_a_set_by_name_make_file_names():
    assert runner.slug("arrays:/some/where/mnist/") == runner.slug("mnist") == "mnist"


@pytest.mark.parametrize(
    ("experiment", "known"),
    [
        (at_methods, "PGD-AT"),
        (bag_of_tricks, "weight decay"),
        (convergence, "MMC-10"),
        (detection_benchmark, "k-density"),
        (mmc_cifar10, "MMC-10"),
        (rce_detection, "RCE"),
        (table16, "Ours"),
    ],
)
def test_a_row_that_does_not_exist_is_answered_with_those_that_do(experiment, known, tmp_path):
    flags = {"data": "digits", "data_dir": None, "scale": "smoke", "runs": tmp_path, "phase": None}
    with pytest.raises(SystemExit, match=f"no row 'PGT'; .*choose one of .*{known}"):
        experiment.main(argparse.Namespace(**flags, only="PGT", without=()))


def test_a_row_is_found_whatever_its_case():
    options = argparse.Namespace(only="pgd-at")
    assert runner.wanted(options, at_methods.ROWS) == ["PGD-AT"]


def test_a_row_that_is_almost_right_is_suggested():
    options = argparse.Namespace(only="pgdat")
    with pytest.raises(SystemExit, match="no row 'pgdat'; did you mean 'PGD-AT'"):
        runner.wanted(options, at_methods.ROWS)


@pytest.fixture
def changed(monkeypatch):
    """Code that has changed since the last commit."""
    monkeypatch.setattr(origins, "commit", lambda file: "ab12-dirty")


def test_results_of_changed_code_are_kept_only_on_demand(changed, tmp_path, monkeypatch):
    for path in (None, tmp_path / "a.json"):
        origins.check(path, dirty=False)
    origins.check(origins.RESULTS / "a.json", dirty=True)
    refused = pytest.raises(SystemExit, match=r"code has changed since the last commit.*--dirty")
    with refused:
        origins.check(origins.RESULTS / "theory" / "a.json", dirty=False)
    options = argparse.Namespace(runs=tmp_path, data_dir=None, only=None, dirty=False)
    with refused:
        runner.reproduce({"a": ("natural", "--n 1")}, options)
    monkeypatch.setattr(sys, "argv", ["mmc_cifar10.py", "--scale", "cpu"])
    monkeypatch.setattr(runner.parallel, "use_all_cores", lambda batch_size: None)
    with refused:
        runner.launch(mmc_cifar10.main, runner.scaled("about", mmc_cifar10.SCALES), "mmc")


def test_origins_are_counted(tmp_path):
    def block(commit, version):
        return {"commit": commit, "versions": {"robustjax": version}}

    rows = [{"provenance": block("ab-dirty", None)}, {"provenance": block(None, "0.1.0")}]
    runner.files.write_json(tmp_path / "a.json", {"provenance": block("ab", "0.1.0"), "rows": rows})
    assert origins.table(tmp_path).endswith("| a.json | 3 | 1 | 1 |")


def test_data_that_are_missing_are_a_sentence(tmp_path, monkeypatch):
    words = ["mmc_cifar10.py", "--scale", "cpu", "--data-dir", str(tmp_path), "--dirty"]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(runner.parallel, "use_all_cores", lambda batch_size: None)
    with pytest.raises(
        SystemExit, match=r"^mmc_cifar10.py: cifar10 is not prepared in .*--data-dir"
    ):
        runner.launch(mmc_cifar10.main, runner.scaled("about", mmc_cifar10.SCALES), "mmc")


SCRIPTS = sorted(p for p in FOLDER.rglob("*.py") if 'if __name__ == "__main__"' in p.read_text())
PEERS = {"torch", "torchvision", "timm", "foolbox", "pyautoattack", "autoattack", "h5py"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_script_explains_itself_and_does_nothing_else(path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    known = set(sys.modules)
    try:
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(path), run_name="__main__")
    except ModuleNotFoundError as error:
        if error.name not in PEERS:
            raise
        pytest.skip(f"needs {error.name}")
    finally:  # `nets` and `truth` are names of helpers beside the script
        for name in set(sys.modules) - known:
            if "." not in name and name in {p.stem for p in path.parent.glob("*.py")}:
                del sys.modules[name]
    assert left.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith(f"usage: {path.name}")
    opening = ast.get_docstring(ast.parse(path.read_text())).splitlines()[0]
    assert opening in shown


def test_the_contents_name_every_script_and_what_it_takes():
    listed = list(contents.scripts())
    assert sorted(path for path, _, _ in listed) == SCRIPTS
    assert all(takes for _, _, takes in listed)
    assert {path.parent for path in SCRIPTS} == {FOLDER / name for name in contents.FOLDERS}
    assert contents.PAGE.read_text() == contents.page()


def test_courses_are_added_to_those_that_are_there(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(convergence, "train", lambda name, *rest: trained.append(name))
    course = {"epoch": [1.0, 2.0], "seconds": [3.0, 6.0], "error": [0.5, 0.25]}
    monkeypatch.setattr(convergence, "course", lambda run: course)
    results = tmp_path / "convergence_digits_smoke.json"
    flags = {"data": "digits", "scale": "smoke", "runs": tmp_path, "results": results}
    for name in ("SCE", "MMC-10"):
        convergence.main(argparse.Namespace(**flags, only=name))
    assert set(trained) == {"SCE", "MMC-10"}
    kept = runner.files.read_json(results)["courses"]
    assert kept == {name: [course] * trained.count(name) for name in ("SCE", "MMC-10")}


def test_rows_by_name_are_reproduced_and_kept(tmp_path, monkeypatch):
    lines, kept = [], []
    monkeypatch.setattr(runner.cli, "main", lines.append)
    monkeypatch.setattr(runner, "keep", kept.append)
    rows = {"a": ("natural", "--n 1"), "b": ("mmc --weight 2", "--n 2")}
    options = argparse.Namespace(runs=tmp_path, data_dir="sets", only="b", dirty=True)
    runner.reproduce(rows, options)
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

    found = [runner.once(tmp_path / "new" / "a.json", measure) for _ in range(2)]
    assert found == [{"a": 0.5}] * 2 and len(calls) == 1


def test_the_page_shows_the_fast_autoattack_as_measured():
    """And four networks keep the claim: no image more, at a tenth of the calls."""
    rows = json.loads((FOLDER / "results/fast_autoattack.json").read_text())["rows"]
    text, kept = page("results"), 0
    for name, row in rows.items():
        whole, shorter, fast = row["autoattack"], row["shorter"], row["fast"]
        calls = [f"{v['forwards']:,.0f} + {v['backwards']:,.0f}" for v in (whole, fast[0])]
        resist = ", ".join(str(v["robust"]) for v in fast)
        cells = name, whole["robust"], calls[0], shorter["robust"], resist, calls[1]
        assert f"| {' | '.join(map(str, cells))} |" in text
        kept += all(
            v["robust"] <= whole["robust"]
            and v["forwards"] <= whole["forwards"] / 10
            and v["backwards"] <= whole["backwards"] / 10
            for v in fast
        )
    assert kept == 4


def test_the_readme_shows_the_quickstart_as_measured():
    """And its claim holds: the blind attack ranks MMC first, the aimed one leaves it nothing."""
    found = json.loads((FOLDER / "results/quickstart.json").read_text())
    assert "\n".join(found["table"][:5]) in (FOLDER.parent / "README.md").read_text()
    at = {
        name: c["accuracy"][np.argmin(abs(0.2 - np.array(c["eps"])))]
        for name, c in found["curves"].items()
    }
    assert at["mmc, cross-entropy"] > at["pgd-at, cross-entropy"] > 0.4
    assert at["mmc, margins"] < 0.01 < 0.3 < at["pgd-at, margins"]


@pytest.mark.parametrize(("page", "name"), claims.tables(), ids=lambda part: str(part)[-20:])
def test_the_pages_show_every_claim_as_measured(page, name):
    shown = page.read_text().partition(f"<!-- {name} -->\n")[2]
    assert shown.partition(f"<!-- end of {name} -->")[0] == claims.tables()[page, name]


def test_an_effect_has_a_sign_an_interval_and_a_verdict():
    assert effects.effect([0.5, 0.6, 0.7], [0.3, 0.4, 0.5]) == ("+20.0 (+20.0 to +20.0)", "holds")
    assert effects.effect([0.3, 0.4], [0.5, 0.6])[1] == "falls"
    assert effects.effect([0.5, 0.4], [0.4, 0.5]) == ("+0.0 (-127.1 to +127.1)", "open")


def test_results_files_are_small(tmp_path):
    for path in (FOLDER / "results").rglob("*.json"):
        assert path.stat().st_size <= runner.LARGEST, path
    report = {"clean": 0.5, "stages": {"a": [1]}, "nan": float("nan")}
    table = {"rows": {"a": {"report": report, "seeds": [1, 2]}}, "n": 3}
    runner.write_result(tmp_path / "new" / "a.json", table)
    text = (tmp_path / "new" / "a.json").read_text()
    assert '\n  "a": {\n   "report": {"clean": 0.5, "nan": "NaN"},\n   "seeds": [1, 2]\n' in text
    assert json.loads(text)["rows"]["a"]["seeds"] == [1, 2]
    with pytest.raises(ValueError, match="would take"):
        runner.write_result(tmp_path / "b.json", {"images": list(range(100_000))})


def test_every_hard_image_has_a_witness():
    """It lies in the ball and the box and is adversarial, in float64 and to the model alike."""
    weights, images, labels, witnesses = hard_images.read()
    assert len(labels) == 20
    assert abs(witnesses - images).max() <= hard_images.EPS + 1e-6
    assert witnesses.min() >= 0 and witnesses.max() <= 1
    assert hard_images.margins(weights, images, labels).max() < 0
    assert hard_images.margins(weights, witnesses, labels).min() >= 1e-3
    assert (hard_images.logits(weights, witnesses).argmax(-1) != labels).all()


def test_the_page_shows_the_hard_images_as_measured():
    """And the claim holds: 12 in 20 with every seed, in no more time than AutoAttack takes."""
    rows = json.loads((FOLDER / "results/hard_image_attacks.json").read_text())["rows"]
    text = page("results")
    for name, runs in rows.items():
        broken = ", ".join(str(run["broken"]) for run in runs)
        seconds = ", ".join(f"{run['seconds']:.0f}" for run in runs)
        assert f"| {name} | {broken} | {seconds} |" in text
    assert min(run["broken"] for run in rows["memetic"]) >= 12
    seconds = {name: sum(run["seconds"] for run in runs) for name, runs in rows.items()}
    assert seconds["memetic"] <= min(seconds["autoattack"], seconds["pyautoattack"])
