"""The command line, in process; test_loop.py and the README's commands run it for real."""

import contextlib
import dataclasses
import functools
import importlib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import wrong_lines

from robustjax import (
    attacks,
    cli,
    config,
    data,
    detection,
    evaluation,
    losses,
    models,
    parallel,
    spec,
    training,
)
from robustjax.cli.detect import DetectOptions, detect
from robustjax.cli.evaluate import EvaluateOptions, draw_examples, evaluate
from robustjax.cli.flags import choose_threat
from robustjax.cli.quickstart import QuickstartOptions, quickstart
from robustjax.cli.train import TrainOptions
from robustjax.threats import L2, THREATS, Linf

SMALL = ["--width", "2", "--epochs", "1", "--batch-size", "64", "--lr", "1/20"]


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A model trained from the command line on bundled digits."""
    out = tmp_path_factory.mktemp("cli") / "run"
    attack = ["--attack.steps", "2", "--eps", "1/10", "--validation-attack", "pgd-2"]
    cli.main(["train", "pgd-at", "--out", str(out), *SMALL, *attack])
    return out


@pytest.fixture
def copy(run, tmp_path):
    """The trained run in a folder of its own, not evaluated."""
    shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("report.json", "*.png"))
    return tmp_path / "copy"


class Enough(SystemExit):
    """`fit` was called; nothing needs to be trained."""


@pytest.fixture
def fitted(monkeypatch):
    """What `train` with these flags asks `fit` for."""
    calls = []

    def fit(method, train, validation, **settings):
        calls.append(SimpleNamespace(method=method, **settings))
        raise Enough

    def ask(*flags):
        with pytest.raises(Enough):
            cli.main(["train", *flags, "--out", "never"])
        return calls.pop()

    monkeypatch.setattr(training, "fit", fit)
    return ask


MINE = """
import robustjax as rj

