"""The notebook's code cells, run in order in one process at a small size."""

import json
import pathlib

import pytest

NOTEBOOK = pathlib.Path(__file__).parents[1] / "experiments" / "notebooks" / "quickstart.ipynb"
SMALL = "EPOCHS = 2\nWIDTH = 8\nEXAMPLES = 32\n"


def code_cells():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    """What the notebook's cells leave behind."""
    patch = pytest.MonkeyPatch()
    patch.setenv("MPLBACKEND", "Agg")
    patch.chdir(tmp_path_factory.mktemp("notebook"))
    found = {}
    install, settings, *rest = code_cells()
    assert "%pip install" in install and settings.startswith("EPOCHS")
    for cell in (settings + "\n" + SMALL, *rest):
        exec(compile(cell, str(NOTEBOOK), "exec"), found)
    yield found
    found["plt"].close("all")
    patch.undo()


def test_it_is_saved_without_outputs():
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert not cell.get("outputs") and not cell.get("execution_count")


def test_both_models_have_learned_something_and_are_in_the_table(variables):
    for name, result in variables["found"].items():
        assert result.clean > 0.2 and result.worst_case <= min(result.robust.values())
        assert set(variables["curves"][name]) == {"eps", "accuracy", "stderr"}
    folder = variables["RUNS"]
    lines = variables["report"].table([f"{folder}/natural", f"{folder}/pgd-at"]).splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [["natural", "Natural"], ["pgd-at", "PGDAT"]]


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
