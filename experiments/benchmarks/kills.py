"""What becomes of files whose writers are killed, once the next writer has been there.

    python experiments/benchmarks/kills.py --count 300 --before CHECKOUT \\
        --out experiments/results/kills.json

Hardware: two CPU cores; twenty minutes.

Processes that write a result, a figure, a cached data set, a snapshot or a checkpoint, or that
train or evaluate a small model, get SIGKILL after a random time; then another process does the
same, and is not killed. Counts of each kind: `clean` (as if nothing had happened), `left` (a
temporary file is still there), `changed` (other content than without the kill), `failed` (the next
process ends in an error). With --before, also by an older checkout; what it writes through another
interface `fails without a kill`.

Measured: experiments/results/kills.json, 10 kills of each kind: 70 of 70 clean; before, results,
figures and caches left temporary files behind in 18 of 30.
"""

import collections
import functools
import importlib
import json
import os
import signal
import tempfile
import time
import traceback
from pathlib import Path

import before_after
import jax.numpy as jnp
import numpy as np

from robustjax import cli, data, files, report
from robustjax.checkpoint import Checkpoints

RUN = "natural --width 2 --epochs 3 --batch-size 64 --examples 256 --checkpoint-every 2"
RUN += " --validation-attack none"
ATTACKS = ["--attacks", "fgsm", "square-20", "--n", "64", "--curve", "none"]
ARRAYS = {"images": np.zeros((100, 8, 8, 1), np.uint8), "labels": np.zeros(100, np.int32)}


def write_result(folder):
    files.write_json(folder / "a.json", {"numbers": list(range(1000))})


def read_result(folder):
    return files.read_json(folder / "a.json")


def write_figure(folder):
    rows = [{"split": "train", "step": 1, "epoch": 1.0, "loss": 1.0}]
    (folder / "metrics.jsonl").write_text(json.dumps(rows[0]))
    report.training_curves(folder / "metrics.jsonl", folder / "a.png")


def read_figure(folder):
    return (folder / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def write_cache(folder):
    os.environ["ROBUSTJAX_CACHE"] = str(folder)
    for path in folder.glob("*.npz"):
        path.unlink()
    read_cache(folder)


def read_cache(folder):
    os.environ["ROBUSTJAX_CACHE"] = str(folder)
    found = data.cache.cached("a", tuple(ARRAYS), lambda: ARRAYS)
    return {name: array.tolist() for name, array in found.items()}


def write_snapshot(folder):
    journal = importlib.import_module("robustjax.evaluation.journal")  # older ones differ
    journal.FileStore(folder / "a.npz").save(lambda: tuple(ARRAYS.values()), last=True)


def read_snapshot(folder):
    return {name: array.tolist() for name, array in np.load(folder / "a.npz").items()}


def write_checkpoint(folder):
    kept = Checkpoints(folder)
    for step in range(1, 4):
        kept.save(step, {"w": jnp.arange(1000.0)}, {"best": 0.5})


def read_checkpoint(folder):
    meta = json.loads((folder / "3" / "meta" / "metadata").read_text())
    return meta["best"], sorted(path.name for path in folder.glob("[0-9]*"))


def train(folder):
    cli.main(["train", *RUN.split(), "--out", str(folder / "run"), "--resume"])


def read_run(folder):
    run, found = folder / "run", {}
    for name in ("weights", "weights_last"):
        found[name] = {n: a.tolist() for n, a in np.load(run / f"{name}.npz").items()}
    rows = [row | {"seconds": 0} for row in files.read_metrics(run / "metrics.jsonl")]
    return found, rows, sorted(path.name for path in run.iterdir())


def evaluate(folder):
    if not (folder / "run" / "training.json").exists():
        train(folder)
    cli.main(["evaluate", str(folder / "run"), *ATTACKS])


def read_evaluation(folder):
    found = files.read_json(folder / "run" / "report.json")
    return found["robust"], found["clean"], sorted(path.name for path in folder.glob("run/*"))


KINDS = {
    "result": (write_result, read_result),
    "figure": (write_figure, read_figure),
    "cache": (write_cache, read_cache),
    "snapshot": (write_snapshot, read_snapshot),
    "checkpoint": (write_checkpoint, read_checkpoint),
    "train": (train, read_run),
    "evaluate": (evaluate, read_evaluation),
}
"""Kind -> what its processes do in a folder, and what is read there afterwards."""
WHOLE = ("train", "evaluate")
"""Kinds whose process works once; the others write until they are killed."""


def forked(work):
    """A process that does `work`; this one has started no threads of JAX."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(silent, stream)
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(child):
    """Whether a process ends without an error."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def forever(work):
    while True:
        work()


def temporary(folder):
    """Files and folders that only a writer needs: robustjax hides its own, Orbax names them tmp."""
    paths = (path for path in folder.rglob("*") if path.name != ".lock")
    return [path for path in paths if path.name.startswith(".") or "tmp" in path.name]


def kill(kind, folder, seconds):
    """Start a process of this kind and kill it after this time."""
    work = functools.partial(KINDS[kind][0], folder)
    child = forked(work if kind in WHOLE else functools.partial(forever, work))
    end = time.time() + seconds
    while time.time() < end:
        time.sleep(0.001)
        if os.waitpid(child, os.WNOHANG)[0]:  # it was faster than the one without a kill
            return
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def outcome(kind, folder, want):
    """What the next process makes of a folder."""
    work, read = KINDS[kind]
    if not ended(forked(functools.partial(work, folder))):
        return "failed"
    try:
        if read(folder) != want:
            return "changed"
    except (OSError, ValueError, KeyError):
        return "changed"
    return "left" if temporary(folder) else "clean"


def prepared(kind, folder):
    """A folder in which a process of this kind can start: an evaluation needs a trained run."""
    folder.mkdir()
    if kind == "evaluate" and not ended(forked(functools.partial(train, folder))):
        raise RuntimeError("training failed")
    return folder


def counts(seed, count, kinds):
    """Outcome -> how many kills, of each kind."""
    rng, found = np.random.default_rng(seed), collections.defaultdict(collections.Counter)
    with tempfile.TemporaryDirectory() as place:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{place}/programs"
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        for kind in kinds:
            work, read = KINDS[kind]
            for name in ("first", "whole"):  # the first compiles
                whole, began = prepared(kind, Path(place) / f"{kind}-{name}"), time.time()
                works = ended(forked(functools.partial(work, whole)))
                seconds = time.time() - began
            if not works:
                found[kind]["fails without a kill"] = count // len(kinds)
                continue
            want = read(whole)
            for number in range(count // len(kinds)):
                folder = prepared(kind, Path(place) / f"{kind}-{number}")
                kill(kind, folder, float(rng.uniform(0, max(seconds, 0.05))))
                found[kind][outcome(kind, folder, want)] += 1
    return {kind: dict(sorted(row.items())) for kind, row in found.items()}


def main(words=None):
    parser = before_after.parser(__doc__.splitlines()[0], 300)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--alone", action="store_true", help="print the counts of this one as JSON")
    options = parser.parse_args(words)
    if options.alone:
        print(json.dumps(counts(options.seed, options.count, options.kinds)))
        return
    passed = ["--count", str(options.count), "--seed", str(options.seed), "--kinds", *options.kinds]
    before_after.compare(options, lambda at: before_after.alone(__file__, at, *passed))


if __name__ == "__main__":
    main()
