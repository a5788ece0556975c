"""The host loop on bundled digits: interrupted, resumed, refused, stopped."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import pytest
import tiny

from robustjax import data, files, models
from robustjax.attacks import PGD
from robustjax.config import config
from robustjax.models.weights import DIGEST
from robustjax.threats import Linf
from robustjax.training import (
    PGDAT,
    TRADES,
    Natural,
    Optimizer,
    Recipe,
    Terminated,
    fit,
    rows,
    spans,
)
from robustjax.training.rows import write_metrics
from robustjax.training.run import fine_tuned
from robustjax.training.schedules import Constant, Interpolated
from robustjax.training.step import make_step
from robustjax.writing import locked

POOL = data.load("digits", "test").head(100)
RUN = ["train", "pgd-at", "--width", "4", "--epochs", "4", "--batch-size", "64", "--seed", "3"]
RUN += ["--attack.steps", "4", "--lr", "0.05", "--checkpoint-every", "3", "--schedule", "cosine"]
RUN += ["--validation-attack", "pgd-2", "--ema", "0.9", "--cutmix", "--extra-fraction", "1/4"]


def command(out, *more):
    pool = f"arrays:{out.parent / 'pool.npz'}"
    if not (out.parent / "pool.npz").exists():
        targets = np.full((len(POOL), 10), 0.05) + 0.5 * np.eye(10)[POOL.labels]
        np.savez(out.parent / "pool.npz", images=POOL.images, targets=targets)
    flags = ["--extra", pool, "--out", str(out), *more]
    return [sys.executable, "-m", "robustjax", *RUN, *flags]


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A run that nobody interrupts."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    subprocess.run(command(out), check=True, env=environment(), capture_output=True, timeout=300)
    return out


PROGRAMS = tempfile.TemporaryDirectory()
"""Where the processes that train the same network share what they compiled."""


def environment():
    return os.environ | {
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_COMPILATION_CACHE_DIR": PROGRAMS.name,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def newest(out):
    """The step of a run's newest checkpoint, 0 without any."""
    names = [p.name for p in (out / "checkpoints" / "last").glob("[0-9]*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def interrupt(out, number, seconds, *more):
    """Start a run and send a signal, `seconds` after its first checkpoint; its exit status."""
    before = newest(out)
    process = subprocess.Popen(
        command(out, *more), env=environment(), stderr=subprocess.PIPE, text=True
    )
    deadline = time.time() + 240
    while newest(out) == before:
        assert process.poll() is None and time.time() < deadline, process.stderr.read()
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(number)
    _, errors = process.communicate(timeout=240)
    return process.returncode, errors


def weights(out):
    """The last and the best; their config.json names the folder of the pool."""
    found = [dict(np.load(out / f"{name}.npz")) for name in ("weights_last", "weights")]
    assert all(arrays.pop(DIGEST).size == 32 for arrays in found)
    return found


def validation_rows(out):
    return [r for r in files.read_metrics(out / "metrics.jsonl") if r["split"] == "validation"]


def test_a_killed_run_resumes_bit_for_bit(whole, tmp_path):
    out = tmp_path / "run"
    seconds = np.random.default_rng().uniform(0, 0.2)
    status, _ = interrupt(out, signal.SIGKILL, seconds)
    assert status == -signal.SIGKILL
    status, errors = interrupt(out, signal.SIGTERM, 0, "--resume")
    line = errors.strip().splitlines()[-1]
    assert status == 143 and "Traceback" not in errors
    assert f"; resume: robustjax train pgd-at --width 4 {' '.join(RUN[4:])}" in line
    assert line.endswith(f"--out {out} --resume")
    subprocess.run(
        command(out, "--resume"), check=True, env=environment(), capture_output=True, timeout=300
    )
    for ours, theirs in zip(weights(out), weights(whole), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=f"{name}, {seconds}")
    for ours, theirs in zip(validation_rows(out), validation_rows(whole), strict=True):
        assert ours | {"seconds": theirs["seconds"]} == theirs


def test_a_run_leaves_what_it_promises(whole):
    assert [r["epoch"] for r in validation_rows(whole)] == [1.0, 2.0, 3.0, 4.0]
    rows = files.read_metrics(whole / "metrics.jsonl")
    assert {"loss", "lr", "robust_accuracy"} <= set(rows[0])
    assert 0 < rows[0]["seconds"] <= rows[-1]["seconds"]
    assert (whole / "training.png").stat().st_size > 1000
    logits_fn, features_fn, config = models.load(whole)
    x = np.zeros((2, *config["image_shape"]), np.float32)
    assert logits_fn(x).shape == (2, 10) and features_fn(x).ndim == 2
    assert config["method"]["type"] == "PGDAT" and config["seed"] == 3
    assert config["extra"]["size"] == len(POOL) and config["init_from"] is None


@pytest.fixture(scope="session")
def digits():
    return data.load("digits", "train").head(256), data.load("digits", "validation").head(64)


MODEL = {"name": "cnn", "width": 4}
RECIPE = Recipe(epochs=1, batch_size=64, lr=0.05, augment=data.Augment(pad=0, flip=False))


def replace(**changes):
    return Recipe(**{f: getattr(RECIPE, f) for f in RECIPE.__dataclass_fields__} | changes)


def test_a_loss_that_is_not_finite_stops_the_run(digits, tmp_path):
    fit(Natural(), *digits, model=MODEL, out=tmp_path / "good", recipe=RECIPE, progress=False)
    with pytest.raises(FloatingPointError, match="not finite at step 2"):
        fit(
            Natural(),
            *digits,
            model=MODEL,
            out=tmp_path / "bad",
            recipe=replace(lr=1e38, epochs=2),
            checkpoint_every=1,
            progress=False,
        )
    kept = [p.name for p in (tmp_path / "bad/checkpoints/last").glob("[0-9]*")]
    assert kept == ["1"]


def test_runs_that_differ_in_numbers_share_a_program(digits, tmp_path, monkeypatch):
    traced = []

    def counted(*args):
        traced.append(args)
        return make_step(*args)

    monkeypatch.setattr(spans, "make_step", counted)
    slow = replace(schedule=Interpolated(), ema=0.9)
    fast = dataclasses.replace(
        slow,
        lr=0.02,
        lr_warmup=0.5,
        eps_warmup=0.5,
        label_smoothing=0.1,
        ema=0.5,
        schedule=Interpolated(values=(0.5, 0.5, 0.5, 0.5)),
        optimizer=Optimizer(weight_decay=1e-3, momentum=0.5),
    )
    given = {"model": {"name": "cnn", "width": 3}, "progress": False}
    for seed, (recipe, attack) in enumerate([(slow, PGD(steps=1)), (fast, PGD(Linf(0.1), 2))]):
        fit(PGDAT(attack), *digits, out=tmp_path / str(seed), recipe=recipe, seed=seed, **given)
    assert len(traced) == 1


def test_folders_and_checkpoints_are_not_mixed_up(digits, tmp_path):
    out = tmp_path / "run"
    first = fit(Natural(), *digits, model=MODEL, out=out, recipe=RECIPE, progress=False)
    assert 0 <= first.best <= 1 and int(first.state.step) == 4
    with pytest.raises(ValueError, match="holds a run already"):
        fit(Natural(), *digits, model=MODEL, out=out, recipe=RECIPE)
    with pytest.raises(ValueError, match="its seed is 0, not 1"):
        fit(Natural(), *digits, model=MODEL, out=out, recipe=RECIPE, seed=1, resume=True)
    for name, other in (("extra", digits[1]), ("init_from", out)):
        with pytest.raises(ValueError, match=f"its {name} is None, not"):
            fit(
                Natural(),
                *digits,
                model=MODEL,
                out=out,
                recipe=RECIPE,
                resume=True,
                **{name: other},
            )
    with pytest.raises(ValueError, match="its method"):
        fit(TRADES(), *digits, model=MODEL, out=out, recipe=RECIPE, resume=True)
    kept = (out / "weights.npz").read_bytes()
    (out / "weights.npz").write_bytes(b"torn")
    (out / "config.json").unlink()
    again = fit(Natural(), *digits, model=MODEL, out=out, recipe=RECIPE, resume=True)
    assert again.best == first.best and (first.start, again.start) == (0, 4)
    assert (out / "weights.npz").read_bytes() == kept
    assert models.load(out)[2]["seed"] == 0
    other = dataclasses.replace(digits[0], labels=np.roll(digits[0].labels, 1))
    given = {"model": MODEL, "out": out, "recipe": RECIPE, "resume": True}
    with pytest.raises(ValueError, match=r"its data\.content_sha256 is"):
        fit(Natural(), other, digits[1], **given)
    with pytest.raises(ValueError, match=r"its data\.validation_sha256 is"):
        fit(Natural(), digits[0], other.head(64), **given)
    with locked(out, "a run"), pytest.raises(ValueError, match="another process is writing to"):
        fit(Natural(), *digits, **given)
    tuned = {"model": MODEL, "out": tmp_path / "tuned", "recipe": RECIPE, "init_from": out}
    fit(Natural(), *digits, **tuned, progress=False)
    (out / "weights.npz").unlink()  # what the run began from is in its checkpoints
    assert fit(Natural(), *digits, **tuned, resume=True, progress=False).start == 4


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (replace(batch_size=62), "multiple of devices"),
        (replace(batch_size=512), "batch size must lie in"),
        (replace(accumulate=3), "multiple of devices x accumulate"),
    ],
)
def test_sizes_must_fit(digits, tmp_path, recipe, message):
    with pytest.raises(ValueError, match=message):
        fit(PGDAT(), *digits, model=MODEL, out=tmp_path / "run", recipe=recipe)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True])
