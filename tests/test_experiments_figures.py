"""Every figure of the gallery is drawn again from its results, by its command and --draw."""

import pathlib
import re
import runpy
import shlex
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
sys.path.insert(0, str(ROOT / "experiments"))

import figures
import origins
import recording
import runner

FIGURE = r"`python (experiments/.*?)`\n\n!\[.*?\]\(\.\./experiments/results/(.*?)\)"
GALLERY = re.findall(FIGURE, (ROOT / "docs" / "gallery.md").read_text())
COMMANDS = {figure: command for command, figure in GALLERY}


def draw(figure, monkeypatch):
    """Run the figure's command with --draw; modules beside a script are forgotten afterwards."""
    script, *words = shlex.split(COMMANDS[figure])
    path, known = ROOT / script, set(sys.modules)
    monkeypatch.setattr(sys, "argv", [script, *words, "--draw"])
    monkeypatch.syspath_prepend(path.parent)
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        for name in {p.stem for p in path.parent.glob("*.py")} & (set(sys.modules) - known):
            del sys.modules[name]


@pytest.mark.parametrize("figure", COMMANDS)
def test_a_command_draws_from_the_results(figure, monkeypatch):
    """Nothing is computed: the results are there, and what draws them is called."""
    asked = []
    monkeypatch.setattr(figures, "redraw", lambda path, draw: asked.append((path, draw)))
    draw(figure, monkeypatch)
    ((path, function),) = asked
    assert path.is_file() and callable(function)
    assert path.with_suffix(pathlib.Path(figure).suffix) == RESULTS / figure


@pytest.mark.parametrize("figure", ["convergence_cifar10_cpu.png", "rce_domain_mnist_cpu.png"])
def test_a_figure_is_that_of_its_results(figure, tmp_path, monkeypatch):
    """The committed one is drawn from the committed numbers, up to a release of matplotlib."""
    folder = (tmp_path / figure).parent
    folder.mkdir(exist_ok=True)
    for path in (RESULTS / figure).parent.glob(f"{pathlib.Path(figure).stem}.[jn]*"):
        shutil.copy(path, folder)
    for module in (origins, recording, runner):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    draw(figure, monkeypatch)
    with Image.open(tmp_path / figure) as new, Image.open(RESULTS / figure) as old:
        np.testing.assert_allclose(new.size, old.size, rtol=0.05)
        differ = np.asarray(new.resize(old.size).convert("L"), int) - np.asarray(old.convert("L"))
    assert np.mean(np.abs(differ) > 64) < 0.05


def test_there_is_nothing_to_draw_without_results(tmp_path, monkeypatch):
    for module in (origins, recording, runner):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    with pytest.raises(SystemExit, match=r"there is no .*convergence_cifar10_cpu.json to draw"):
        draw("convergence_cifar10_cpu.png", monkeypatch)
