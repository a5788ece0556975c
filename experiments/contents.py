"""The contents of this folder: what each script shows, and what it takes.

Command:   python experiments/contents.py     (writes experiments/README.md)
Hardware:  a second.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
FOLDERS = {
    "": "The talk's systems, and what goes beyond",
    "theory": "Theory: the papers' claims as measurements, on one core",
    "domains": "Beyond images",
    "oracle": "Other people's code as a witness",
    "scale": "TPUs, by their compiler",
    "benchmarks": "Benchmarks",
}
INTRODUCTION = """# Experiments

Every script says in its docstring what it claims, what it takes, what was measured and from which
paper. `--scale smoke` runs the whole path of a long one in minutes. Long runs resume. Results go to
`results`, a JSON of at most 200 kB each, with command, commit, device, versions, seeds and time;
`python experiments/claims.py` puts them together, claim by claim. A script that draws a figure
draws it again from its results with `--draw`. `notebooks` is for readers.
"""


def scripts() -> Iterator[tuple[Path, str, str]]:
    """Each script below this folder, the first line of its docstring, and what it takes."""
    for path in sorted(HERE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        if any(
            isinstance(node, ast.If) and "__main__" in ast.dump(node.test) for node in tree.body
        ):
            about = ast.get_docstring(tree) or ""
            takes = re.search(r"^Hardware: +(.*?)(?=\n[A-Z]\w+:|\n\n|\Z)", about, re.S | re.M)
            yield path, about.splitlines()[0], " ".join(takes[1].split()) if takes else ""


def page() -> str:
    """The page in Markdown."""
    lines = [INTRODUCTION]
    for folder, title in FOLDERS.items():
        lines += [
            f"## {title}\n",
            "| script | what it shows | what it takes |",
            "| --- | --- | --- |",
        ]
        for path, shows, takes in scripts():
            if path.parent == HERE / folder:
                name = path.relative_to(HERE).as_posix()
                lines.append(f"| [{name}]({name}) | {shows} | {takes} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Write the page."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
