"""`robustjax sweep`: a grid of runs through submitit; it resumes, and one failure stops nothing."""

import sys
from pathlib import Path

import pytest

from robustjax import cli, report
from robustjax.cli import Stopped, sweep
from robustjax.cli.grid import read_grid
from robustjax.files import read_json, write_json

TINY = """
[train]
width = 2
epochs = 1
batch_size = 256
normalize = false
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A function that writes a sweep's file in the current folder and returns its path."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        (tmp_path / "a.toml").write_text(text)
        return "a.toml"

    return write


@pytest.fixture
def short(monkeypatch):
    """Runs whose commands are quick, and fail where the seed is 1 and no file `healed` is there."""

    def commands(grid, cell):
        good = cell.labels.get("seed") != "1" or (grid.out / "healed").exists()
        return [["--version" if good else "--nonsense", "--out", cell.name]]

    monkeypatch.setattr(sweep, "commands", commands)


def grid_of(file, text):
    return read_grid(Path(file(text)))


def test_every_combination_is_a_run(file):
    grid = grid_of(
        file,
        TINY
        + """
[grid]
method = ["trades", "mart"]
eps = ["8/255", "4/255"]
more = [{name = "plain"}, {name = "awp", awp = 0.01, attack = {steps = 5}}]
[evaluate]
attacks = ["pgd-10", "autoattack"]
adaptive = false
""",
    )
    assert len({cell.name for cell in grid.cells}) == len(grid.cells) == 8
    last = grid.cells[-1]
    assert last.name == "mart-eps=4_255-more=awp"
    shared = "mart --width 2 --epochs 1 --batch-size 256 --no-normalize"
    assert " ".join(last.train) == f"{shared} --eps 4/255 --awp 0.01 --attack.steps 5"
    assert " ".join(last.evaluate) == "--attacks pgd-10 autoattack --no-adaptive"
    assert str(grid.out) == "runs/a"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "a.toml is not TOML"),
        ("[gird]\n", "unknown gird; known: evaluate, grid, launch, out, train"),
        ("train = 3", "train must be a table"),
        ("out = 3", "out must be the folder"),
        ("[grid]\nmethod = 'trades'", "grid.method must be a list"),
        ("[grid]\nseed = [0, 1]", "name the method"),
        ("[train]\nmethod = 'trades'\nout = 'x'", "a sweep sets --out itself; write out = DIR"),
        ("[grid]\nmethod = ['trades', 'trades']", "two runs have the same name: trades"),
        ("[grid]\nmethod = ['trades', 'trade']", "run trade: unknown method 'trade'; did you mean"),
        ("[grid]\nmethod = ['trades']\neps = [-1]", "run trades-eps=-1: eps must"),
        ("[grid]\nmethod = ['trades']\nepoch = [1]", "the run trades-epoch=1 cannot be started"),
        ("[grid]\nmethod = ['trades']\n[evaluate]\nn = 0", "run trades: --n must"),
        ("[grid]\nmethod = ['trades']\n[launch]\ncluster = 'slrum'", "launch: .*slrum"),
        ("[grid]\nmethod = ['trades']\n[launch]\nparallel = 0", "launch.parallel must"),
        ("[grid]\nmethod = ['trades']\n[launch]\nnonsense = 0", "launch: .*nonsense"),
    ],
)
def test_a_mistake_in_the_file_is_found_before_anything_runs(file, text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        cli.main(["--debug", "sweep", file(text)])
    assert not list(tmp_path.glob("runs/*/trades*"))


def test_a_run_is_trained_and_in_the_table(file, capsys):
    cli.main(["sweep", file(TINY + "[grid]\nmethod = ['natural']\nseed = [0]\n")])
    best = read_json("runs/a/natural-seed=0/training.json")["best"]
    (row,) = read_json("runs/a/sweep.json")["rows"]
    assert row["values"] == {"best on validation": {"0": best}}
    assert capsys.readouterr().out.splitlines()[-1].split() == ["natural", f"{100 * best:.1f}", "1"]


def test_the_table_has_means_and_deviations_over_seeds(tmp_path):
    runs = []
    for method, seed, best in (("a", "0", 0.5), ("a", "1", 0.7), ("b", "0", 0.9)):
        write_json(tmp_path / method / seed / "training.json", {"best": best})
        runs.append(({"method": method, "seed": seed}, tmp_path / method / seed))
    first, second = report.average(runs)
    assert first["mean"] == {"best on validation": pytest.approx(0.6)}
    assert first["std"] == {"best on validation": pytest.approx(0.02**0.5)}
    assert second["std"] == {"best on validation": None}
    lines = report.average_table([first, second]).splitlines()
    assert lines[2].split() == ["a", "60.0", "±", "14.1", "2"]
    assert lines[3].split() == ["b", "90.0", "1"]


def test_a_failed_run_stops_nothing_and_the_same_command_resumes(file, short, capsys):
    path = file("[grid]\nmethod = ['natural']\nseed = [0, 1, 2]\n[launch]\nparallel = 3\n")
    with pytest.raises(SystemExit, match=r"1 of 3 runs failed: natural-seed=1, see .*err"):
        cli.main(["sweep", path])
    assert sorted(p.parent.name for p in Path("runs/a").glob("*/sweep.json")) == [
        "natural-seed=0",
        "natural-seed=2",
    ]
    before = Path("runs/a/natural-seed=0/sweep.json").stat().st_mtime_ns
    Path("runs/a/healed").touch()
    cli.main(["sweep", path])
    assert read_json("runs/a/sweep.json")["failed"] == []
    assert Path("runs/a/natural-seed=0/sweep.json").stat().st_mtime_ns == before


def test_changed_flags_are_not_taken_for_finished(file):
    grid = grid_of(file, "[grid]\nmethod = ['natural']\n")
    (cell,) = grid.cells
    write_json(grid.out / cell.name / sweep.DONE, sweep.record(sweep.commands(grid, cell)))
    assert sweep.is_finished(grid, cell)
    other = grid_of(file, "[train]\nepochs = 3\n[grid]\nmethod = ['natural']\n")
    assert not sweep.is_finished(other, other.cells[0])


def test_a_dry_run_prints_commands(file, capsys, tmp_path):
    cli.main(["sweep", file("[grid]\nmethod = ['natural']\n[evaluate]\nn = 5"), "--dry-run"])
    train, evaluate = capsys.readouterr().out.splitlines()
    assert train == "robustjax train natural --out runs/a/natural --resume"
    assert evaluate == "robustjax evaluate runs/a/natural --n 5"
    assert not (tmp_path / "runs").exists()


def test_an_interrupt_cancels_and_waits():
    class Running:
        asked = 0

        def cancel(self):
            self.asked += 1

        def done(self):
            return self.asked > 0

    job = Running()
    with pytest.raises(Stopped, match="1 unfinished"), sweep.cancelling({"a": job}):
        raise KeyboardInterrupt
    assert job.asked == 1


def test_without_submitit_the_message_names_the_extra(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SystemExit, match=r"pip install 'robustjax\[sweep\]'"):
        cli.main(["sweep", file("[grid]\nmethod = ['natural']\n")])
