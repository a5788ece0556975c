"""Sets of Hugging Face `datasets`, written here by `save_to_disk`; nothing is downloaded."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from robustjax import data

if importlib.util.find_spec("datasets") is None:
    pytest.skip("HUGGING FACE DATA NOT TESTED: pip install '.[datasets]'", allow_module_level=True)
import datasets


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTJAX_CACHE", str(tmp_path / "cache"))


def pictures(count, size=(6, 6)):
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3), np.uint8) for _ in range(count)]


def write(path, images, labels, **splits):
    """A set of colour images of cats and dogs, as one split or several."""
    features = datasets.Features(
        {"img": datasets.Image(), "animal": datasets.ClassLabel(names=["cat", "dog"])}
    )

    def part(rows):
        columns = {"img": [Image.fromarray(images[i]) for i in rows], "animal": [*labels[rows]]}
        return datasets.Dataset.from_dict(columns, features)

    rows = {split: part(r) for split, r in splits.items()}
    found = datasets.DatasetDict(rows) if rows else part(np.arange(len(images)))
    found.save_to_disk(str(path))
    return f"hf:{path}"


def test_splits_classes_and_pixels(tmp_path):
    images, labels = pictures(12), np.arange(12) % 2
    name = write(tmp_path / "set", images, labels, train=np.arange(9), test=np.arange(9, 12))
    for _ in ("decoded", "cached"):
        test = data.load(name, "test")
        np.testing.assert_array_equal(test.images, images[9:])
        assert test.labels.tolist() == [1, 0, 1] and test.class_names == ("cat", "dog")
    assert len(data.load(f"{name}:classes=dog", "test")) == 2
    assert data.load(f"{name}:size=3", "test").image_shape == (3, 3, 3)


def test_a_set_that_is_written_again_is_decoded_again(tmp_path):
    for order in (1, -1):
        images = pictures(4)[::order]
        name = write(tmp_path / ("deep" * 60) / "set", images, np.arange(4) % 2, test=np.arange(4))
        np.testing.assert_array_equal(data.load(name, "test").images, images)


def test_one_split_is_carved_and_sizes_may_vary(tmp_path):
    images = [*pictures(20), *pictures(10, (9, 12))]
    name = write(tmp_path / "set", images, np.arange(30) % 2)
    with pytest.raises(ValueError, match="vary in size: after its name, :size=64"):
        data.load(name)
    assert data.load(f"{name}:size=4", "test").images.shape == (6, 4, 4, 3)


def test_sets_that_are_refused(tmp_path):
    with pytest.raises(ValueError, match="write the set after the colon"):
        data.load("hf:")
    datasets.Dataset.from_dict({"text": ["a"], "label": [0]}).save_to_disk(str(tmp_path / "text"))
    with pytest.raises(ValueError, match=r"0 of its columns .text, label. are Image"):
        data.load(f"hf:{tmp_path / 'text'}")
    name = write(tmp_path / "set", pictures(2), np.arange(2), holdout=np.arange(2))
    with pytest.raises(ValueError, match="has the splits holdout; name them train"):
        data.load(name)
    features = datasets.Features({"img": datasets.Image(), "y": datasets.ClassLabel(2)})
    broken = {"img": [{"bytes": b"no image", "path": None}], "y": [0]}
    datasets.Dataset.from_dict(broken, features).save_to_disk(str(tmp_path / "broken"))
    with pytest.raises(ValueError, match=r"image 0 of .*neither a PNG nor a JPEG"):
        data.load(f"hf:{tmp_path / 'broken'}")
