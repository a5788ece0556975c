import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from robustjax import config, files, report
from robustjax.attacks import PGD
from robustjax.attacks.targets import Ranked
from robustjax.losses import TemperedCrossEntropy, margin
from robustjax.report.figures import radius_unit
from robustjax.report.provenance import commit


def pixels(png):
    with Image.open(png) as image:
        return np.asarray(image.convert("RGB"), int)


def has_color(png, color):
    """Whether some pixels have exactly this colour."""
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((pixels(png) == rgb).all(-1).any())


def write_run(folder, method="PGDAT", robust=None, eps=8 / 255, changed=()):
    """A run directory as training and evaluation leave it."""
    folder.mkdir()
    inner = {"type": method, "fields": {"attack": {"type": "PGD", "fields": {"steps": 10}}}}
    config = {
        "method": inner,
        "data": {"name": "cifar10"},
        "model": {"name": "cnn"},
        "threat": {"type": "Linf", "fields": {"eps": 4 / 255}},
    } | dict(changed)
    robust = {"pgd-10": 0.5} if robust is None else robust
    evaluated = {
        "clean": 0.8125,
        "robust": robust,
        "worst_case": 0.495,
        "stderr": {"clean": 0.012, "worst_case": 0.016},
        "warnings": [],
        "threat": {"type": "Linf", "fields": {"eps": eps}},
    }
    files.write_json(folder / "config.json", config)
    files.write_json(folder / "report.json", evaluated)
    return folder


# ---- training curves

METRICS = [
    {"step": 10, "epoch": 0.5, "split": "train", "loss": 2.0, "accuracy": 0.2, "lr": 0.1},
    {"step": 20, "epoch": 1.0, "split": "train", "loss": 1.5, "accuracy": 0.4, "lr": 0.1},
    {"step": 20, "epoch": 1.0, "split": "validation", "accuracy": 0.5, "robust_accuracy": 0.3},
    {"step": 40, "epoch": 2.0, "split": "validation", "accuracy": 0.6, "robust_accuracy": 0.4},
]


def write_metrics(path, rows, tail=""):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return path


def test_training_curves_show_every_metric_of_both_splits(tmp_path):
    png = tmp_path / "curves.png"
    report.training_curves(write_metrics(tmp_path / "m.jsonl", METRICS), png)
    assert has_color(png, "#0072b2") and has_color(png, "#d55e00")
    report.training_curves(write_metrics(tmp_path / "m.jsonl", METRICS[:2]), png)
    assert not has_color(png, "#d55e00")


def test_training_curves_have_a_panel_a_kind(tmp_path):
    def width(rows):
        report.training_curves(write_metrics(tmp_path / "m.jsonl", rows), tmp_path / "m.png")
        return pixels(tmp_path / "m.png").shape

    loss_only = width([{"step": 1, "epoch": 1.0, "split": "train", "loss": 1.0}])
    assert width(METRICS[2:]) == loss_only  # the two accuracies share a panel
    assert width(METRICS)[1] == 3 * loss_only[1]  # loss, accuracy, learning rate
    four = width([METRICS[0] | {"eps": 0.1}])
    assert four[:2] == (2 * loss_only[0], 2 * loss_only[1])


def test_a_torn_last_line_is_left_out(tmp_path):
    whole = write_metrics(tmp_path / "a.jsonl", METRICS)
    torn = write_metrics(tmp_path / "b.jsonl", METRICS, tail='{"step": 60, "epo')
    assert report.read_metrics(torn) == report.read_metrics(whole) == METRICS
    report.training_curves(whole, tmp_path / "a.png")
    report.training_curves(torn, tmp_path / "b.png")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def test_no_metrics_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="no metrics yet"):
        report.training_curves(write_metrics(tmp_path / "m.jsonl", []), tmp_path / "m.png")


# ---- accuracy over eps


CURVE = {"eps": [0.0, 4 / 255, 8 / 255], "accuracy": [0.9, 0.7, 0.5], "stderr": [0.01] * 3}


