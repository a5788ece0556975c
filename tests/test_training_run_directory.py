"""A run's folder: one writer, one run, whatever was killed, lost or changed there."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from robustjax import config, files, models
from robustjax.threats import Linf
from robustjax.training.rows import keep_metrics
from robustjax.training.run_directory import (
    open_run,
    surroundings,
    warn_of_changes,
    write_config,
)

IDENTITY = {
    "model": {"name": "cnn", "width": 2, "num_classes": 3},
    "image_shape": [8, 8, 1],
    "data": {"name": "digits", "content_sha256": "ab"},
    "threat": config.encode(Linf(0.1)),
    "class_names": ["a", "b", "c"],
    "seed": 2,
}


@pytest.fixture
def run(tmp_path):
    """A folder with what `load` reads."""
    model = models.create(**IDENTITY["model"])
    write_config(tmp_path, IDENTITY)
    variables = models.init(model, jax.random.key(0), (8, 8, 1))
    models.save_weights(tmp_path / "weights.npz", variables, IDENTITY)
    return tmp_path


def opened(folder, identity=IDENTITY, resume=True):
    with open_run(folder, identity, resume):
        pass


HOLDS = """
import sys
from pathlib import Path
from robustjax.training.run_directory import open_run
with open_run(Path(sys.argv[1]), {}, False):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_of_two_processes_is_told(tmp_path):
    words = [sys.executable, "-c", HOLDS, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="a run of another process is writing to"):
            opened(tmp_path)
        process.kill()
    opened(tmp_path)


def test_a_run_is_resumed_by_itself_alone(run):
    opened(run)
    with pytest.raises(ValueError, match="holds a run already; resume it"):
        opened(run, resume=False)
    with pytest.raises(ValueError, match="its seed is 2, not 3"):
        opened(run, IDENTITY | {"seed": 3})
    changed = IDENTITY | {"data": {"name": "digits", "content_sha256": "cd"}}
    with pytest.raises(ValueError, match=r"its data\.content_sha256 is 'ab', not 'cd'"):
        opened(run, changed)


def test_a_run_of_a_version_without_digests_is_resumed(run):
    write_config(run, IDENTITY | {"data": {"name": "digits"}})
    opened(run)
    with pytest.raises(ValueError, match="its seed is 2, not 3"):
        opened(run, IDENTITY | {"seed": 3})


def test_checkpoints_without_a_config_are_a_run(tmp_path):
    (tmp_path / "checkpoints" / "last" / "3").mkdir(parents=True)
    opened(tmp_path)
    with pytest.raises(ValueError, match="holds a run already"):
        opened(tmp_path, resume=False)


def test_what_a_killed_run_left_is_removed(tmp_path):
    for name in (".weights.npz.a1b2.tmp", ".config.json.c3.tmp"):
        (tmp_path / name).touch()
    opened(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_other_surroundings_are_told():
    now = surroundings("replicated")
    warn_of_changes(None, now)
    warn_of_changes(now, now)
    warn_of_changes({"devices": now["devices"]}, now)  # of a release that said no more
    with pytest.warns(
        UserWarning, match=r"devices 64 -> \d+.*not be those of an uninterrupted run"
    ):
        warn_of_changes(now | {"devices": 64}, now)
    with pytest.warns(UserWarning, match="training set streamed -> replicated"):
        warn_of_changes(surroundings("streamed"), now)


def test_damaged_lines_of_metrics_do_not_stop_a_run(tmp_path):
    rows = [{"step": step, "seconds": float(step)} for step in (1, 2, 3)]
    lines = [json.dumps(row) for row in rows]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join([lines[0], "{}", lines[1][:5], lines[1], '{"step": "4"}', lines[2]]))
    with pytest.warns(UserWarning, match="dropped 3 damaged lines"):
        assert keep_metrics(tmp_path, 2) == 2.0
    assert files.read_metrics(path) == rows[:2]


def test_config_and_weights_are_of_one_run(run):
    models.load(run)
    write_config(run, IDENTITY | {"class_names": ["b", "a", "c"]})
    with pytest.raises(ValueError, match=r"not saved with the config\.json beside it"):
        models.load(run)
    models.save_weights(run / "weights.npz", models.load_weights(run / "weights.npz"))
    models.load(run)  # as runs of versions that tied nothing


@pytest.mark.parametrize("file", ["config.json", "weights.npz"])
def test_no_changed_bit_is_loaded(run, file):
    """What is loaded in spite of it is the same."""
    rng, whole, seen = np.random.default_rng(0), (run / file).read_bytes(), 0
    want = models.load_weights(run / "weights.npz")
    for _ in range(30):
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        (run / file).write_bytes(changed)
        try:
            logits_fn, _, found = models.load(run)
            assert found == IDENTITY
            leaves = zip(*map(jax.tree.leaves, (logits_fn, want)), strict=True)
            assert all(np.array_equal(a, b) for a, b in leaves)
        except ValueError:
            seen += 1
    assert seen > 20
