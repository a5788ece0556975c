"""The experiments' commands are understood, and their tables say what their rows hold."""

import argparse
import pathlib
import sys

import pytest

from robustjax import models, training

FOLDER = pathlib.Path(__file__).parents[1] / "experiments"
sys.path.insert(0, str(FOLDER))

import convergence
import mmc_cifar10
import tables

KINDS = {
    "SCE": training.SCE,
    "Center": training.Center,
    "MMLDA": training.MMLDA,
    "L-GM": training.LGM,
    "MMC-10": training.MMC,
    "(rand)": training.MMC,
}
RADII = (8, 16)
COLUMNS = [f"{column}@{k}" for k in RADII for column in tables.WEAK + tables.STRONG]


@pytest.mark.parametrize(
    ("name", "scale"),
    [(n, s) for s, scale in mmc_cifar10.SCALES.items() for n in mmc_cifar10.rows_of(scale)],
)
def test_every_row_of_the_mmc_table_trains_what_it_is_called(name, scale, tmp_path, monkeypatch):
    asked = {}

    def train(method, recipe, options):
        asked.update(method=method, recipe=recipe, options=options)

    monkeypatch.setattr(sys.modules["robustjax.cli.train"], "train", train)
    options = argparse.Namespace(data="digits", data_dir=None, scale=scale, runs=tmp_path)
    run = mmc_cifar10.train(name, 1, mmc_cifar10.SCALES[scale], options)
    method = asked["method"]
    assert type(method) is KINDS[name.split()[-1]]
    assert method.adversarial == {"AT-tar": "targeted", "AT-un": "untargeted"}.get(
        name.split()[0], "none"
    )
    assert (getattr(method, "centers", None) == "random") == ("rand" in name)
    assert asked["options"].out == run and asked["options"].seed == 1
    assert asked["recipe"].epochs == mmc_cifar10.SCALES[scale].epochs["AT" in name]
    assert asked["options"].model == "cnn" or asked["options"].model.startswith("resnet-")
    models.create(asked["options"].model, num_classes=10, **method.model)


def test_the_published_table_has_the_same_rows_and_columns():
    assert mmc_cifar10.PUBLISHED.keys() == mmc_cifar10.ROWS.keys()
    assert {len(row) for row in mmc_cifar10.PUBLISHED.values()} == {1 + len(RADII) * 4}
    assert set(convergence.LOSSES) < set(mmc_cifar10.ROWS)


def test_a_table_and_its_figure(tmp_path):
    seed = {"clean": 0.9, "clean (strong)": 0.8} | dict.fromkeys(COLUMNS, 0.25)
    weak_only = {k: v + 0.05 for k, v in seed.items() if "strong" not in k and "worst" not in k}
    rows = {"SCE": [seed, weak_only], "AT-un SCE": [seed]}
    text = tables.markdown(rows, {"SCE": range(9)}, RADII).splitlines()
    sce = next(line for line in text if line.startswith("| SCE"))
    assert sce.split("|")[2].strip() == "92.5 (0)" and sce.split("|")[3].strip() == "27.5 (1)"
    assert text[-1].split("|")[2:4] == [" 80.0 ", " 25.0 "]
    tables.draw(rows, RADII, tmp_path / "table.png")
    assert (tmp_path / "table.png").stat().st_size > 5000
