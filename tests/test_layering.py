"""A module imports only from lower ranks, and from its own folder; read off the syntax tree."""

import ast
import pathlib

import pytest

import robustjax

ROOT = pathlib.Path(robustjax.__file__).parent
RANK = {
    "config": 0,
    "files": 0,
    "typing": 0,
    "parallel": 0,
    "checkpoint": 0,
    "losses": 1,
    "threats": 1,
    "attacks": 2,
    "models": 2,
    "data": 2,
    "evaluation": 4,
    "report": 5,
    "training": 6,
    "cli": 7,
}
FILES = sorted(p for p in ROOT.rglob("*.py") if p.parent != ROOT or p.name != "__init__.py")


def unit(dotted: str) -> str:
    """The second part of a dotted name: robustjax.losses.softmax -> losses."""
    return [*dotted.split("."), ""][1]


def imports(path: pathlib.Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "robustjax":
                yield from (f"robustjax.{a.name}" for a in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    own = path.relative_to(ROOT).with_suffix("").parts[0]
    for name in imports(path):
        assert name.split(".")[0] not in ("torch", "tensorflow")
        if own in ("attacks", "evaluation", "losses", "threats"):
            assert name.split(".")[0] != "flax"
        if name.split(".")[0] == "robustjax" and unit(name) != own:
            assert RANK[unit(name)] < RANK[own], f"{own} imports {name}"
