"""The command line, in process; test_loop.py and the README's commands run it for real."""

import json
import subprocess
import sys

import numpy as np
import pytest

from robustjax import cli
from robustjax.threats import L2, Linf


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A model trained from the command line on bundled digits."""
    out = tmp_path_factory.mktemp("cli") / "run"
    small = ["--width", "4", "--epochs", "2", "--batch-size", "64", "--lr", "1/20"]
    attack = ["--attack.steps", "2", "--eps", "1/10", "--validation-attack", "pgd-2"]
    cli.main(["train", "pgd-at", "--out", str(out), *small, *attack])
    return out


def refuse(capsys, *args):
    """Run a command that must end in one line of error; that line."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(args))
    message = str(stopped.value)
    assert message.startswith("robustjax: ") and "\n" not in message
    return message


def test_train_evaluate_report(run, capsys):
    cli.main(
        ["evaluate", str(run), "--attacks", "fgsm", "pgd-4x2", "--n", "64", "--curve", "pgd-2"]
    )
    report = json.loads((run / "report.json").read_text())
    assert report["n"] == 64 and report["threat"] == {"type": "Linf", "fields": {"eps": 0.1}}
    assert report["worst_case"] <= min(report["robust"].values()) <= report["clean"]
    assert report["curve"]["eps"][4] == pytest.approx(0.1)
    assert {"command", "commit", "device", "versions", "seed", "wall_time_s"} <= set(
        report["provenance"]
    )
    for name in ("training", "examples", "accuracy_over_eps"):
        assert (run / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    cli.main(["report", str(run), "--markdown"])
    table = capsys.readouterr().out
    assert "pgd-4x2" in table and "PGDAT" in table and f"{100 * report['clean']:.1f}" in table


def test_flags_reach_the_config(run):
    config = json.loads((run / "config.json").read_text())
    assert config["method"]["fields"]["attack"]["fields"]["threat"]["fields"]["eps"] == 0.1
    assert config["recipe"]["fields"]["lr"] == 0.05
    assert config["model"]["mean"] and config["model"]["std"]


def test_evaluate_against_another_threat(run):
    found = cli.evaluate(
        cli.Evaluation(run, ("fgsm",), threat="l2", eps=0.5, n=32, curve="none", weights="last")
    )
    assert found.attacks["fgsm"]["fields"]["threat"] == {"type": "L2", "fields": {"eps": 0.5}}


@pytest.mark.parametrize(
    ("norm", "eps", "want"),
    [(None, None, Linf(0.1)), (None, 0.2, Linf(0.2)), ("l2", None, L2()), ("l2", 2.0, L2(2.0))],
)
def test_threats_fall_back(norm, eps, want):
    assert cli.choose_threat(norm, eps, Linf(0.1)) == want


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["evaluate", "nowhere"], "no run directory"),
        (["train", "pgd-at", "--out", "o", "--data", "mnist", "--data-dir", "d"], "data prepare"),
        (["train", "pgd-at", "--out", "o", "--model", "vgg"], "unknown model 'vgg'"),
        (["train", "pgd-at", "--out", "o", "--batch-size", "30"], "multiple of"),
        (["train", "pgd-at", "--out", "o", "--validation-attack", "cw"], "unknown attack 'cw'"),
        (["train", "trades", "--out", "o", "--beta", "-1"], "beta must lie in"),
        (["report"], "name the run directories"),
    ],
)
def test_errors_are_one_line(capsys, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    assert message in refuse(capsys, *args)
    assert not (tmp_path / "o").exists()


def test_debug_shows_the_traceback():
    with pytest.raises(FileNotFoundError):
        cli.main(["evaluate", "nowhere", "--debug"])


def test_awp_wraps_any_method(tmp_path):
    options = cli.Options(tmp_path / "run", width=2, awp=0.01, eps=0.1, validation_attack="none")
    recipe = cli.Recipe(epochs=1, batch_size=256, lr=0.01)
    method = cli.METHODS["pgd-at"]
    cli.train(method, recipe, options)
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["method"]["type"] == "AWP"
    assert config["method"]["fields"]["inner"]["type"] == "PGDAT"


def test_data_list(capsys):
    cli.main(["data", "list"])
    assert "digits" in capsys.readouterr().out


@pytest.mark.parametrize("command", [[], ["train", "trades"], ["evaluate"], ["data", "prepare"]])
def test_help_names_the_flags(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*command, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    wanted = {0: "quickstart", 1: "--attacks", 2: "--beta" if "trades" in command else "--data-dir"}
    assert wanted[len(command)] in text
    if "trades" in command:
        assert "--attack.steps" in text and "default: piecewise" in text
        assert "threat.eps" not in text


def test_the_module_is_a_program():
    out = subprocess.run(
        [sys.executable, "-m", "robustjax.cli", "data", "list"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "digits" in out.stdout


def test_quickstart_at_small_size(tmp_path, capsys):
    cli.quickstart(tmp_path / "q", epochs=1)
    text = capsys.readouterr().out
    assert "natural" in text and "pgd-at" in text and "examples.png" in text
    report = json.loads((tmp_path / "q/pgd-at/report.json").read_text())
    assert np.isfinite(report["worst_case"])
