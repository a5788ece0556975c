"""The scripts of experiments/theory, small, and the results they left at full size."""

import json
import pathlib
import sys

import pytest
import small_scripts
from PIL import Image

FOLDER = pathlib.Path(__file__).parents[1] / "experiments" / "theory"
RESULTS = FOLDER.parent / "results" / "theory"
sys.path.insert(0, str(FOLDER))

import script

SMALL = {
    "arrangements": {},
    "density": {"COUNT": 20_000},
    "discriminant": {"SIZES": (50, 100), "REPEATS": 3, "EFRON_SIZE": 200, "EFRON_REPEATS": 3},
    "features": {"EPOCHS": 1, "WIDTH": 2},
    "reverse": {"SAMPLES": 200},
    "robustness": {"SAMPLES": 2_000, "CLASSES": (2, 5), "DRAWS": 3},
    "scale": {"PER_CLASS": 50},
    "toy": {"POINTS": 20, "PASSES": {5: 4, 10: 3, 20: 2}, "FRAMES": 2},
}


def numbers(name):
    return json.loads((RESULTS / f"{name}.json").read_text())["numbers"]


def test_every_script_is_here():
    assert {path.stem for path in FOLDER.glob("*.py")} == {*SMALL, "script"}


@pytest.mark.parametrize("name", SMALL)
def test_a_script_runs_and_leaves_what_it_left_before(name, tmp_path, monkeypatch):
    path = FOLDER / f"{name}.py"
    left, found = small_scripts.left_by(path, script, SMALL[name], tmp_path, monkeypatch)
    assert left == {path.name for path in RESULTS.glob(f"{name}.*")}
    assert found["numbers"].keys() == numbers(name).keys()


@pytest.mark.parametrize("name", SMALL)
def test_a_result_is_small_and_of_a_known_state(name):
    origin = json.loads((RESULTS / f"{name}.json").read_text())["provenance"]
    assert origin["commit"] and not origin["commit"].endswith("-dirty")
    assert origin["wall_time_s"] < 300
    for path in RESULTS.glob(f"{name}.*"):
        assert path.stat().st_size < 1_000_000


def test_the_claims_hold_in_the_results():
    """What each script's docstring says under Claim."""
    rows = numbers("robustness")
    assert all(abs(row["deviation"]) < 4 for row in rows["distances"])
    assert all(row["max_mahalanobis"] > row["random_range"][1] for row in rows["centers"])
    assert all(abs(row["bound_slack"]) < 1e-5 for row in rows["centers"])
    assert all(abs(row["above_optimum"]) < 1e-5 for row in numbers("arrangements")["arrangements"])
    found = numbers("density")
    assert max(found["sphere_deviation"], found["line_deviation"]) < 1e-9
    assert all(abs(ratio - 1) < 0.05 for ratio in found["normal_class"]["exact"])
    assert found["normal_class"]["paper"][-1] < 0.6 * found["normal_class"]["paper"][0]
    found = numbers("discriminant")
    assert all(abs(row["deviation"]) < 4 for row in found["efron"])
    normal, far = (
        {rule: line["mean"] for rule, line in found["test_error"][case].items()}
        for case in ("two normals", "a part far off")
    )
    pairs = list(zip(normal["LDA"], normal["logistic regression"], strict=True))
    assert all(found["bayes_error"] < lda < logistic for lda, logistic in pairs)
    assert min(far["LDA"]) > 0.15 and far["logistic regression"][-1] < 0.06
    for row in numbers("reverse")["theorem_2"]:
        lines = row["bounds_used"]
        for line in lines:
            assert max(line["extreme"] + line["sampled_most"]) <= 1
        tight = (1, 0.5) if row["classes"] == 3 else (1, 1)
        assert lines[0]["extreme"] == pytest.approx(tight, abs=0.01)
    found = numbers("scale")
    density = found["median_log_density"]
    assert all(slope == pytest.approx(-2, abs=1e-6) for slope in found["raw_slope"].values())
    assert density["loose"]["raw"][0] > density["tight"]["raw"][-1]
    for line in density.values():
        assert max(line["per_class_distance"]) - min(line["per_class_distance"]) < 1e-6
    found = numbers("features")
    for part in ("train", "test"):
        density = {name: row[part] for name, row in found["median_log_density"].items()}
        assert density["MMC"] > 10 + max(density["SCE"], density["MMLDA"])
    assert found["rank_correlation_of_loss_and_density"] < -0.5
    for row in numbers("toy")["courses"]:
        if row["loss"] == "mmc":
            assert row["contraction_deviation"] < 1e-6
            assert row["path_over_chord_max"] < 1 + 1e-9
        else:
            assert row["path_over_chord_mean"] > 1.1


def test_the_animation_moves():
    with Image.open(RESULTS / "toy.gif") as gif:
        assert gif.n_frames == 40
        first = gif.convert("RGB").tobytes()
        gif.seek(20)
        assert gif.convert("RGB").tobytes() != first