def test_a_seed_that_jax_would_change_is_refused(digits, tmp_path, seed):
    with pytest.raises(ValueError, match=r"seed must be a whole number in \[0, 4294967295\]"):
        fit(PGDAT(), *digits, model=MODEL, out=tmp_path / "run", recipe=RECIPE, seed=seed)


def test_validation_chooses_by_its_attack(digits, tmp_path):
    result = fit(
        PGDAT(PGD(Linf(0.1), steps=1)),
        *digits,
        model=MODEL,
        out=tmp_path / "run",
        recipe=RECIPE,
        validation_attack=PGD(Linf(0.1), steps=2),
        progress=False,
    )
    (row,) = validation_rows(result.folder)
    assert result.best == row["robust_accuracy"] <= row["accuracy"]


def test_a_run_begins_with_the_body_of_another_and_a_head_of_its_own(tmp_path):
    state, data_ = tiny.fresh(Natural()), tiny.examples()
    theirs = tiny.create_state(
        tiny.module(), Natural(), tiny.RECIPE, jax.random.key(7), *list(data_.values())[:2], 4, 1
    )
    models.save_weights(tmp_path / "weights.npz", {"params": theirs.params, **theirs.stats})
    new = fine_tuned(state, tmp_path)
    for part in ("stem", "body"):
        for a, b in zip(*(jax.tree.leaves(s.params[part]) for s in (new, theirs)), strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(new.params["head"]["kernel"], state.params["head"]["kernel"])
    for a, b in zip(*map(jax.tree.leaves, (new.ema, new.params)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert jax.tree.structure(new) == jax.tree.structure(state)


def once(monkeypatch, step, action):
    """Do something when a step is logged, before the next one; with log_every=1."""

    def logged(out, row):
        write_metrics(out, row)
        if row["step"] == step:
            action()

    monkeypatch.setattr(spans, "SECONDS", 0)
    monkeypatch.setattr(rows, "write_metrics", logged)


def die():
    raise RuntimeError("killed")


LONGER = replace(epochs=2, schedule=Constant())


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_stop_a_run_that_is_saved(digits, tmp_path, name, monkeypatch):
    number, out = getattr(signal, name), tmp_path / "run"
    kind = KeyboardInterrupt if name == "SIGINT" else Terminated
    once(monkeypatch, 5, lambda: os.kill(os.getpid(), number))
    given = {"model": MODEL, "out": out, "recipe": LONGER, "log_every": 1, "progress": False}
    with pytest.raises(kind, match=r"run: stopped at step 5 of 8 and saved") as stopped:
        fit(Natural(), *digits, **given)
    assert getattr(stopped.value, "code", 130) == 128 + number
    assert max(int(p.name) for p in (out / "checkpoints/last").glob("[0-9]*")) == 5
    assert not (out / "weights_last.npz").exists()


def test_a_run_is_extended(digits, tmp_path):
    """With nothing that depends on its length, bit for bit as if it had been that long."""
    given = {"model": MODEL, "progress": False}
    recipes = [replace(schedule=Constant()), LONGER]
    whole = fit(Natural(), *digits, **given, out=tmp_path / "whole", recipe=recipes[1])
    given |= {"out": tmp_path / "run", "resume": True}
    fit(Natural(), *digits, **given, recipe=recipes[0])
    with pytest.warns(UserWarning, match="of 1 epochs is extended to 2: fractions of training"):
        result = fit(Natural(), *digits, **given, recipe=recipes[1])
    assert (result.start, int(result.state.step), result.best) == (4, 8, whole.best)
    for ours, theirs in zip(*map(weights, (result.folder, whole.folder)), strict=True):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert models.load(result.folder)[2]["extended"] == [{"epochs": 1, "until_step": 4}]
    assert fit(Natural(), *digits, **given, recipe=recipes[1]).start == 8
    with pytest.raises(ValueError, match=r"its recipe\.epochs is 2, not 1"):
        fit(Natural(), *digits, **given, recipe=recipes[0])


def test_an_extension_that_is_killed_has_weights_of_its_config(digits, tmp_path, monkeypatch):
    """The weights of the shorter run are those of the longer one until it has better ones."""
    given = {"model": MODEL, "out": tmp_path / "run", "resume": True, "progress": False}
    fit(Natural(), *digits, **given, recipe=replace(schedule=Constant()))
    once(monkeypatch, 5, die)
    with (
        pytest.warns(UserWarning, match="is extended"),
        pytest.raises(RuntimeError, match="killed"),
    ):
        fit(Natural(), *digits, **given, recipe=LONGER, log_every=1)
    for kind in ("best", "last"):
        assert models.load(tmp_path / "run", kind)[2]["recipe"]["fields"]["epochs"] == 2


def test_lost_parts_of_a_complete_run(digits, tmp_path):
    """They are written again from what is there; what cannot be is an error that says so."""
    out = tmp_path / "run"
    given = {"model": MODEL, "out": out, "recipe": RECIPE, "resume": True, "progress": False}
    fit(Natural(), *digits, **given)
    whole = {name: (out / name).read_bytes() for name in ("config.json", "weights.npz")}

    def lose(name):
        shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink()

    for name in whole:
        lose(name)
        fit(Natural(), *digits, **given)
        assert (out / name).read_bytes() == whole[name]
    lose("metrics.jsonl")
    fit(Natural(), *digits, **given)
    lose("checkpoints/best")
    fit(Natural(), *digits, **given)  # weights.npz is intact
    lose("weights.npz")
    with pytest.raises(ValueError, match=r"best holds no checkpoint, and there are no weights at"):
        fit(Natural(), *digits, **given)
    (out / "metrics.jsonl").touch()
    lose("checkpoints")
    with pytest.warns(UserWarning, match="holds no checkpoint: the run starts over"):
        fit(Natural(), *digits, **given)
    assert (out / "weights.npz").read_bytes() == whole["weights.npz"]


@config
class Scripted(Natural):
    """Goes back after the second epoch, and ends after the third of four."""

    def control(self, scores):
        return self, {2: "rollback", 3: "stop"}.get(len(scores), "continue")


def test_a_method_goes_back_to_the_best_and_ends_when_it_says_so(digits, tmp_path):
    """The second epoch climbs and spoils the weights, the third keeps what it is given."""
    spoil = Interpolated((0.0, 0.25, 0.26, 0.5, 0.51, 1.0), (1.0, 1.0, -1.0, -1.0, 0.0, 0.0))
    recipe = replace(epochs=4, lr=0.3, schedule=spoil)
    given = {"model": MODEL, "out": tmp_path / "run", "recipe": recipe, "progress": False}
    result = fit(Scripted(), *digits, **given)
    first, second, third = (row["accuracy"] for row in validation_rows(tmp_path / "run"))
    assert first == third == result.best and second < first
    assert int(result.state.step) == 12
    again = fit(Scripted(), *digits, **given, resume=True)
    assert (again.start, again.best) == (12, result.best)
    for a, b in zip(*(jax.tree.leaves(r.state.params) for r in (result, again)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("early", [True, False])
def test_a_run_s_weights_are_the_best_or_without_early_stopping_the_last(digits, tmp_path, early):
    """The second epoch climbs and spoils the weights."""
    spoil = Interpolated((0.0, 0.5, 0.51, 1.0), (1.0, 1.0, -1.0, -1.0))
    recipe = replace(epochs=2, lr=0.3, schedule=spoil, early_stopping=early)
    out = tmp_path / "run"
    result = fit(Natural(), *digits, model=MODEL, out=out, recipe=recipe, progress=False)
    first, second = (row["accuracy"] for row in validation_rows(out))
    assert second < first == result.best
    last, chosen = weights(out)
    same = [np.array_equal(last[name], chosen[name]) for name in last if "kernel" in name]
    assert any(same) != early and all(same) != early


def test_a_last_epoch_that_asks_to_go_back_is_still_judged(digits, tmp_path):
    """There is nothing to go on with, and the best that was found stays the best."""
    given = {"model": MODEL, "out": tmp_path / "run", "recipe": replace(epochs=2)}
    result = fit(Scripted(), *digits, **given, progress=False)
    assert result.best == max(row["accuracy"] for row in validation_rows(tmp_path / "run"))
