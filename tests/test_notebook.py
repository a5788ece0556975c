"""The notebooks' code cells, run in order in one process at a small size."""

import contextlib
import json
import pathlib

import matplotlib.pyplot as plt
import numpy as np
import pytest

NOTEBOOKS = pathlib.Path(__file__).parents[1] / "experiments" / "notebooks"


def code_cells(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@contextlib.contextmanager
def executed(name, small, folder):
    """What a notebook's cells leave behind, with other settings at the end of the second cell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        patch.chdir(folder)
        install, settings, *rest = code_cells(NOTEBOOKS / name)
        assert "%pip install" in install and settings.startswith("EPOCHS")
        found = {}
        for cell in (settings + "\n" + small, *rest):
            exec(compile(cell, name, "exec"), found)
        yield found
        found["plt"].close("all")


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    small = "EPOCHS = 2\nWIDTH = 8\nEXAMPLES = 32\n"
    with executed("quickstart.ipynb", small, tmp_path_factory.mktemp("notebook")) as found:
        yield found


@pytest.mark.parametrize("notebook", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda p: p.stem)
def test_it_is_saved_without_outputs(notebook):
    for cell in json.loads(notebook.read_text())["cells"]:
        assert not cell.get("outputs") and not cell.get("execution_count")


def test_both_models_have_learned_something_and_are_in_the_table(variables):
    for name, result in variables["found"].items():
        assert result.clean > 0.2 and result.worst_case <= min(result.robust.values())
        assert set(variables["curves"][name]) == {"eps", "accuracy", "stderr"}
    folder = variables["RUNS"]
    lines = variables["report"].table([f"{folder}/natural", f"{folder}/pgd-at"]).splitlines()
    rows = [line.split()[:2] for line in lines[2:4]]
    assert rows == [["natural", "Natural"], ["pgd-at", "PGDAT"]]


def test_every_figure_is_there(variables):
    names = {
        str(p.relative_to(variables["RUNS"]))
        for p in pathlib.Path(variables["RUNS"]).rglob("*.png")
    }
    each = {f"{run}/{f}.png" for run in ("natural", "pgd-at") for f in ("training", "examples")}
    assert names == each | {"accuracy_over_eps.png"}
    assert len(variables["plt"].get_fignums()) == 4


def test_a_linear_model_is_evaluated_without_the_library(variables):
    mine = variables["mine"]
    assert mine.clean > 0.5 and mine.worst_case < mine.clean - 0.1


def test_mmc_is_blinded_not_robust(tmp_path):
    small, before = "EPOCHS = 4\nWIDTH = 8\nEXAMPLES = 64\nSTEPS = 5\n", len(plt.get_fignums())
    blind = pytest.warns(UserWarning, match="exactly zero at .* so the attack is blind")
    with blind, executed("mmc.ipynb", small, tmp_path) as found:
        mmc = found["found"]["MMC"]
        assert mmc.clean > 0.7 and mmc.robust["pgd-mt"] < mmc.robust["PGD on CE"]
        assert mmc.zero_gradient["PGD on CE"] > 0.1 and mmc.zero_gradient["pgd-mt"] == 0
        ratios = {
            name: found["theory"].path_ratio(c).mean() for name, c in found["courses"].items()
        }
        np.testing.assert_allclose([r for name, r in ratios.items() if "MMC" in name], 1)
        assert len(plt.get_fignums()) == before + 3


def test_an_attack_that_knows_the_detector_gets_past_it(tmp_path):
    small, before = "EPOCHS = 20\nWIDTH = 4\nEXAMPLES = 64\nSTEPS = 20\n", len(plt.get_fignums())
    with executed("detection.ipynb", small, tmp_path) as found:
        table, not_sure = found["table"], found["detection"].NOT_SURE
        assert not_sure in found["answers"] and (found["answers"] >= 0).any()
        for name in ("CE", "RCE"):
            oblivious, adaptive = table[name, "oblivious"], table[name, "adaptive"]
            assert oblivious.clean_accuracy > 0.85 and oblivious.accepted_clean > 0.8
            assert adaptive.accepted_wrong > oblivious.accepted_wrong + 0.15
            assert adaptive.auc < oblivious.auc
        assert len(plt.get_fignums()) == before + 2