def test_accuracy_over_eps_draws_each_curve_in_its_colour(tmp_path):
    one, two = tmp_path / "1.png", tmp_path / "2.png"
    report.accuracy_over_eps({"a": CURVE}, one, "Linf")
    report.accuracy_over_eps({"a": CURVE, "b": CURVE | {"accuracy": [0.9, 0.2, 0.0]}}, two, "Linf")
    assert has_color(one, "#0072b2") and not has_color(one, "#d55e00")
    assert has_color(two, "#0072b2") and has_color(two, "#d55e00")


def test_accuracy_over_eps_shows_the_standard_error(tmp_path):
    def blue(stderr):
        report.accuracy_over_eps({"a": CURVE | {"stderr": [stderr] * 3}}, tmp_path / "a.png")
        red, _, blue = np.moveaxis(pixels(tmp_path / "a.png"), -1, 0)
        return (blue > red + 20).sum()

    assert blue(0.1) > 5 * blue(0.0)


@pytest.mark.parametrize(
    ("norm", "largest", "expected"),
    [
        ("Linf", 16 / 255, (255, " in 1/255")),
        ("linf", 0.3, (1, "")),
        ("L2", 0.1, (1, "")),
    ],
)
def test_radii_are_in_the_unit_the_field_writes_them_in(norm, largest, expected):
    assert radius_unit(norm, largest) == expected


@pytest.mark.parametrize(
    ("curves", "norm", "message"),
    [({}, "linf", "no curve to draw")],
)
def test_impossible_curves_are_refused(tmp_path, curves, norm, message):
    with pytest.raises(ValueError, match=message):
        report.accuracy_over_eps(curves, tmp_path / "a.png", norm)
    assert not (tmp_path / "a.png").exists()


# ---- example grid


def grid(path, change, labels=(0, 1, 1), predictions=(0, 1, 1), names=("cat", "dog")):
    clean = np.full(change.shape, 0.5, np.float32)
    report.example_grid(clean, clean + change, np.array(labels), np.array(predictions), path, names)
    return pixels(path)


def test_a_perturbation_of_grey_images_is_signed_with_white_at_zero(tmp_path):
    change = np.zeros((3, 4, 4, 1), np.float32)
    change[0], change[1] = 0.1, -0.1
    image = grid(tmp_path / "g.png", change)
    height, width, _ = image.shape
    up, down, zero = (image[int(0.87 * height), int(width * x)] for x in (0.25, 0.56, 0.87))
    assert up[0] > 80 and up[2] < 60, up  # red
    assert down[2] > 80 and down[0] < 60, down  # blue
    assert zero.min() > 240, zero


def test_a_perturbation_of_colour_images_is_signed_with_grey_at_zero(tmp_path):
    change = np.zeros((3, 4, 4, 3), np.float32)
    change[0, ..., 0], change[1, ..., 0] = 8 / 255, -8 / 255
    image = grid(tmp_path / "g.png", change)
    height, width, _ = image.shape
    up, down, zero = (image[int(0.87 * height), int(width * x)] for x in (0.25, 0.56, 0.87))
    np.testing.assert_allclose(up, [255, 127, 127], atol=2)
    np.testing.assert_allclose(down, [0, 127, 127], atol=2)
    np.testing.assert_allclose(zero, [127, 127, 127], atol=2)


def test_wrong_predictions_are_red(tmp_path):
    change = np.zeros((3, 4, 4, 1), np.float32)
    grid(tmp_path / "right.png", change)
    assert not has_color(tmp_path / "right.png", "#b00020")
    grid(tmp_path / "wrong.png", change, predictions=(0, 0, 1))
    assert has_color(tmp_path / "wrong.png", "#b00020")