rj.attacks.register("my-attack", rj.attacks.FGSM, budget=None, paper="Me 2026")
rj.detection.register("my-detector", rj.detection.Energy(2.0))
rj.threats.THREATS.register("my-threat", rj.threats.Linf(0.1, bounds=(-1.0, 1.0)))
rj.training.register("my-method", rj.training.TRADES(beta=1.5), paper="Me 2026")
rj.spec.KINDS[rj.attacks.starts.Start].register("my-start", rj.attacks.starts.Gaussian(0.25))
"""


@pytest.fixture
def my_package(tmp_path, monkeypatch, registries):
    """A user's module in the current folder."""
    (tmp_path / "my_package.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("my_package", None)


def refuse(*args):
    """Run a command that must end in one line of error; that line."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(args))
    message = str(stopped.value)
    assert message.startswith("robustjax: ") and "\n" not in message
    return message


def read(path):
    return json.loads(path.read_text())


# ---- train


def test_flags_reach_the_config(run):
    config = read(run / "config.json")
    assert config["method"]["fields"]["attack"]["fields"]["threat"]["fields"]["eps"] == 0.1
    assert config["recipe"]["fields"]["lr"] == 0.05
    assert config["model"]["mean"] and config["model"]["std"]
    assert set(read(run / "training.json")) == {"best", "resumed_from_step", "provenance"}


def test_a_natural_model_remembers_what_it_is_to_be_attacked_with(fitted):
    asked = fitted("natural", "--threat", "l2", "--eps", "1/2")
    assert asked.threat == L2(0.5) and asked.validation_attack is None
    chosen = fitted("natural", "--validation-attack", "pgd-2", "--eps", "1/10")
    assert chosen.validation_attack == attacks.parse("pgd-2", Linf(0.1))


def test_awp_wraps_any_method(fitted):
    asked = fitted("pgd-at", "--awp", "1/100", "--awp-start", "10/200", "--eps", "0.1")
    assert asked.method == training.AWP(
        training.PGDAT(attacks.PGD(Linf(0.1))), gamma=0.01, start=0.05
    )


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("auto", data.Augment(pad=0, flip=False)),
        ("crop", data.Augment(flip=False)),
        ("zero-crop-flip", data.Augment(mode="zero")),
        ("shift-flip", data.Augment(pad=0, shift=0.1)),
        ("zero-crop-flip:pad=2", data.Augment(pad=2, mode="zero")),
    ],
)
def test_augmentation_by_name(fitted, name, want):
    assert fitted("natural", "--augment", name).recipe.augment == want


def test_a_card_reaches_the_run(fitted, tmp_path):
    """Its augmentation too, where images have colours."""
    images = np.zeros((200, 8, 8, 3), np.uint8)
    images[::2] = 255
    for split in ("train", "test"):
        np.save(tmp_path / f"{split}_images.npy", images)
        np.save(tmp_path / f"{split}_labels.npy", np.arange(200) % 2)
    asked = fitted("trades", "--card", "repo", "--data", f"arrays:{tmp_path}", "--lr", "1/20")
    method, recipe, _ = training.card("trades", "repo")
    assert asked.method == method and asked.threat == Linf(0.031)
    assert asked.recipe == dataclasses.replace(recipe, lr=0.05)
    assert asked.model["name"] == "wrn-34-10" and asked.model["mean"] is None
    with pytest.warns(UserWarning, match=r"10 .* steps of 0\.007 reach only 0\.7 of eps = 0\.1"):
        grey = fitted("trades", "--card", "repo", "--eps", "1/10", "--normalize")
    assert grey.recipe.augment == data.Augment(pad=0, flip=False)
    assert grey.threat == Linf(0.1) == grey.method.attack.threat and grey.model["mean"]
    assert fitted("trades", "--card", "awp").method.gamma == 5e-3


def test_a_member_of_the_family_starts_from_its_papers_card(fitted):
    natural = fitted("mmc", "--centers", "random", "--center-norm", "5")
    assert natural.method == training.MMC(centers="random", center_norm=5.0)
    assert natural.validation_attack is None and natural.recipe.lr == 0.01
    robust = fitted("sce", "--adversarial", "targeted", "--eps", "1/10", "--lr", "1/20")
    assert robust.method == training.SCE("targeted", attacks.PGD(Linf(0.1)))
    assert robust.validation_attack == attacks.parse("pgd-10", Linf(0.1))
    assert robust.recipe.lr == 0.05
    blinding = fitted("mmc", "--adversarial", "untargeted", "--eps", "1/10")
    assert blinding.validation_attack == attacks.parse("margin-un-10", Linf(0.1))


def test_training_takes_the_cores_that_its_batches_divide_over(fitted, monkeypatch):
    """Before anybody else takes all: batches of 50 would not divide over four."""
    calls = []
    monkeypatch.setattr(parallel, "use_all_cores", lambda *sizes: calls.append(sizes))
    fitted("mmc", "--accumulate", "2")
    assert calls == [(25,)]


def test_a_network_of_ones_own_gets_the_settings_that_are_given(fitted, monkeypatch):
    plain = fitted("natural", "--no-normalize", "--model", "my_nets:small")
    assert plain.model == {"name": "my_nets:small", "mean": None, "std": None}
    wide = fitted("natural", "--model", "my_nets:small", "--width", "7", "--dropout", "1/2")
    assert wide.model["width"] == 7 and wide.model["dropout"] == 0.5
    asked = []
    monkeypatch.setattr(models, "load", lambda *run, module: asked.append((*run, module)))
    for command in ("evaluate", "detect", "pseudo-label"):
        words = ["--data", "x", "--out", "y"] if command == "pseudo-label" else []
        refuse(command, "run", "--model", "my_nets:small", *words)
    assert [module for *_, module in asked] == 3 * ["my_nets:small"]


def test_configs_inside_a_method_by_name(fitted):
    flags = ["--attack.start", "gaussian:sigma=1/100", "--attack.rule", "momentum"]
    asked = fitted("pgd-at", *flags, "--schedule", "one-cycle:peak=0.4", "--attack.loss", "margin")
    attack = asked.method.attack
    assert attack.start == attacks.starts.Gaussian(0.01) and attack.rule == attacks.steps.Momentum()
    assert attack.loss is losses.margin and asked.recipe.schedule.peak == 0.4


def test_only_the_first_process_talks(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(training, "fit", lambda *args, **settings: asked.append(settings))
    cli.main(["train", "natural", "--out", str(tmp_path / "run")])
    assert asked[0]["progress"] is False
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "want"),
    [
        ([], None),
        (["--distributed"], (None, None, None)),
        (["--coordinator", "a:1", "--processes", "2", "--process", "0"], ("a:1", 2, 0)),
    ],
)
def test_processes_meet_where_the_flags_say(fitted, monkeypatch, flags, want):
    met = []
    monkeypatch.setattr(parallel, "initialize", lambda *where: met.append(where))
    fitted("natural", *flags)
    assert met == ([] if want is None else [want])


@pytest.mark.parametrize(
    "flags",
    [
        ["--processes", "2"],
        ["--process", "0"],
        ["--coordinator", "a:1", "--processes", "2"],
        ["--distributed", "--coordinator", "a:1", "--processes", "2", "--process", "0"],
    ],
)
def test_half_of_a_meeting_point_is_refused(flags):
    assert "only --distributed" in refuse("train", "natural", "--out", "never", *flags)


def test_a_run_that_lost_files_gets_them_again(copy, capsys):
    """All is trained then: a record that only training writes would be missing for ever."""
    lost = ("training.json", "config.json", "metrics.jsonl", "weights.npz", "weights_last.npz")
    for name in lost:
        (copy / name).unlink()
    attack = ["--attack.steps", "2", "--eps", "1/10", "--validation-attack", "pgd-2"]
    cli.main(["train", "pgd-at", "--out", str(copy), "--resume", *SMALL, *attack])
    record = read(copy / "training.json")
    assert record["resumed_from_step"] > 0 and 0 <= record["best"] <= 1
    assert "no curves, since metrics.jsonl is missing" in capsys.readouterr().out
    assert models.load(copy)[2]["method"]["type"] == "PGDAT"
    assert models.load(copy, "last")[2] == models.load(copy)[2]


# ---- evaluate and report


def test_train_evaluate_report(run, capsys):
    cli.main(
        ["evaluate", str(run), "--attacks", "fgsm", "pgd-4x2", "--n", "64", "--curve", "pgd-2"]
    )
    report = read(run / "report.json")
    assert report["n"] == 64 and report["threat"] == config.encode(Linf(0.1))
    assert report["worst_case"] <= min(report["robust"].values()) <= report["clean"]
    assert report["curves"]["pgd-2"]["eps"][4] == pytest.approx(0.1)
    assert {"command", "commit", "device", "versions", "seed", "wall_time_s"} <= set(
        report["provenance"]
    )
    for name in ("training", "examples", "accuracy_over_eps"):
        assert (run / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    with np.load(run / "examples.npz") as table:
        assert all(len(column) == 64 for column in table.values())
    out = capsys.readouterr().out
    assert "test images" not in out and "pgd-4x2, stage by stage" in out
    last = report["stages"]["pgd-4x2"][-1]
    assert last["accuracy"] == pytest.approx(report["robust"]["pgd-4x2"])
    assert last["forwards"] == last["backwards"] == 4 * last["attacked"]
    assert not (run / "evaluation").exists() and not (run / "adversarial.npz").exists()
    schema = re.findall(r"^\| `(\w+)` \|", (DOCS / "reference/report.md").read_text(), re.M)
    assert report.keys() <= {*schema, *(f.name for f in dataclasses.fields(evaluation.Report))}
    files = (DOCS / "reference/run_directory.md").read_text()
    assert [path.name for path in run.iterdir() if f"`{path.name}" not in files] == []
    cli.main(["report", str(run), "--format", "markdown"])
    table = capsys.readouterr().out
    assert "pgd-4x2" in table and "PGDAT" in table and f"{100 * report['clean']:.1f}" in table


def test_any_function_is_evaluated(tmp_path, monkeypatch, capsys):
    (tmp_path / "a_net.py").write_text(
        "def logits_fn(x):\n    return x.reshape(len(x), -1)[:, :10]\nweights = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    flags = ["evaluate", "--data", "digits", "--n", "16", "--curve", "none", "--attacks", "fgsm"]
    for eps in ("8/255", "1/2"):
        model = ["--model", "a_net:logits_fn", "--threat", "linf", "--eps", eps]
        cli.main([*flags, *model])
    assert "a_net:logits_fn" in capsys.readouterr().out
    found = json.loads((tmp_path / "runs/logits_fn/report.json").read_text())
    assert found["threat"]["fields"]["eps"] == 0.5 and len(found["others"]) == 1
    for words, message in (
        (["--model", "a_net:weights"], "cannot be called"),
        (["--model", "a_net:other"], "has no attribute 'other'"),
        (
            ["--model", "a_net"],
            "package.module:logits_fn or a file (.onnx, .pt, .pth, .safetensors)",
        ),
        (["--model", "no.onnx"], "the source 'no.onnx' is no ONNX file"),
        (["--model", "no.safetensors"], "the source 'no.safetensors' is no weights file"),
        (["--model", "a_net:logits_fn", "--dtype", "bfloat16"], "--dtype is for a run"),
        (["--model", "a_net:logits_fn", "--weights", "last"], "--weights is for a run"),
        ([], "name a run directory, or a function"),
    ):
        assert message in refuse(*flags, *words)
    assert "--out is for a function" in refuse("evaluate", "somewhere", "--out", "b")


def test_an_onnx_file_is_evaluated(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    images = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ("n", 1, 8, 8))
    logits = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    weights = onnx.numpy_helper.from_array(np.eye(64, 10, dtype=np.float32), "w")
    nodes = [
        onnx.helper.make_node("Flatten", ["x"], ["h"]),
        onnx.helper.make_node("MatMul", ["h", "w"], ["y"]),
    ]
    graph = onnx.helper.make_graph(nodes, "net", [images], [logits], [weights])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save_model(onnx.helper.make_model(graph, opset_imports=opset), str(tmp_path / "net.onnx"))
    monkeypatch.chdir(tmp_path)
    words = ["--model", "net.onnx", "--data", "digits", "--n", "16", "--attacks", "fgsm"]
    cli.main(["evaluate", *words, "--curve", "none", "--threat", "linf", "--eps", "1/4"])
    found = json.loads((tmp_path / "runs/net/report.json").read_text())
    test = data.load("digits", "test").head(16)
    right = test.images.reshape(16, -1)[:, :10].argmax(-1) == test.labels
    assert found["clean"] == np.mean(right)


def test_evaluate_against_another_threat_in_fewer_bits(copy, capsys):
    options = {"threat": "l2", "eps": 0.5, "n": 400, "curve": "none", "weights": "last"}
    found = evaluate(EvaluateOptions(copy, ("fgsm",), dtype="bfloat16", **options))
    assert found.attacks["fgsm"]["fields"]["threat"] == config.encode(L2(0.5))
    out, [row] = capsys.readouterr().out, found.stages["fgsm"]
    assert "digits has only 359 test images" in out
    line = f"bfloat16 and float32 disagree in {row['differed']} of {row['attacked']} verdicts"
    assert f"fgsm: {line}; float32 counts" in out
    assert json.loads((copy / "report.json").read_text())["dtype"] == "bfloat16"


def test_a_distance_head_is_attacked_on_its_distances(copy, monkeypatch, capsys):
    """Any network will do: what counts is what the config says of its head."""
    load = models.load

    def blind_net(*args, **settings):
        logits_fn, features_fn, about = load(*args, **settings)
        about["model"]["head"] = models.DISTANCE_HEADS[0]
        return jax.tree_util.Partial(blinded, logits_fn), features_fn, about

    def two(threat):
        first = attacks.PGD(threat, steps=2, loss=losses.margin)
        return attacks.worst_of_losses(first, (losses.margin, losses.mmc))

    def level(logits_fn, images, labels, attack, radii, key, **settings):
        assert attack == attacks.parse("margin-un-20", Linf(0.1))
        return {"eps": radii, "accuracy": [0.5] * 9, "stderr": [0.0] * 9}

    monkeypatch.setattr(attacks, "Adaptive", two)
    monkeypatch.setattr(models, "load", blind_net)
    monkeypatch.setattr(evaluation, "curve", level)
    cli.main(["evaluate", str(copy), "--attacks", "fgsm", "--n", "64"])
    report, out = read(copy / "report.json"), capsys.readouterr().out
    assert set(report["robust"]) == {"fgsm", "adaptive"} and "adaptive, stage by stage" in out
    assert report["stages"]["adaptive"][1]["attack"]["fields"]["loss"] == "mmc"
    assert list(report["curves"]) == ["margin-un-20"]
    blind = report["cross_entropy_without_gradient"]
    assert blind > 0.5 and f"is exactly zero on {blind:.1%} of the" in out
    without = EvaluateOptions(copy, ("fgsm",), n=64, curve="none", adaptive=False)
    assert set(evaluate(without).robust) == {"fgsm"}


def blinded(logits_fn, x):
    """No gradient, as where a softmax saturates: with some compilers exp(0) is not quite 1."""
    return jax.lax.stop_gradient(logits_fn(x))


def test_a_trained_model_labels_a_pool_that_another_run_takes(run, tmp_path, fitted, capsys):
    pool, made = tmp_path / "pool.npz", tmp_path / "made"
    test = data.load("digits", "test").head(50)
    np.savez(pool, images=test.images)
    cli.main(["pseudo-label", str(run), "--data", f"arrays:{pool}", "--out", str(made), "--soft"])
    assert f"--extra arrays:{made}" in capsys.readouterr().out
    asked = fitted("gowal", "--extra", f"arrays:{made}", "--init-from", str(run))
    assert asked.init_from == run and asked.recipe.extra_fraction == 0.7
    assert asked.method.commits == "adversarial" and asked.extra.targets.shape == (50, 10)
    logits_fn, _, _ = models.load(run)
    labels = np.asarray(logits_fn(data.to_float(test.images))).argmax(-1)
    np.testing.assert_array_equal(asked.extra.labels, labels)
    assert fitted("rebuffi").recipe.cutmix and fitted("rebuffi").extra is None
    np.savez(pool, images=np.zeros((2, 4, 4, 1), np.uint8))
    wrong = ["--data", f"arrays:{pool}", "--out", str(tmp_path / "new")]
    assert "takes (8, 8, 1)" in refuse("pseudo-label", str(run), *wrong)


def test_transfer_between_runs(run, copy, tmp_path, capsys):
    out = tmp_path / "transfer.json"
    words = [str(run), str(copy), "--attack", "mi-fgsm-3", "--n", "128", "--out", str(out)]
    cli.main(["transfer", *words])
    found = read(out)
    assert found["n"] == 128 and set(found["success"]) == {run.name, copy.name}
    # One network twice: what fools one fools the other.
    rates = [rate["value"] for row in found["success"].values() for rate in row.values()]
    assert len(set(rates)) == 1 and found["provenance"]["seed"] == 0
    table = capsys.readouterr().out
    assert "crafted on" in table and copy.name in table
    with pytest.raises(SystemExit, match="two or more run directories"):
        cli.main(["transfer", str(run)])


def test_detect_puts_the_threat_models_side_by_side(copy, capsys):
    name = "k-density:sigma2=1/2:count=20"
    words = ["--detectors", name, "--attacks", "fgsm"]
    substitute = copy.parent / "other"
    shutil.copytree(copy, substitute)
    sizes = ["--n", "64", "--steps", "3", "--fit", "400", "--false-rejection", "1/10"]
    cli.main(["detect", str(copy), *words, *sizes, "--substitute", str(substitute)])
    found = read(copy / "detection.json")
    row = found["found"][name]
    assert list(found["found"]) == [name]
    assert list(row) == ["fgsm", "fgsm from other", "white-box"]
    assert found["n"] == 64 and found["fitted_to"] == 400 and found["provenance"]["seed"] == 0
    density = found["detectors"][name]["fields"]
    assert density["sigma2"] == 0.5 and density["count"] == 20
    assert row["fgsm"] == row["fgsm from other"]  # one network twice
    assert row["white-box"]["accepted_wrong"] >= row["fgsm"]["accepted_wrong"] - 0.05
    assert (copy / "roc.png").read_bytes().startswith(b"\x89PNG")
    assert "AUC / accepted and wrong, in %" in capsys.readouterr().out


def test_all_detectors_that_suit_the_network_may_be_named_at_once(copy, monkeypatch):
    asked = []

    def nothing(logits_fn, detectors, *args, **settings):
        asked.append((list(detectors), settings["white_box"]))
        raise Enough

    monkeypatch.setattr(evaluation, "detect", nothing)
    monkeypatch.setattr(detection.Detector, "fit", lambda self, *args, **settings: self)
    with pytest.raises(Enough):
        detect(DetectOptions(copy, ("all",), adaptive=False))
    suited = [name for name in detection.DETECTORS if name not in detection.NEEDS]
    assert asked == [(suited, None)] and suited[0] == "confidence"
    message = refuse("detect", str(copy), "--detectors", "uncertainty:draws=3")
    assert "uncertainty:draws=3 needs a network trained with --dropout" in message


def configure(run, about):
    """Give a run another config.json, and its weights to that."""
    (run / "config.json").write_text(json.dumps(about))
    path = run / "weights.npz"
    models.save_weights(path, models.load_weights(path), about)


def test_dropout_is_left_on_and_an_autoencoder_trained(copy, fitted):
    assert "dropout" not in fitted("natural").model
    assert fitted("natural", "--dropout", "1/2").model["dropout"] == 0.5
    about = read(copy / "config.json")
    about["model"]["dropout"] = 0.25  # which changes no weight
    configure(copy, about)
    names = ["uncertainty:draws=3", "reconstruction:autoencoder.epochs=2"]
    words = ["--detectors", *names, "--attacks", "fgsm", "--no-adaptive"]
    cli.main(["detect", str(copy), *words, "--n", "64", "--fit", "64"])
    found = read(copy / "detection.json")
    assert found["detectors"][names[1]]["fields"]["autoencoder"]["fields"]["epochs"] == 2
    for name in names:
        assert found["found"][name]["fgsm"]["accepted_wrong"] > 0


def test_rectified_and_plain_rejection_side_by_side(run, tmp_path):
    out = tmp_path / "rr"
    flags = [*SMALL, "--eps", "1/10", "--inner.attack.steps", "1", "--validation-attack", "none"]
    cli.main(["train", "rr", "--out", str(out), *flags, "--init-from", str(run)])
    assert read(out / "config.json")["model"]["auxiliary"] is True
    words = ["--detectors", "confidence", "rectified", "--attacks", "fgsm"]
    cli.main(["detect", str(out), *words, "--n", "64", "--fit", "64", "--no-adaptive"])
    found = read(out / "detection.json")["found"]
    assert list(found) == ["confidence", "rectified"]
    assert found["confidence"]["fgsm"] != found["rectified"]["fgsm"]
    message = refuse("detect", str(run), "--detectors", "rectified")
    assert "rectified needs a network trained by rr or rr-trades" in message


def test_a_substitute_of_other_data_is_refused(copy):
    other = copy.parent / "other"
    shutil.copytree(copy, other)
    about = read(other / "config.json")
    about["data"]["name"] = "mnist"
    configure(other, about)
    message = refuse("detect", str(copy), "--substitute", str(other))
    assert "trained on different data: digits, mnist" in message


def test_an_unknown_detector_is_answered_with_the_known_ones(copy):
    message = refuse("detect", str(copy), "--detectors", "k-densty")
    assert "unknown detector 'k-densty'" in message and "k-density, mahalanobis" in message
    assert "unknown field of energy: 'k'" in refuse(
        "detect", str(copy), "--detectors", "energy:k=3"
    )


def test_an_interrupted_evaluation_goes_on_and_keeps_its_images(copy, monkeypatch):
    options = EvaluateOptions(copy, ("fgsm", "pgd-4"), n=64, curve="none", keep_images=True)

    def interrupted(*args, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(evaluation.report.Report, "__init__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate(options)
    assert len(list((copy / "evaluation").rglob("*.npz"))) == 2
    with monkeypatch.context() as context:
        context.setattr("robustjax.evaluation.journal.FileStore.save", interrupted)
        found = evaluate(options)  # nothing is crafted anew
    assert not (copy / "evaluation").exists()
    with np.load(copy / "adversarial.npz") as images:
        for name in ("fgsm", "pgd-4"):
            np.testing.assert_array_equal(images[name], found.adversarial[name])


def test_an_interrupted_curve_leaves_the_report(copy, monkeypatch):
    def interrupted(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "curve", interrupted)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["evaluate", str(copy), "--attacks", "fgsm", "--n", "64"])
    assert stopped.value.code == 130
    report = read(copy / "report.json")
    assert set(report["robust"]) == {"fgsm"} and report["curves"] == {}


def test_evaluations_of_one_run_are_joined(copy, monkeypatch, capsys):
    """A killed evaluation's snapshots survive another one; the table is there before the files."""
    words = ["evaluate", str(copy), "--n", "32", "--curve", "none", "--attacks"]

    def interrupted(*args, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(evaluation.report.Report, "__init__", interrupted)
        with pytest.raises(SystemExit):
            cli.main([*words, "pgd-2"])
    assert f"{copy}: stopped; the same command resumes" in capsys.readouterr().err
    cli.main([*words, "fgsm", "spatial"])
    assert "spatial: it has no threat, so it does not count" in capsys.readouterr().out
    with monkeypatch.context() as context:
        context.setattr("robustjax.evaluation.journal.FileStore.save", interrupted)
        cli.main([*words, "pgd-2"])  # from the snapshots
    report = read(copy / "report.json")
    assert report["worst_case_over"] == ["fgsm", "pgd-2"] and "spatial" in report["robust"]
    assert report["worst_case"] <= min(report["robust"][name] for name in ("fgsm", "pgd-2"))
    assert report["data"] == {"name": "digits", "split": "test"}
    assert not (copy / "evaluation").exists()
    capsys.readouterr()

    def full(*args):
        raise OSError("no space left")

    with monkeypatch.context() as context:
        context.setattr("robustjax.evaluation.record.write_json", full)
        assert "no space left" in refuse(*words, "fgsm", "--seed", "1")
    assert "worst case over fgsm, pgd-2" in (out := capsys.readouterr().out)
    assert "copy (seed 0)" in out and "copy: worst case over fgsm" in out


def test_a_set_that_the_model_was_not_trained_on(copy, tmp_path, capsys):
    test = data.load("digits", "test").head(20)
    np.save(tmp_path / "test_images.npy", 255 - test.images)
    np.save(tmp_path / "test_labels.npy", test.labels)
    other = ["--data", f"arrays:{tmp_path}", "--attacks", "fgsm", "--curve", "none"]
    cli.main(["evaluate", str(copy), *other, "--levels", "255"])
    report, out = read(copy / "report.json"), capsys.readouterr().out
    assert report["n"] == 20 and report["data"]["name"] == f"arrays:{tmp_path}"
    assert "has only 20 test images" in out and "rounding to 255 levels: fgsm " in out
    np.save(tmp_path / "test_labels.npy", test.labels + 1)
    assert "has 11 classes, the model of" in refuse("evaluate", str(copy), *other)
    np.save(tmp_path / "test_images.npy", test.images[:, :4])
    assert "takes (8, 8, 1)" in refuse("evaluate", str(copy), *other)


@pytest.mark.parametrize(
    ("command", "flags", "blocked", "message"),
    [
        ("evaluate", [], "report.json", "cannot write"),
        ("evaluate", ["--curve", "spatial"], None, "--curve spatial: a curve needs an attack with"),
        ("evaluate", ["--seed", str(2**32)], None, "--seed must be a whole number in"),
        ("evaluate", ["--levels", "0"], None, "--levels must lie in"),
        ("detect", [], "detection.json", "cannot write"),
        ("transfer", ["--out", "{run}/out.json"], "out.json", "cannot write"),
        (
            "pseudo-label",
            ["--out", "{run}/config.json", "--data", "arrays:{run}"],
            None,
            "cannot write",
        ),
    ],
)
def test_what_would_fail_at_the_end_fails_at_once(
    copy, monkeypatch, command, flags, blocked, message
):
    for name in ("evaluate", "detect", "transfer"):
        monkeypatch.setattr(evaluation, name, None)
    pool = {"images": np.zeros((2, 8, 8, 1), np.uint8)}
    monkeypatch.setattr(data, "open_pool", lambda name: pool)
    if blocked:
        (copy / blocked).unlink(missing_ok=True)
        (copy / blocked).mkdir()
    runs = [str(copy)]
    if command == "transfer":
        shutil.copytree(copy, copy.parent / "other")
        runs.append(str(copy.parent / "other"))
    flags = [flag.format(run=copy) for flag in flags]
    assert message in refuse(command, *runs, *flags)


@pytest.mark.parametrize(("channels", "drawn"), [(1, True), (2, False), (3, True), (4, False)])
def test_only_images_that_can_be_shown_are_drawn(tmp_path, channels, drawn):
    images, label = np.zeros((3, 4, 4, channels), np.float32), np.array([0, 1, 1])
    table = {"label": label, "prediction": label}
    table["fgsm"] = {"fooled": label == 1, "prediction": np.array([0, 0, -1])}
    found = SimpleNamespace(examples=table, adversarial={"fgsm": images})
    draw_examples(found, images, ["zero", "one"], tmp_path / "examples.png")
    assert (tmp_path / "examples.png").exists() == drawn


def first_pixels(images):
    """Ten logits that compile quickly."""
    return images.reshape(len(images), -1)[:, :10]


def test_quickstart_twice_at_small_size(tmp_path, monkeypatch, capsys):
    """The second time nothing is trained; all rows of the table are under the same attacks."""
    module = sys.modules["robustjax.cli.quickstart"]
    monkeypatch.setattr(module, "TrainOptions", functools.partial(TrainOptions, width=2))

    def fewer(run, named, **how):
        """Of the attacks the first, on few images."""
        assert all(attacks.parse(name, Linf(0.1)) for name in named)
        return EvaluateOptions(run, named[:1], curve="none", n=16, **how)

    def quick(run, *args, load=models.load, **settings):
        """Any network will do: what counts is what the config says."""
        return first_pixels, first_pixels, load(run)[2]

    monkeypatch.setattr(models, "load", quick)
    monkeypatch.setattr(module, "EvaluateOptions", fewer)
    monkeypatch.setitem(training.METHODS, "pgd-at", training.PGDAT(attacks.PGD(steps=2)))
    for _ in range(2):
        quickstart(QuickstartOptions(tmp_path / "q", epochs=1))
        text = capsys.readouterr().out
        assert "examples.png" in text
        table = text[text.rindex("run ") :].splitlines()
        assert [line.split()[0] for line in table[2:5]] == ["natural", "mmc", "pgd-at"]
        assert [line.count("Linf 0.2 ") for line in table[2:5]] == [1, 1, 1]
    for name in ("natural", "mmc", "pgd-at"):
        threat = config.encode(Linf(0.2))
        assert read(tmp_path / "q" / name / "config.json")["threat"] == threat
        report = read(tmp_path / "q" / name / "report.json")
        assert report["threat"] == threat and np.isfinite(report["worst_case"])


# ---- errors and help


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["evaluate", "nowhere"], "not a run directory"),
        (["evaluate", "nowhere", "--n", "-5"], "--n must lie in [1, 2147483647], got -5"),
        (
            ["evaluate", "nowhere", "--batch-size", "0"],
            "--batch-size must lie in [1, 2147483647], got 0",
        ),
        (["detect", "nowhere"], "not a run directory"),
        (["detect", "nowhere", "--fit", "0"], "--fit must lie in [1, 2147483647], got 0"),
        (["train", "pgd-at", "--out", "o", "--data", "mnist", "--data-dir", "d"], "data prepare"),
        (["train", "pgd-at", "--out", "o", "--model", "vgg"], "unknown model 'vgg'"),
        (["train", "pgd-at", "--out", "o", "--augment", "crops"], "known: auto, none, crop"),
        (["train", "pgd-at", "--out", "o", "--batch-size", "30"], "multiple of"),
        (["train", "pgd-at", "--out", "o", "--validation-attack", "pdg"], "unknown attack 'pdg'"),
        (["train", "pgd-at", "--out", "o", "--awp-start", "1/2"], "--awp-start needs --awp"),
        (["train", "trades", "--out", "o", "--beta", "-1"], "beta must lie in"),
        (["report"], "name the run directories"),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    assert message in refuse(*args)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError("threat"), "KeyError: 'threat' (--debug shows where)"),
        (TypeError("no\nnumber"), "TypeError: no (--debug shows where)"),
        (RuntimeError("out of memory"), "RuntimeError: out of memory (--debug shows where)"),
        (ValueError(), "ValueError (--debug shows where)"),
        (ValueError("eps is\nnegative"), "eps is"),
    ],
)
def test_whatever_happens_is_one_line(monkeypatch, error, line):
    def fail(data_dir):
        raise error

    monkeypatch.setattr(data, "available", fail)
    assert refuse("data", "list") == f"robustjax: {line}"
    with pytest.raises(type(error)):
        cli.main(["data", "list", "--debug"])


