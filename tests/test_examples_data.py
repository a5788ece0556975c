"""Example: data of your own, here a folder of PNGs; nothing of robustjax is touched."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustjax import cli, data, files, models
from robustjax.data.load import SOURCES

# ---- DIR/{train,test}/CLASS/*.png, images of one size


def read_pngs(name, split):
    """Read pngs:DIR, images DIR/{train,test}/CLASS/*.png of one size."""
    folder = Path(name.partition(":")[2]) / split
    classes = sorted(path.name for path in folder.iterdir())
    paths = [path for own in classes for path in sorted((folder / own).glob("*.png"))]
    images = np.stack([np.asarray(Image.open(path)) for path in paths])
    return data.Dataset(
        images=images if images.ndim == 4 else images[..., None],
        labels=np.array([classes.index(path.parent.name) for path in paths], np.int32),
        indices=np.arange(len(paths), dtype=np.int32),
        name=name,
        split=split,
        num_classes=len(classes),
        class_names=tuple(classes),
    )


@pytest.fixture
def pngs(tmp_path):
    """The name of some digits as PNGs; 'pngs' is a data set as long as the test runs."""
    for split in ("train", "test"):
        digits = data.load("digits", split).head(100)
        for image, label, index in zip(digits.images, digits.labels, digits.indices, strict=True):
            path = tmp_path / "digits" / split / str(label) / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.squeeze(-1)).save(path)
    data.register("pngs", read_pngs)
    yield f"pngs:{tmp_path / 'digits'}"
    del SOURCES["pngs"]


# ---- what holds for it


def test_the_images_are_those_that_were_written(pngs):
    found, written = data.load(pngs, "test"), data.load("digits", "test").head(100)
    assert len(found) == 100 and found.class_names == tuple("0123456789")
    for label in range(10):
        ours, theirs = (s.images[s.labels == label] for s in (found, written))
        assert {image.tobytes() for image in ours} == {image.tobytes() for image in theirs}


def test_a_validation_split_is_carved_out_of_train(pngs):
    train, validation = (data.load(pngs, split) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (90, 10)
    assert not set(train.indices) & set(validation.indices)


def test_the_command_line_trains_and_evaluates_on_it(pngs, tmp_path):
    run = tmp_path / "run"
    words = ["--model", "cnn", "--width", "2", "--epochs", "1", "--batch-size", "32"]
    words += ["--validation-attack", "none"]
    cli.main(["train", "natural", "--data", pngs, *words, "--out", str(run)])
    assert models.load(run)[2]["data"]["name"] == pngs
    few = ["--n", "16", "--batch-size", "16", "--curve", "none"]
    cli.main(["evaluate", str(run), "--attacks", "fgsm", *few])
    assert files.read_json(run / "report.json")["n"] == 16
