"""The scripts of experiments/domains, small, and the results they left at full size."""

import importlib.util
import json
import pathlib
import sys

import pytest
import small_scripts

FOLDER = pathlib.Path(__file__).parents[1] / "experiments" / "domains"
RESULTS = FOLDER.parent / "results" / "domains"
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


def numbers(name):
    return json.loads((RESULTS / f"{name}.json").read_text())["numbers"]


def test_every_script_is_here_and_short():
    assert {path.stem for path in FOLDER.glob("*.py")} == {*SMALL, "frame", "evolution"}
    for path in FOLDER.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 125, path.name


@pytest.mark.parametrize("name", SMALL)
def test_a_script_runs_and_leaves_what_it_left_before(name, tmp_path, monkeypatch):
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"NOT TESTED: {name}.py needs {NEEDS[name]}: pip install '.[domains]'")
    monkeypatch.setattr(frame, "SEEDS", (0,))
    path = FOLDER / f"{name}.py"
    left, _ = small_scripts.left_by(path, frame, SMALL[name], tmp_path, monkeypatch)
    assert left == {path.name for path in RESULTS.glob(f"{name}.*")}


@pytest.mark.parametrize("name", SMALL)
def test_a_result_is_of_three_seeds_and_a_known_state(name):
    origin = json.loads((RESULTS / f"{name}.json").read_text())["provenance"]
    assert origin["commit"] and not origin["commit"].endswith("-dirty")
    assert origin["cpu_time_s"] < 180
    assert all(path.stat().st_size < 300_000 for path in RESULTS.glob(f"{name}.*"))


def means(rows):
    return {name: row["mean"] for name, row in rows.items()}


def test_the_claims_hold_in_the_results():
    """What each script's docstring says under Claim, in the means over seeds."""
    text = means(numbers("text")["accuracy_after_swaps"])
    assert all(a < b < c for a, b, c in list(zip(*(text[k] for k in WAYS), strict=True))[1:])
    for rows in map(means, numbers("graphs")["accuracy"].values()):
        assert all(
            a < b for a, b in list(zip(rows["PGD, best"], rows["random, best"], strict=True))[1:]
        )
    audio = means(numbers("audio"))
    assert audio["target_reached"] == 1 and audio["median_db"] < -10
    assert audio["target_reached_by_noise"] < 0.1
    points = means(numbers("points")["accuracy"])
    assert points["apgd"][-1] < 0.1 and points["jitter"][-1] > 0.6
    assert points["moved"][-1] < points["dropped"][-1] < points["dropped at random"][-1] - 0.3
    cart = means(numbers("cartpole")["return"])
    assert cart["plain, attack"][-1] < 0.5 * cart["plain, noise"][-1]
    at = numbers("cartpole")["eps"].index(numbers("cartpole")["training_eps"])
    assert (
        min(row[at] for row in numbers("cartpole")["return"]["under attack, attack"]["seeds"])
        == 500
    )
    assert cart["plain, attack"][at] < 300 < 490 < cart["plain, noise"][at]


WAYS = ("PGD, best", "random, best", "random")
