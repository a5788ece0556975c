"""A run as one HTML page, a card, CSV and LaTeX: complete, escaped, and readable by others."""

import csv
import html.parser
import io
import shutil
import subprocess

import matplotlib.image
import numpy as np
import pytest

from robustjax import cli, config, report
from robustjax.archives import write_arrays
from robustjax.files import write_json
from robustjax.threats import Linf

NAME = "a<b>&_1|2"
STAGE = {
    "attack": {"type": "APGD", "fields": {"loss": "dlr"}},
    "path": [0],
    "attacked": 4,
    "accuracy": 0.5,
    "stderr": 0.25,
    "forwards": 40,
    "backwards": 40,
    "seconds": 1.0,
}


@pytest.fixture
def run(tmp_path):
    """A run directory with a report, a flag and a picture."""
    folder = tmp_path / NAME
    threat = config.encode(Linf(8 / 255))
    about = {"method": {"type": "TRADES", "fields": {}}, "data": {"name": "cifar10"}}
    about |= {"model": {"name": "cnn"}, "threat": threat, "class_names": ["cat", "<dog>"]}
    found = {"clean": 0.75, "robust": {"autoattack": 0.5}, "worst_case": 0.5, "n": 4}
    found |= {"stderr": {"clean": 0.25, "autoattack": 0.25, "worst_case": 0.25}}
    found |= {"warnings": ["autoattack: <blind> & gaining"], "stages": {"autoattack": [STAGE] * 2}}
    found |= {"per_class": {"clean": [1.0, None], "autoattack": [0.5, 0.5]}}
    found |= {"provenance": report.provenance("robustjax evaluate <run>", 0, 0.0)}
    write_json(folder / "config.json", about)
    write_json(folder / "report.json", found)
    matplotlib.image.imsave(folder / "examples.png", np.zeros((2, 2, 3)))
    return folder


class Page(html.parser.HTMLParser):
    """Checks that tags close in order; collects text and pictures."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.pictures = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.pictures += [value for name, value in attrs if name == "src"]
        assert not any(value.startswith(("http", "//")) for _, value in attrs if value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole(run):
    page = Page(report.html_page([run]))
    text = " ".join(page.words)
    for part in (
        "75.0",
        "50.0 ± 25.0",
        NAME,
        "<blind> & gaining",
        "<dog>",
        "robustjax evaluate",
    ):
        assert part in text
    assert "APGD dlr" in text and "commit" in text
    assert [source[:22] for source in page.pictures] == ["data:image/png;base64,"]


def test_the_card_is_markdown(run):
    text = report.model_card([run])
    assert text.startswith("# Robustness report\n") and "![Clean images" in text
    assert r"a<b>&_1\|2" in text and "> **Flag:** " in text


def test_csv_has_a_line_for_each_attack(run):
    rows = list(csv.DictReader(io.StringIO(report.csv_table([run, run]))))
    assert [row["attack"] for row in rows] == ["clean", "autoattack", "worst case"] * 2
    assert [float(row["accuracy"]) for row in rows[:3]] == [0.75, 0.5, 0.5]
    assert float(rows[0]["eps"]) == pytest.approx(8 / 255) and rows[0]["run"] == NAME


def test_examples_are_columns_of_one_length(run):
    with pytest.raises(FileNotFoundError, match="robustjax evaluate"):
        report.per_example(run)
    columns = {
        "setting": np.array(["s"] * 3),
        "label": np.arange(3),
        "pgd/fooled": np.ones(3, bool),
    }
    write_arrays(run / "examples.npz", columns | {"@other/label": np.arange(5)})
    found = report.per_example(run)
    assert list(found) == ["label", "pgd/fooled"]
    assert all(len(column) == 3 for column in found.values())


def test_latex_is_escaped(run):
    text = report.latex_table([run])
    assert r"a<b>\&\_1|2 & TRADES" in text and r"50.0 $\pm$ 25.0" in text
    assert text.count(r" \\") == 2


@pytest.mark.parametrize("format", ["html", "card", "csv", "latex", "markdown", "text"])
def test_the_command_writes_each(run, tmp_path, format):
    cli.main(["report", str(run), "--format", format, "--out", str(tmp_path / "page")])
    assert "TRADES" in (tmp_path / "page").read_text()


def test_the_command_says_what_it_needs(run):
    with pytest.raises(SystemExit, match="--format html needs --out"):
        cli.main(["report", str(run), "--format", "html"])
    with pytest.raises(SystemExit, match="page"):
        cli.main(["report", str(run), "--out", str(run / "report.json" / "page")])
    (run / "report.json").unlink()
    with pytest.raises(SystemExit, match="robustjax evaluate"):
        cli.main(["report", str(run), "--format", "csv"])


def test_a_browser_shows_the_page(run, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("NO BROWSER: install chromium to see the page")
    page, png = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text(report.html_page([run]), "utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,1500"]
    shot = [browser, *flags, f"--screenshot={png}", page.as_uri()]
    subprocess.run(shot, check=True, capture_output=True, timeout=60)
    shown = matplotlib.image.imread(png)[..., :3]
    assert shown.shape[:2] == (1500, 1000)
    red = (shown[..., 0] > shown[..., 1] + 0.3).sum()
    assert red > 100  # the bar beside the flag
