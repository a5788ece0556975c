"""What the type checker says of a user's lines: right ones pass and wrong ones do not."""

import importlib
import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
WRONG = (
    "PGD(threat, steps='ten')",
    "PGD(Linf(epsilon=0.1))",
    "PGD(8 / 255)",
    "PGD(threat, loss='margin')",
    "PGD(threat, start=1)",
    "PGD(threat, target=3)",
    "rj.attacks.APGD(threat, step=40)",
    "rj.attacks.PDG(threat)",
    "evaluation.evaluate(print, [], [], PGD(threat), jax.random.key(0))",
    "training.TRADES(gamma=6.0)",
    "training.AWP(PGD(threat))",
    "Corner(threat).steps",
    "Corner(draws='many')",
    "threats.append(Corner())",
    "threat.eps = 0.1",
)
"""Each is an error by itself."""


def test_a_user_module_builds():
    assert importlib.import_module("typed_user").gradient


def test_wrong_lines_are_reported_and_right_ones_are_not(tmp_path):
    if importlib.util.find_spec("pyright") is None:
        pytest.skip(
            "pyright is not installed, so nobody has checked the types: pip install '.[test]'"
        )
    user = HERE / "typed_user.py"
    wrong = tmp_path / "wrong.py"
    right = user.read_text().splitlines()
    wrong.write_text("\n".join([*right, *WRONG]))
    found = errors(user, wrong)
    assert found.pop(user.name, {}) == {}
    lines = {number: WRONG[number - len(right)] for number in found[wrong.name]}
    assert tuple(lines.values()) == WRONG, found


def errors(*files: pathlib.Path) -> dict[str, dict[int, str]]:
    """What pyright has against them: {file's name: {line, from 0: message}}."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(
        [*command, *map(str, files)], capture_output=True, text=True, cwd=HERE.parent
    )
    found = {}
    for report in json.loads(done.stdout)["generalDiagnostics"]:
        lines = found.setdefault(pathlib.Path(report["file"]).name, {})
        lines[report["range"]["start"]["line"]] = report["message"]
    return found
