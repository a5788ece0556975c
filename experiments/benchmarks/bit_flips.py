"""How many changed bits of a run's files are read as if nothing had happened.

    python experiments/benchmarks/bit_flips.py --count 1000 --before CHECKOUT \\
        --out experiments/results/bit_flips.json

Hardware: two CPU cores; three minutes.

A small run is trained; then one bit of its checkpoint's data or metadata, of weights.npz or of
config.json is flipped and the file read again: `refused`, the `same` (the bit belongs to no result,
as that of a date does), or `changed`: other numbers than were written. With --before, also by an
older checkout, in a process of its own.
"""

import collections
import json
import tempfile
import warnings
from pathlib import Path

import before_after
import jax
import numpy as np

from robustjax import data, models, training
from robustjax.checkpoint import Checkpoints


def train(out):
    """A run of four steps, and its state."""
    sets = (data.load("digits", split).head(n) for split, n in (("train", 256), ("validation", 64)))
    recipe = training.Recipe(epochs=1, batch_size=64)
    model = {"name": "cnn", "width": 4}
    return training.fit(
        training.Natural(), *sets, model=model, out=out, recipe=recipe, progress=False
    ).state


def groups(out):
    """The files of each kind."""
    kept = [p for p in sorted(out.glob("checkpoints/last/*/**/*")) if p.is_file()]
    kept = [p for p in kept if p.stat().st_size]
    return {
        "checkpoint data": [p for p in kept if "d" in p.parts],
        "checkpoint metadata": [p for p in kept if "d" not in p.parts],
        "weights.npz": [out / "weights.npz"],
        "config.json": [out / "config.json"],
    }


def read(kind, out, state):
    """What a resumed run, or an evaluation, finds."""
    if kind.startswith("checkpoint"):
        return Checkpoints(out / "checkpoints" / "last").restore(state, {})
    logits_fn, _, config = models.load(out)
    return jax.tree.leaves(logits_fn), config


def same(found, want):
    """Whether the trees and the JSON are equal, bit for bit."""
    pairs = zip(*(jax.tree.leaves(tree) for tree in (found[0], want[0])), strict=True)
    return found[1] == want[1] and all(np.array_equal(a, b) for a, b in pairs)


def counts(seed, count):
    """Outcome -> how many flips, for each kind of file."""
    rng, found = np.random.default_rng(seed), collections.defaultdict(collections.Counter)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = Path(folder) / "run"
        state = train(out)
        for kind, paths in groups(out).items():
            want, sizes = read(kind, out, state), np.array([p.stat().st_size for p in paths])
            for _ in range(count // 4):  # every byte is as likely
                path = paths[rng.choice(len(paths), p=sizes / sizes.sum())]
                whole = path.read_bytes()
                flipped = bytearray(whole)
                flipped[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
                path.write_bytes(flipped)
                try:
                    outcome = "same" if same(read(kind, out, state), want) else "changed"
                except Exception:
                    outcome = "refused"
                found[kind][outcome] += 1
                path.write_bytes(whole)
    return {kind: dict(sorted(row.items())) for kind, row in found.items()}


def main(words=None):
    parser = before_after.parser(__doc__.splitlines()[0], 1000)
    parser.add_argument("--alone", action="store_true", help="print the counts of this one as JSON")
    options = parser.parse_args(words)
    if options.alone:
        print(json.dumps(counts(options.seed, options.count)))
        return
    passed = ["--count", str(options.count), "--seed", str(options.seed)]
    before_after.compare(options, lambda at: before_after.alone(__file__, at, *passed))


if __name__ == "__main__":
    main()