@pytest.mark.parametrize(
    ("label", "names", "shown"),
    [(1, ["cat", "dog"], "dog"), (1, None, "1"), (-1, ["cat", "dog"], "NaN"), (-1, None, "NaN")],
)
def test_no_class_is_written_for_nan(monkeypatch, tmp_path, label, names, shown):
    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda ax, text, **style: titles.append(text))
    image = np.zeros((1, 4, 4, 1))
    report.example_grid(
        image, image, np.zeros(1, int), np.array([label]), tmp_path / "g.png", names
    )
    assert titles == [names[0] if names else "0", shown]


@pytest.mark.parametrize(
    ("clean", "adversarial", "labels", "message"),
    [
        ((2, 4, 4, 2), (2, 4, 4, 2), 2, r"images must be \(N, H, W, 1 or 3\)"),
        ((0, 4, 4, 1), (0, 4, 4, 1), 0, r"clean must not be empty"),
        ((2, 4, 4, 1), (2, 4, 5, 1), 2, "do not match"),
        ((2, 4, 4, 1), (2, 4, 4, 1), 3, "do not match"),
    ],
)
def test_grids_that_do_not_fit_are_refused(tmp_path, clean, adversarial, labels, message):
    classes = np.zeros(labels, int)
    with pytest.raises(ValueError, match=message):
        report.example_grid(
            np.zeros(clean), np.zeros(adversarial), classes, classes, tmp_path / "g.png"
        )


