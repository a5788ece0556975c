"""Which results stand on a commit, and which on code that had changed since.

    python experiments/origins.py

Hardware: a second.

Every result says which commit, robustjax and device it is from, and so does every training in it.
One of changed code is kept here only by --dirty: nobody can run that code again. Results of older
versions are not made again for it; this table says which they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robustjax import files, report
from robustjax.report.provenance import commit

RESULTS = Path(__file__).parent / "results"


def add_flag(parser: argparse.ArgumentParser) -> None:
    """The flag that `check` asks for."""
    parser.add_argument(
        "--dirty", action="store_true", help="keep results though code has changed since the commit"
    )


def check(path: Path | None, dirty: bool) -> None:
    """Exit if a result would go to experiments/results from code that is in no commit."""
    kept = path is not None and path.resolve().is_relative_to(RESULTS.resolve())
    if kept and not dirty and (commit(Path(report.__file__)) or "").endswith("-dirty"):
        sys.exit(
            f"{Path(sys.argv[0]).name}: code has changed since the last commit, so nobody could "
            "make this result again; commit first, or pass --dirty, which the result will say"
        )


def blocks(content: Any) -> Iterator[dict[str, Any]]:
    """All records of an origin inside a result."""
    if isinstance(content, dict):
        if {"commit", "versions"} <= content.keys():
            yield content
        content = list(content.values())
    for inner in content if isinstance(content, list) else ():
        yield from blocks(inner)


def table(folder: Path) -> str:
    """Markdown: of each result, how many records there are, of changed code, without a version."""
    lines = ["| result | records | of changed code | without robustjax's version |"]
    lines.append("| --- | ---: | ---: | ---: |")
    for path in sorted(folder.rglob("*.json")):
        found = list(blocks(files.read_json(path)))
        changed = sum((block["commit"] or "").endswith("-dirty") for block in found)
        without = sum(block["versions"].get("robustjax") is None for block in found)
        name = path.relative_to(folder).as_posix()
        lines.append(f"| {name} | {len(found)} | {changed or ''} | {without or ''} |")
    return "\n".join(lines)


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(table(RESULTS))