def test_data_list(capsys):
    cli.main(["data", "list"])
    assert "digits" in capsys.readouterr().out


def test_data_show(capsys, tmp_path):
    png = tmp_path / "grid.png"
    cli.main(["data", "show", "digits", "--split", "test", "--out", str(png)])
    out, test = capsys.readouterr().out, data.load("digits", "test")
    assert "digits (test): 359 images of 8x8x1" in out and "pixels 0 to 255 of 255; mean 0.3" in out
    lines = [line.split() for line in out.splitlines()]
    for name, count in enumerate(np.bincount(test.labels)):
        assert [str(name), str(count), f"{count / 359:.1%}"] in lines
    assert png.stat().st_size > 1000 and f"each class: {png}" in out
    assert "choose one of train" in refuse("data", "show", "digits", "--split", "val")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_commands_help_begins_as_the_list_of_commands_says(name, capsys):
    with contextlib.suppress(SystemExit):
        cli.main([name, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith(f"usage: robustjax {name}")
    if name != "data":  # one line stands for three commands
        assert cli.COMMANDS[name] in text


def test_help_names_the_flags(capsys):
    cli.main(["--help"])
    text = capsys.readouterr().out
    assert all(
        name in text for name in (*cli.COMMANDS, "--import", "--quiet", "--debug", "--version")
    )
    cli.main(["train", "--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in training.METHODS)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "trades", "--help-all"])
    assert not stopped.value.code
    flat = " ".join(capsys.readouterr().out.split())
    for part in (
        "--beta",
        "--attack.steps",
        "(default: piecewise)",
        "(default: gaussian)",
        "--eps",
    ):
        assert part in flat
    assert not [part for part in ("threat.eps", "Attributes:", ">>>") if part in flat]


def test_what_attacks_share_is_documented_in_each(capsys):
    for name in ("evaluate", "detect", "transfer"):
        with pytest.raises(SystemExit):
            cli.main([name, "--help"])
        text = capsys.readouterr().out
        assert "--batch-size" in text and "chosen for" in text and "pixels in" in text


def test_help_is_quick():
    """Processor time, in units of what the imports of JAX, Flax and optax take on this machine."""
    lines = ["--help", "trian", *(f"{name} --help" for name in cli.COMMANDS), "train trades --help"]

    def printed(*words):
        call = [sys.executable, *words]
        environment = os.environ | {"XLA_FLAGS": ""}
        return json.loads(
            subprocess.run(call, capture_output=True, check=True, env=environment).stdout
        )

    imports = "import time, flax.linen, jax, optax; print(time.process_time())"
    unit = min(printed("-c", imports) for _ in range(2))
    seconds = printed(pathlib.Path(__file__).with_name("help_seconds.py"), *lines)
    used = dict(zip(lines, (one / unit for one in seconds), strict=True))
    assert {line: units for line, units in used.items() if units >= 2} == {}


def test_the_version(capsys):
    cli.main(["--version"])
    assert capsys.readouterr().out.startswith("robustjax 0.")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "a command is missing; known: quickstart, train"),
        (["trian"], "unknown command 'trian'; did you mean train? known: quickstart, train"),
        (["train", "tradse", "--out", "o"], "unknown method 'tradse'; did you mean trades?"),
        (["train"], "unknown method ''"),
        (["attacks", "pgdd"], "unknown attack 'pgdd'; did you mean pgd?"),
        (["detectors", "lad"], "unknown detector 'lad'; did you mean lid?"),
        (["methods", "tradse"], "unknown method 'tradse'; did you mean trades?"),
        (["--import", "my_packag", "data", "list"], "no module 'my_packag' is installed"),
        (["data", "list", "--import"], "--import needs the name of a module"),
        (["evaluate", "--import", "half_broken"], "--import half_broken: No module named 'gone'"),
    ],
)
def test_what_is_mistyped_is_named(words, message, tmp_path, monkeypatch):
    (tmp_path / "half_broken.py").write_text("import gone")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert message in refuse(*words)


@pytest.mark.usefixtures("my_package")
def test_a_module_of_ones_own_is_known_by_name(capsys, fitted):
    cli.main(["attacks", "--import", "my_package"])
    assert "my-attack" in capsys.readouterr().out
    cli.main(["--import=my_package", "detectors", "my-detector"])
    assert "temperature=2" in capsys.readouterr().out
    words = ["my-method", "--validation-attack", "my-attack:start=my-start"]
    asked = fitted(*words, "--import", "my_package")
    assert asked.method == training.TRADES(beta=1.5)
    assert asked.validation_attack.start == attacks.starts.Gaussian(0.25)


def test_listings(capsys):
    cli.main(["attacks"])
    text = capsys.readouterr().out
    assert all(name in text for name in attacks.names()) and "Madry et al. 2018" in text
    cli.main(["attacks", "pgd", "jsma"])
    lines = capsys.readouterr().out.splitlines()
    assert {"  step_size=none", "  start=uniform", "  start.scale=1", "jsma, Papernot"} <= {
        line.partition(" et al.")[0] for line in lines
    }
    cli.main(["detectors", "--markdown"])
    assert "| lid " in capsys.readouterr().out
    cli.main(["models"])
    assert "resnet-18" in capsys.readouterr().out


def test_a_stopped_training_says_how_to_resume(monkeypatch, tmp_path, capsys):
    def stopped(*args, **settings):
        raise error

    monkeypatch.setattr(training, "fit", stopped)
    errors = training.Terminated(143, "run: stopped at step 3 of 8 and saved"), KeyboardInterrupt()
    words = ["--import", "math", "train", "natural", "--out", str(tmp_path / "my run")]
    command = f"robustjax --import math train natural --out '{tmp_path}/my run' --resume"
    for error in errors:
        with pytest.raises(SystemExit) as end:
            cli.main(words)
        assert end.value.code == (143 if str(error) else 130)
        what = str(error) or f"{tmp_path}/my run: stopped before it was saved"
        assert capsys.readouterr().err == f"robustjax: {what}; resume: {command}\n"


# ---- documentation


ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [path.read_text() for path in (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))]
LINES = [
    line.partition(" #")[0]
    for page in PAGES
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", page.replace("\\\n", ""), re.M | re.S)
    for line in block.splitlines() * (not kind)
    if line.startswith("robustjax ") and "..." not in line
]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.usefixtures("my_package")
def test_documented_commands_are_understood(line, monkeypatch):
    """Flags, attacks, detectors and threats; nothing is trained or read."""
    asked = []
    for name in ("quickstart", "train", "evaluate", "detect", "transfer", "pseudo_label", "report"):
        module = importlib.import_module(f"robustjax.cli.{name}")
        monkeypatch.setattr(module, name, lambda *options: asked.append(options[-1]))
    monkeypatch.setattr(data, "prepare", lambda *names: asked.append(names))
    monkeypatch.setattr("robustjax.cli.data.ShowOptions.run", lambda self: asked.append(self))
    monkeypatch.setattr("robustjax.cli.plan.plan", lambda *options: asked.append(options[-1]))
    monkeypatch.setattr("robustjax.cli.sweep.command", asked.append)  # its file is not there
    with contextlib.suppress(SystemExit):
        cli.main(shlex.split(line)[1:])
    listed = line.split()[1] in ("methods", "attacks", "detectors", "models") or "data list" in line
    assert listed or "--help" in line or len(asked) == 1
    for options in asked:
        norm = choose_threat(getattr(options, "threat", None), None, Linf(0.1))
        for name in getattr(options, "attacks", ()):
            attacks.parse(name, norm)
        for name in getattr(options, "detectors", ()):
            detection.parse(name)
        if name := getattr(options, "validation_attack", None):
            attacks.parse(name, norm)