def test_figures_leave_matplotlib_as_it_was(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    report.accuracy_over_eps({"a": CURVE}, tmp_path / "a.png")
    assert dict(matplotlib.rcParams) == before


# ---- detectors

CURVES = {
    "lid": {"fgsm": ([0, 0, 1], [0, 1, 1]), "bim": ([], [])},
    "energy": {"fgsm": ([0, 0.5, 1], [0, 0.5, 1]), "bim": ([0, 1], [0, 1])},
}


def test_roc_curves_have_a_panel_an_attack_and_a_colour_a_detector(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda self, label, **_: titles.append(label))
    report.roc_curves(CURVES, tmp_path / "roc.png")
    assert titles == ["fgsm", "bim"]
    assert all(has_color(tmp_path / "roc.png", color) for color in ("#0072b2", "#d55e00"))
    with pytest.raises(ValueError, match="no ROC curve"):
        report.roc_curves({}, tmp_path / "none.png")


def test_the_table_of_detectors():
    entry = {"auc": 0.987, "accepted_wrong": 0.1234, "accepted_clean": 0.95}
    none = entry | {"auc": None, "accepted_wrong": 0.0}
    found = {"found": {"lid": {"fgsm": entry, "white-box": none}}}
    assert report.detection_table(found).splitlines() == [
        "detector  clean accepted         fgsm  white-box",
        "--------  --------------  -----------  ---------",
        "lid                 95.0  98.7 / 12.3    - / 0.0",
    ]


# ---- table


def test_the_table_of_two_runs(tmp_path):
    a = write_run(tmp_path / "a")
    b = write_run(tmp_path / "b", "TRADES", {"fgsm": 0.6, "pgd-10": 0.51234}, eps=0.3)
    assert report.table([a, b], markdown=True).splitlines() == [
        "| run | method | data    | model | threat     | clean | pgd-10 | fgsm | worst case |",
        "| --- | ------ | ------- | ----- | ---------- | ----: | -----: | ---: | ---------: |",
        "| a   | PGDAT  | cifar10 | cnn   | Linf 8/255 |  81.2 |   50.0 |    - | 49.5 ± 1.6 |",
        "| b   | TRADES | cifar10 | cnn   | Linf 0.3   |  81.2 |   51.2 | 60.0 | 49.5 ± 1.6 |",
        "",
        *(over := ["a: worst case over pgd-10", "b: worst case over fgsm, pgd-10"]),
    ]
    assert report.table([a, b]).splitlines() == [
        "run  method  data     model  threat      clean  pgd-10  fgsm  worst case",
        "---  ------  -------  -----  ----------  -----  ------  ----  ----------",
        "a    PGDAT   cifar10  cnn    Linf 8/255   81.2    50.0     -  49.5 ± 1.6",
        "b    TRADES  cifar10  cnn    Linf 0.3     81.2    51.2  60.0  49.5 ± 1.6",
        *over,
    ]


def test_what_two_settings_of_a_run_differ_in(tmp_path):
    run = write_run(tmp_path / "a")
    first = json.loads((run / "report.json").read_text())
    first |= {"n": 100, "key": [0, 0], "data": {"name": "cifar10", "split": "test"}}
    first |= {"setting": {"data_sha256": "a", "versions": {"jax": "1"}, "devices": {"kind": "cpu"}}}
    first["setting"]["weights_sha256"] = {"model": "a"}
    first |= {"draws": {"n": 20, "vote": False}}
    first |= {"weights": "best", "rounded": {"fgsm": {"levels": 255, "survive": 0.5}}}

    def beside(**entries):
        return first | {"setting": first["setting"] | entries.pop("setting", {})} | entries

    others = [
        beside(key=[0, 3], weights="last"),
        beside(n=50, setting={"data_sha256": "b"}),
        beside(data={"name": "cifar10_1"}, setting={"data_sha256": "b"}),
        beside(setting={"data_sha256": "b", "versions": {"jax": "2"}}),
        beside(setting={"devices": {"kind": "H200"}}),
        beside(setting={"weights_sha256": {"model": "a", "surrogate": None}}, draws={"n": 9}),
        beside(setting={"weights_sha256": {"model": "b", "surrogate": "c"}}, dtype="bfloat16"),
        beside(draws={"n": 20, "vote": True}),
        {name: first[name] for name in ("clean", "robust", "worst_case", "stderr", "warnings")},
    ]
    files.write_json(run / "report.json", first | {"others": others})
    lines = report.table([run]).splitlines()
    names = [line.partition("  ")[0] for line in lines[2:12]]
    assert names == [
        "a",
        "a (seed 3, last weights)",
        "a (50 images)",
        "a (on cifar10_1)",
        "a (other images, other versions)",
        "a (on H200)",
        "a (on a surrogate, 9 draws)",
        "a (bfloat16, other weights)",
        "a (by vote)",
        "a (of an older version)",
    ]
    assert lines[12] == "worst case over pgd-10"
    assert "a: % of successes that survive rounding to 255 levels: fgsm 50.0" in lines
    assert report.read_run(run)["report"]["n"] == 100


def test_a_wrapper_shows_what_it_wraps(tmp_path):
    wrapped = {"type": "AWP", "fields": {"inner": {"type": "TRADES", "fields": {"beta": 6.0}}}}
    run = write_run(tmp_path / "a", changed={"method": wrapped})
    assert report.read_run(run)["method"] == "AWP(TRADES)"


def test_a_missing_report_is_named_with_its_command(tmp_path):
    good, bad = write_run(tmp_path / "good"), write_run(tmp_path / "bad")
    (bad / "report.json").unlink()
    text = report.table([good, bad, tmp_path / "none"])
    assert "\ngood " in text and "\nbad " not in text
    assert f"{bad} has no report.json yet; run: robustjax evaluate {bad}" in text
    assert f"{tmp_path / 'none'} is not a run directory" in text
    with pytest.raises(FileNotFoundError, match="robustjax evaluate"):
        report.read_run(bad)
    with pytest.raises(FileNotFoundError, match=r"robustjax evaluate .*; .*none is not a run"):
        report.table([bad, tmp_path / "none"])


@pytest.mark.parametrize("name", ["config.json", "report.json"])
@pytest.mark.parametrize(
    ("content", "message"), [("{", "is damaged"), ("{}", "has no "), ("[]", "has no ")]
)
def test_a_damaged_run_is_refused_by_its_file(tmp_path, name, content, message):
    run = write_run(tmp_path / "a")
    (run / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name} .*{message}"):
        report.read_run(run)


def test_a_results_file_without_its_parts_is_refused(tmp_path):
    files.write_json(tmp_path / "a.json", {"config": {}})
    with pytest.raises(ValueError, match=r"a\.json .* has no report"):
        report.read_run(tmp_path / "a.json")


def test_the_stages_of_an_ensemble_share_a_row_each():
    def row(path, attacked, accuracy, loss):
        attack = {"type": "PGD", "fields": {"loss": loss, "label": "true"} if loss else {}}
        counts = {"forwards": 10 * attacked, "backwards": 9 * attacked, "seconds": 1.5}
        where = {"attack": attack, "path": path, "attacked": attacked}
        return where | {"accuracy": accuracy, "stderr": 0.01} | counts

    rows = [row([0], 80, 0.6, "dlr"), row([1, 0], 60, 0.55, None), row([1, 1], 55, 0.5, None)]
    lines = report.stage_table(rows).splitlines()
    assert lines[0].split() == ["stage", "attacked", "accuracy", "forwards", "backwards", "seconds"]
    assert lines[2].split() == ["PGD", "dlr", "80", "60.0", "±", "1.0", "800", "720", "1.5"]
    assert lines[3].split() == ["PGD", "x2", "60", "50.0", "±", "1.0", "1150", "1035", "3.0"]


def test_calls_that_an_attack_does_not_count_are_not_summed():
    row = {"attack": "mine", "path": [0], "attacked": 1, "accuracy": 1, "stderr": 0, "seconds": 1.0}
    row |= {"forwards": -1, "backwards": -1}
    assert report.stage_table([row] * 3).splitlines()[2].split()[-3:] == ["-", "-", "3.0"]


def test_a_stage_says_what_it_ascends():
    def name(**fields):
        row = {"attack": config.encode(PGD(**fields)), "path": [0], "attacked": 1}
        row |= {"accuracy": 1, "stderr": 0, "forwards": 1, "backwards": 1, "seconds": 1.0}
        return report.stage_table([row]).splitlines()[2].split("  ")[0]

    assert name() == "PGD cross_entropy"
    assert name(loss=margin, target=Ranked(2)) == "PGD margin rank 2"
    assert name(loss=TemperedCrossEntropy(100.0)) == "PGD TemperedCrossEntropy 100"


def test_no_two_stages_share_a_name():
    def names(*paths, attack):
        row = {"attacked": 1, "accuracy": 1, "stderr": 0, "forwards": 1, "backwards": 1}
        rows = [
            {**row, "seconds": 1.0, "path": list(path), "attack": config.encode(attack(i))}
            for i, path in enumerate(paths)
        ]
        return [line.split("  ")[0] for line in report.stage_table(rows).splitlines()[2:]]

    def ranked(i):
        return PGD(loss=margin, target=Ranked(i + 1))

    assert names((0,), (1,), attack=ranked) == ["PGD margin rank 1", "PGD margin rank 2"]
    assert names((0, 0), (0, 1), attack=ranked) == ["PGD margin ranks 1 to 2"]
    same = ["PGD cross_entropy, run 1", "PGD cross_entropy, run 2"]
    assert names((0,), (1,), attack=lambda i: PGD()) == same


def test_a_warning_of_several_attacks_and_runs_is_one_line(tmp_path):
    runs = [write_run(tmp_path / name) for name in ("a", "b")]
    for i, run in enumerate(runs):
        whole = json.loads((run / "report.json").read_text())
        said = [f"pgd-10: zero at {i + 1}.5% of 10", "one class", f"pgd-10: {i} restarts"]
        files.write_json(run / "report.json", whole | {"warnings": said})
    assert report.table(runs).splitlines()[-4:] == [
        "warning: a: pgd-10; b: pgd-10: zero at 1.5 to 2.5% of 10",
        "warning: a; b: one class",
        "warning: a: pgd-10: 0 restarts",
        "warning: b: pgd-10: 1 restarts",
    ]


def test_warnings_come_after_the_table(tmp_path):
    run = write_run(tmp_path / "a")
    assert "warning" not in report.table([run])
    whole = json.loads((run / "report.json").read_text())
    files.write_json(run / "report.json", whole | {"warnings": ["pgd-10: masked gradients"]})
    assert report.table([run]).splitlines()[-1] == "warning: a: pgd-10: masked gradients"


def test_a_results_file_is_a_run(tmp_path):
    run = write_run(tmp_path / "a")
    whole = {name: json.loads((run / f"{name}.json").read_text()) for name in ("config", "report")}
    files.write_json(tmp_path / "a.json", whole)
    assert report.read_run(tmp_path / "a.json") == report.read_run(run)


def test_a_run_that_was_not_attacked_has_a_row(tmp_path):
    assert "a    PGDAT" in report.table([write_run(tmp_path / "a", robust={})])


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (8 / 255, "8/255"),
        (float(np.float32(2 / 255)), "2/255"),
        (0.3, "0.3"),
        (0.5, "0.5"),
        (1.0, "1"),
        (0.0, "0"),
        (0.031, "0.031"),
        (float("inf"), "inf"),
    ],
)
def test_eps_reads_as_it_is_written(eps, text):
    assert report.format_eps(eps) == text


