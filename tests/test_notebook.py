"""The notebooks' code cells, run in order in one process at a small size.

Settings that fix a program's shape are the same in all of them, so that they share its compilation.
"""

import contextlib
import json
import pathlib
import re

import numpy as np
import pytest

from robustjax import detection, theory

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "experiments" / "notebooks").glob("*.ipynb"))
SMALL = {
    "quickstart": {"EPOCHS": 2, "WIDTH": 4, "EXAMPLES": 32, "STEPS": 3},
    "attack_your_model": {"EXAMPLES": 64},
    "adversarial_training": {
        "EPOCHS": 1,
        "RADII": (0.0, 0.1),
        "WIDTH": 4,
        "EXAMPLES": 32,
        "STEPS": 3,
    },
    "detection": {"EPOCHS": 10, "WIDTH": 4, "EXAMPLES": 40},
    "mmc": {"EPOCHS": 3, "WIDTH": 4, "EXAMPLES": 32, "STEPS": 3},
}
"""A notebook -> what its second code cell sets, smaller."""


def cells(notebook, kind):
    every = json.loads(notebook.read_text())["cells"]
    return ["".join(cell["source"]) for cell in every if cell["cell_type"] == kind]


@contextlib.contextmanager
def executed(name, folder, printed):
    """What a notebook's cells leave behind; `printed` reads what they print."""
    install, settings, *rest = cells(ROOT / f"experiments/notebooks/{name}.ipynb", "code")
    assert "%pip install" in install
    found = {}
    exec(settings, found)
    assert found.keys() >= SMALL[name].keys()
    found |= SMALL[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        patch.chdir(folder)
        try:
            for cell in rest:
                exec(compile(cell, name, "exec"), found)
            found["printed"] = printed.readouterr().out
            yield found
        finally:
            found["plt"].close("all")


def figures(found):
    return len(found["plt"].get_fignums())


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_is_saved_without_outputs_and_opens_in_colab(notebook):
    for cell in json.loads(notebook.read_text())["cells"]:
        assert not cell.get("outputs") and not cell.get("execution_count")
    assert "](https://colab.research.google.com/)" in cells(notebook, "markdown")[0]
    page = (ROOT / "docs" / "tutorials" / "notebooks.md").read_text()
    assert f"](../../experiments/notebooks/{notebook.name})" in page


def test_quickstart_fills_the_table_and_the_figures(tmp_path, capsys):
    with executed("quickstart", tmp_path, capsys) as found:
        for name, result in found["found"].items():
            assert result.clean > 0.2 and result.worst_case == min(result.robust.values())
            assert len(found["curves"][name]["accuracy"]) == len(found["radii"]) == 7
        table = found["printed"].splitlines()
        head = next(i for i, line in enumerate(table) if line.startswith("run "))
        columns = ["run", "method", "data", "model", "threat", "clean", "fgsm", "pgd", "worst case"]
        assert re.split(r"  +", table[head].strip()) == columns
        rows = [line.split()[:2] for line in table[head + 2 : head + 4]]
        assert rows == [["natural", "Natural"], ["pgd-at", "PGDAT"]]
        pictures = {p.name for p in pathlib.Path(found["RUNS"]).rglob("*.png")}
        assert pictures == {"training.png", "examples.png", "accuracy_over_eps.png"}
        assert figures(found) == 4


@pytest.mark.filterwarnings("ignore:at .* a random step raises")  # bpda's is a stand-in
def test_a_defence_that_masks_gradients_is_found_out(tmp_path, capsys):
    blind = pytest.warns(UserWarning, match="exactly zero at 100.0% of the attacked images")
    with blind, executed("attack_your_model", tmp_path, capsys) as found:
        assert np.abs(found["x_adv"] - found["images"]).max() <= found["EPS"] + 1e-6
        assert found["plain"].worst_case < found["plain"].clean - 0.5
        assert found["looks_robust"].worst_case > found["honest"].worst_case + 0.5
        (warning,) = found["looks_robust"].warnings
        assert "gradient is exactly zero" in warning and "bpda" in warning
        assert not found["honest"].zero_gradient["pgd"]
        assert figures(found) == 1


def test_every_radius_has_a_row_of_accuracies_that_fall(tmp_path, capsys):
    with executed("adversarial_training", tmp_path, capsys) as found:
        assert tuple(found["table"]) == found["RADII"]
        for accuracies in found["table"].values():
            assert len(accuracies) == len(found["eps_tested"]) == 5
            assert accuracies[0] > accuracies[-1] and (np.diff(accuracies) <= 0.05).all()
        rows = [line for line in found["printed"].splitlines() if " |  " in line]
        assert [float(row.split()[0]) for row in rows] == [*found["RADII"]]
        assert figures(found) == 2


def test_mmc_is_blinded_not_robust(tmp_path, capsys):
    blind = pytest.warns(UserWarning, match="exactly zero at .* so the attack is blind")
    with blind, executed("mmc", tmp_path, capsys) as found:
        mmc = found["found"]["MMC"]
        assert mmc.clean > 0.7 and mmc.robust["pgd-mt"] < mmc.robust["PGD on CE"]
        assert mmc.zero_gradient["PGD on CE"] > 0.1 and mmc.zero_gradient["pgd-mt"] == 0
        ratios = {name: theory.path_ratio(c).mean() for name, c in found["courses"].items()}
        np.testing.assert_allclose([r for name, r in ratios.items() if "MMC" in name], 1)
        assert figures(found) == 3


def test_an_attack_that_knows_the_detector_gets_past_it(tmp_path, capsys):
    with executed("detection", tmp_path, capsys) as found:
        assert (found["answers"] == detection.NOT_SURE).any() and (found["answers"] >= 0).any()
        for name in ("CE", "RCE"):
            oblivious, adaptive = (found["table"][name, a] for a in ("oblivious", "adaptive"))
            assert oblivious.clean_accuracy > 0.85 and oblivious.accepted_clean > 0.8
            assert adaptive.accepted_wrong > oblivious.accepted_wrong + 0.15
            assert adaptive.auc < oblivious.auc
        assert figures(found) == 1
