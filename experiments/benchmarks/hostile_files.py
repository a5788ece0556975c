"""What becomes of thousands of files that are damaged or made to harm their reader.

    python experiments/benchmarks/hostile_files.py --count 3000 \\
        --before CHECKOUT --out experiments/results/hostile_files.json

Hardware: two CPU cores; four minutes.

Each is read as users read it, by a process of its own that may compute for a second and take twice
the file's size beside what it has; `tests/hostile.py` makes the files. Counts are of `read`,
`refused` (an error that names the file), `not named`, the types of other errors, `slow`, `memory`,
`hang`, `crash` and `code` (code from the file ran). With --before, also by an older checkout.
"""

import collections
import sys
from pathlib import Path

import before_after

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import hostile


def counts(seed, count, package):
    """Outcome -> how many files, of each kind and of all."""
    found = collections.defaultdict(collections.Counter)
    for kind, _, outcome in hostile.judge(seed, count, package):
        found[kind][outcome] += 1
        found["all"][outcome] += 1
    return {kind: dict(sorted(row.items())) for kind, row in found.items()}


def main(words=None):
    options = before_after.parser(__doc__.splitlines()[0], 3000).parse_args(words)
    before_after.compare(options, lambda at: counts(options.seed, options.count, at))


if __name__ == "__main__":
    main()