# ---- provenance


def test_provenance_says_where_a_number_comes_from():
    origin = report.provenance("robustjax evaluate runs/a --eps 8/255", 3, time.time() - 5)
    assert set(origin) == {
        "command",
        "seed",
        "commit",
        "device",
        "versions",
        "wall_time_s",
        "date",
    }
    assert origin["command"] == "robustjax evaluate runs/a --eps 8/255" and origin["seed"] == 3
    assert set(origin["versions"]) == {
        "python",
        "robustjax",
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "numpy",
    }
    assert origin["versions"]["numpy"] == np.__version__
    assert 5 <= origin["wall_time_s"] < 60
    assert "4 x cpu" in origin["device"]
    json.dumps(origin)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("--data-dir /srv/me/tfds --out /srv/runs/a/", "--data-dir tfds --out a"),
        ("--data-dir ../mine/tfds --out ../../a", "--data-dir tfds --out a"),
        ("--data arrays:/home/me/set", "--data arrays:set"),
        ("--out=/srv/runs/a", "--out=a"),
        ("--out '/home/jane doe/runs/a b'", "--out 'a b'"),
        ("--eps 8/255 runs/a b/c ./d", "--eps 8/255 runs/a b/c ./d"),
    ],
)
def test_provenance_keeps_no_folder_of_the_machine(typed, kept):
    assert report.provenance(typed, 0, time.time())["command"] == kept


