"""Runs of an older version are still read; golden/make_old_runs.py says which commit left them."""

import functools
import pathlib
import shutil

import jax
import numpy as np
import pytest

from robustjax import cli, files, models

GOLDEN = pathlib.Path(__file__).parent / "golden"
RUNS = sorted(path.name for path in (GOLDEN / "runs").iterdir())


@pytest.fixture
def run(tmp_path, request):
    """A run that may be written to."""
    return shutil.copytree(GOLDEN / "runs" / request.param, tmp_path / request.param)


@pytest.mark.parametrize("name", RUNS)
def test_an_old_run_gives_its_logits(name):
    golden = np.load(GOLDEN / "old_runs.npz")
    logits_fn, features_fn, config = models.load(GOLDEN / "runs" / name)
    images = np.float32(golden["images"]) / 255
    logits, features = jax.jit(lambda x: (logits_fn(x), features_fn(x)))(images)
    np.testing.assert_allclose(logits, golden[name], rtol=1e-5, atol=1e-5)
    assert features.shape[0] == len(images) and config["data"]["name"] == "digits"


def linear(run, *args, load, **settings):
    """An old run with logits that compile quickly in place of its network's."""
    _, _, config = load(run)
    weights = np.eye(np.prod(config["image_shape"]), 10, dtype=np.float32)
    logits_fn = jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w, weights)
    return logits_fn, logits_fn, config


@pytest.mark.parametrize("run", RUNS, indirect=True)
def test_an_old_run_is_evaluated_reported_and_detected(run, capsys, monkeypatch):
    """The diagnostics of an evaluation, programs of their own, need what the config says."""
    few = ["--n", "16", "--batch-size", "16", "--no-adaptive"]
    with monkeypatch.context() as context:
        context.setattr(models, "load", functools.partial(linear, load=models.load))
        cli.main(["evaluate", str(run), "--attacks", "fgsm", "--curve", "none", *few])
    assert files.read_json(run / "report.json")["n"] == 16
    cli.main(["report", str(run)])
    assert run.name in capsys.readouterr().out
    words = ["--detectors", "confidence", "--attacks", "fgsm"]
    cli.main(["detect", str(run), *words, "--fit", "16", *few])
    assert files.read_json(run / "detection.json")["found"].keys() == {"confidence"}