def test_documented_names_are_all_that_there_are():
    tables = {names.kind: names for names in (*spec.KINDS.values(), data.AUGMENTATIONS, THREATS)}
    rows = re.findall(
        r"^\| ([a-z ]+) \| (`.*`) \|$", (DOCS / "reference" / "mini_language.md").read_text(), re.M
    )
    assert {kind: text.strip("`").split("` `") for kind, text in rows} == {
        kind: list(names) for kind, names in tables.items()
    }


def test_a_warning_is_one_line(monkeypatch, capsys):
    def command(words):
        print(warnings.formatwarning("so it is", UserWarning, "train.py", 3), end="")

    monkeypatch.setattr("robustjax.cli.methods.command", command)
    usual = warnings.formatwarning
    cli.main(["methods"])
    assert capsys.readouterr().out == "warning: so it is\n"
    assert warnings.formatwarning is usual


def test_wrong_lines_end_in_one_line(run, tmp_path, monkeypatch):
    """60 of the generated ones, but those that name a folder for results after a compilation."""
    monkeypatch.chdir(tmp_path)
    paths = wrong_lines.places(tmp_path, run)
    lines = [line for line in wrong_lines.lines(seed=0, count=80) if "quickstart" not in line]
    found = [(*wrong_lines.outcome(line, paths), line) for line in lines[:60]]
    assert [entry for entry in found if entry[0] != "refused"] == []
