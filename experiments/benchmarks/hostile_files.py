"""What becomes of thousands of files that are damaged or made to harm their reader.

    python experiments/benchmarks/hostile_files.py --count 3000 \\
        --before CHECKOUT --out experiments/results/hostile_files.json

Each is read as users read it, by a process of its own that may compute for a second and take twice
the file's size beside what it has; `tests/hostile.py` makes the files. Counts are of `read`,
`refused` (an error that names the file), `not named`, the types of other errors, `slow`, `memory`,
`hang`, `crash` and `code` (code from the file ran). With --before, also by an older checkout.
"""

import argparse
import collections
import sys
import time
from pathlib import Path

from robustjax import files, report
from robustjax.report.provenance import commit

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
sys.path.append(str(Path(__file__).parents[1]))
import hostile
import origins


def counts(seed, count, package):
    """Outcome -> how many files, of each kind and of all."""
    found = collections.defaultdict(collections.Counter)
    for kind, _, outcome in hostile.judge(seed, count, package):
        found[kind][outcome] += 1
        found["all"][outcome] += 1
    return {kind: dict(sorted(row.items())) for kind, row in found.items()}


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--before", type=Path, help="a checkout of an older version")
    parser.add_argument("--out", type=Path, help="where to write the JSON")
    origins.add_flag(parser)
    options, began = parser.parse_args(words), time.time()
    origins.check(options.out, options.dirty)
    packages = {"now": hostile.ROOT} | ({"before": options.before} if options.before else {})
    found = {name: counts(options.seed, options.count, path) for name, path in packages.items()}
    for name, rows in found.items():
        print(name, rows["all"])
    if options.out:
        if options.before:
            found["before"]["commit"] = commit(options.before / "robustjax" / "__init__.py")
        origin = report.provenance(report.command_line(), options.seed, began)
        files.write_json(options.out, found | {"count": options.count, "provenance": origin})


if __name__ == "__main__":
    main()
