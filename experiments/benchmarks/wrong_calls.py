"""What becomes of thousands of wrong calls of public functions, and of wrong command lines.

    python experiments/benchmarks/wrong_calls.py --count 5000 --lines 400 \\
        --before CHECKOUT --out experiments/results/wrong_calls.json

Hardware: two CPU cores; ten minutes.

A wrong call is that of a name's own example with one argument broken (`tests/wrong_calls.py`), a
wrong line a right one with a wrong word (`tests/wrong_lines.py`). Counts of calls: `refused` (a
ValueError, a TypeError or for a missing file a FileNotFoundError that robustjax raises and that
names the argument), `legal` (the value is right after all), `not named`, `accepted`, `foreign ...`
(another error, or one from inside), `slow`, `memory`, `hang`, `crash`, and `absent` (an older
checkout has no such name). Of lines: `refused` (one line, exit code 1 or 2, nothing written),
`unexpected` (one line, with an error that is none of ours), `accepted`, `written`, `traceback` and
the number of lines. With --before, also by an older checkout; calls and lines are the same.
"""

import collections
import json
import os
import sys
import tempfile
from pathlib import Path

import before_after

from robustjax import cli

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import wrong_calls
import wrong_lines

RUN = "natural --width 2 --epochs 1 --batch-size 64 --examples 128 --validation-attack none"


def of_lines(seed, count):
    """Outcome -> how many command lines, in a folder of their own."""
    found = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        cli.main(["train", *RUN.split(), "--out", "run"])
        paths = wrong_lines.places(folder, Path(folder, "run"))
        for line in wrong_lines.lines(seed, count):
            outcome, said = wrong_lines.outcome(line, paths)
            found[outcome] += 1
            if outcome != "refused":
                print(f"{outcome}: {line}: {said[-200:]!r}", file=sys.stderr)
        os.chdir("/")
    return dict(sorted(found.items()))


def of_calls(seed, count, package):
    """Outcome -> how many calls."""
    found = collections.Counter()
    for outcome, call, said in wrong_calls.judge(seed, count, package):
        found[outcome] += 1
        if outcome not in ("refused", "legal", "absent"):
            print(f"{outcome}: {call}: {said[:200]!r}", file=sys.stderr)
    return dict(sorted(found.items()))


def main(words=None):
    parser = before_after.parser(__doc__.splitlines()[0], 5000)
    parser.add_argument("--lines", type=int, default=400, help="number of command lines")
    parser.add_argument("--alone", action="store_true", help="print the lines' counts as JSON")
    options = parser.parse_args(words)
    if options.alone:
        print(json.dumps(of_lines(options.seed, options.lines)))
        return
    passed = ["--lines", str(options.lines), "--seed", str(options.seed)]

    def counts(checkout):
        return {
            "calls": of_calls(options.seed, options.count, checkout),
            "lines": before_after.alone(__file__, checkout, *passed),
        }

    before_after.compare(options, counts)


if __name__ == "__main__":
    main()
