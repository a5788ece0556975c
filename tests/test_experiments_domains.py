"""The scripts of experiments/domains, small."""

import importlib
import json
import pathlib
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "experiments" / "domains"
sys.path.insert(0, str(FOLDER))

import frame

SMALL = {
    "audio": {"TRAIN": 32, "CLIPS": 4, "STEPS": 2, "ATTACK_STEPS": 10, "ROUNDS": 2},
    "cartpole": {"LIMIT": 5, "EPISODES": 2, "GENERATIONS": 2, "PAIRS": 2, "ROLLOUTS": 1},
    "graphs": {"STEPS": 2, "ASCENT": 2, "DRAWS": 2, "KINDS": ("karate club",), "SHARES": (0.1,)},
    "points": {
        "POINTS": 8,
        "TRAIN": 16,
        "TEST": 4,
        "STEPS": 2,
        "RADII": (0, 0.1),
        "COUNTS": (0, 4),
        "ROUNDS": 1,
    },
    "text": {"LANGUAGES": ("da", "nl"), "SHUFFLES": 1, "STEPS": 2, "SWAPS": 1, "CANDIDATES": 2},
}
NEEDS = {"graphs": "networkx", "text": "spacy"}


def module_of(name):
    """The module, though its name may be taken."""
    spec = importlib.util.spec_from_file_location(f"domain_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_script_is_here_and_short():
    assert {path.stem for path in FOLDER.glob("*.py")} == {*SMALL, "frame", "evolution"}
    for path in FOLDER.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 120, path.name


@pytest.mark.parametrize("name", SMALL)
def test_a_script_runs_and_leaves_what_it_left_before(name, tmp_path, monkeypatch):
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"NOT TESTED: {name}.py needs {NEEDS[name]}: pip install '.[domains]'")
    module = module_of(name)
    monkeypatch.setattr(frame.recording, "RESULTS", tmp_path)
    monkeypatch.setattr(frame, "SEEDS", (0,))
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--dirty"])
    for constant, value in SMALL[name].items():
        assert hasattr(module, constant)
        monkeypatch.setattr(module, constant, value)
    frame.run(module.__file__, module.__doc__, module.main)
    left = {path.name for path in (tmp_path / "domains").iterdir()}
    assert left == {f"{name}.json", f"{name}.png"}
    found = json.loads((tmp_path / "domains" / f"{name}.json").read_text())
    assert found["provenance"]["command"] == f"python experiments/domains/{name}.py"