@pytest.mark.parametrize(
    ("argv", "typed"),
    [
        (["/usr/bin/robustjax", "data", "list"], "robustjax data list"),
        (["/src/robustjax/__main__.py", "report", "a b"], "robustjax report 'a b'"),
        (["experiments/mnist.py"], "mnist.py"),
    ],
)
def test_the_command_line_is_as_typed(monkeypatch, argv, typed):
    monkeypatch.setattr(sys, "argv", argv)
    assert report.command_line() == typed


def test_the_commit_is_that_of_the_tracked_file(tmp_path, monkeypatch):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        command = ["git", *who, *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)

    file, other = tmp_path / "a.py", tmp_path / "b.py"
    file.touch()
    other.touch()
    assert commit(file) is None  # no checkout
    git("init", "-q")
    results = tmp_path / "results.json"
    results.touch()
    git("add", "a.py", "results.json")
    git("commit", "-qm", "a")
    results.write_text("{}")  # is no code
    head = git("rev-parse", "HEAD").stdout.strip()
    assert commit(file) == head
    assert commit(other) is None  # lies in a checkout that does not know it
    file.write_text("1")
    assert commit(file) == f"{head}-dirty"
    monkeypatch.setenv("PATH", os.devnull)
    assert commit(file) is None  # no git
