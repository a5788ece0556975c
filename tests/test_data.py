import dataclasses
import itertools
import os
import subprocess
import sys
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from robustjax import data, parallel
from robustjax.data import cache
from robustjax.writing import locked

SHAPE = (6, 5, 3)
PARTS = ("train", "validation", "test")


class TinyImages(tfds.core.GeneratorBasedBuilder):
    """Twenty and ten images, each filled with its own number; Pillow images need no TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")
    SIZES = {"train": 20, "test": 10}  # noqa: RUF012
    image_shape = SHAPE

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=self.image_shape),
            "coarse": tfds.features.ClassLabel(num_classes=2),
            "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, manager):
        return {split: self._generate_examples(n) for split, n in self.SIZES.items()}

    def picture(self, i):
        return Image.fromarray(np.full(SHAPE, i, np.uint8))

    def _generate_examples(self, n):
        for i in range(n):
            yield i, {"id": str(i), "image": self.picture(i), "coarse": 0, "label": i % 3}


class TinyHeldOut(TinyImages):
    """With a validation split of its own."""

    SIZES = {"train": 20, "validation": 6, "test": 10}  # noqa: RUF012


class TinyNoTest(TinyImages):
    """With a validation split and no test split, as ImageNet."""

    SIZES = {"train": 20, "validation": 6}  # noqa: RUF012


class TinyArrays(TinyImages):
    """Hands over arrays, which TFDS encodes with TensorFlow."""

    def picture(self, i):
        return np.full(SHAPE, i, np.uint8)


class TinyByHand(TinyImages):
    """Must be downloaded by hand."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "Ask the authors for pictures.zip."

    def _split_generators(self, manager):
        return {"train": self._generate_examples(len(list(manager.manual_dir.iterdir())))}


class TinyVarying(TinyImages):
    """Wide, tall and grey pictures: a left half of 0, a right half of their number."""

    image_shape = (None, None, 3)

    def picture(self, i):
        shape = [(20, 30), (31, 20)][i % 2]
        pixels = np.where(np.arange(shape[1]) < shape[1] / 2, 0, i).astype(np.uint8)
        pixels = np.broadcast_to(pixels, shape)
        return Image.fromarray(pixels if i % 3 == 0 else np.stack([pixels] * 3, -1))


class TinyChannels(TinyVarying):
    """Pictures with transparency, which colour images cannot have."""

    SIZES = {"train": 1}  # noqa: RUF012

    def picture(self, i):
        return Image.fromarray(np.zeros((9, 8, 4), np.uint8))


class TinyMany(TinyImages):
    """Pictures of an unknown number of channels."""

    image_shape = (None, None, None)


class TinyText(TinyImages):
    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({"id": tfds.features.Text()})
        )


class TinySequence(TinyImages):
    """Whose features have no names."""

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.Dataset({"id": tfds.features.Text()})
        )


@pytest.fixture(scope="session")
def tfds_dir(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("tfds"))
    for name in ("tiny_images", "tiny_held_out", "tiny_no_test"):
        data.prepare(name, folder)
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTJAX_CACHE", str(tmp_path / "cache"))


def write_arrays(folder, sizes=None, **replaced):
    """A folder for `arrays:`, some of its files replaced."""
    rng = np.random.default_rng(0)
    for split, n in (sizes or {"train": 40, "test": 8}).items():
        np.save(folder / f"{split}_images.npy", rng.integers(0, 256, (n, *SHAPE)).astype(np.uint8))
        np.save(folder / f"{split}_labels.npy", np.arange(n) % 4)
    for name, array in replaced.items():
        np.save(folder / f"{name}.npy", array)
    return f"arrays:{folder}"


# ---- Dataset


def test_take_carries_everything_along():
    whole = data.load("digits", "test")
    rows = np.array([5, 2, 7])
    part = whole.take(rows)
    assert len(part) == 3 and part.name == "digits" and part.split == "test"
    for field in ("images", "labels", "indices"):
        np.testing.assert_array_equal(getattr(part, field), getattr(whole, field)[rows])
    assert part.class_names == whole.class_names and part.image_shape == (8, 8, 1)


def test_head_is_the_first_or_all():
    whole = data.load("digits", "test")
    np.testing.assert_array_equal(whole.head(4).indices, whole.indices[:4])
    assert len(whole.head(10**6)) == len(whole)


def test_channel_statistics_are_those_of_the_float_images(tmp_path):
    train = data.load(write_arrays(tmp_path))
    mean, std = train.channel_statistics()
    floats = train.images / 255
    np.testing.assert_allclose(mean, floats.mean((0, 1, 2)), atol=6e-5)
    np.testing.assert_allclose(std, floats.std((0, 1, 2)), atol=6e-5)
    assert len(mean) == len(std) == 3


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("images", np.zeros((2, 3, 3, 1), np.float32), "images must be uint8 of shape"),
        ("images", np.zeros((2, 3, 3), np.uint8), "images must be uint8 of shape"),
        ("labels", np.zeros(3, np.int32), "labels must be 2 integers"),
        ("labels", np.zeros(2, np.float32), "labels must be 2 integers"),
        ("labels", np.array([0, 5]), r"labels must lie in \[0, 5\), got 0 to 5"),
        ("labels", np.array([-1, -1]), "comes without labels"),
        ("class_names", ("a",), "1 class names for 5 classes"),
    ],
)
def test_bad_data_are_refused(field, value, message):
    good = data.Dataset(
        images=np.zeros((2, 3, 3, 1), np.uint8),
        labels=np.array([0, 4]),
        indices=np.arange(2),
        name="mine",
        split="train",
        num_classes=5,
    )
    assert good.labels.dtype == good.indices.dtype == np.int32
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(good, **{field: value})


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="images must not be empty"):
        data.load("digits").take(slice(0))


@pytest.mark.parametrize("n", [0, -5])
def test_the_head_has_an_example(n):
    with pytest.raises(ValueError, match=r"n must lie in \[1, inf\], got"):
        data.load("digits").head(n)


# ---- splits


def test_digits_are_the_same_every_time():
    first, again = data.load("digits"), data.load("digits")
    for field in ("images", "labels", "indices"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
    # The examples themselves, so that a change of the rule does not pass unseen.
    assert data.load("digits", "test").indices[:5].tolist() == [4, 5, 6, 9, 14]
    assert data.load("digits", "validation").indices[:5].tolist() == [7, 8, 43, 46, 62]


def test_a_name_may_choose_classes(tmp_path):
    whole, part = data.load("digits", "test"), data.load("digits:classes=7,1", "test")
    assert part.num_classes == 2 and part.class_names == ("7", "1") and part.name.endswith("7,1")
    rows = np.isin(whole.labels, [1, 7])
    np.testing.assert_array_equal(np.array([7, 1])[part.labels], whole.labels[rows])
    np.testing.assert_array_equal(part.images, whole.images[rows])
    np.testing.assert_array_equal(part.indices, whole.indices[rows])
    for classes, message in {"7,11": "no class '11'", "1,1": "twice", "": "no class ''"}.items():
        with pytest.raises(ValueError, match=message):
            data.load(f"digits:classes={classes}")
    name = write_arrays(tmp_path)
    again = data.load(f"{name}:classes=3,0", "test").with_classes(["0", "1", "2", "3"])
    assert again.labels.tolist() == [0, 3, 0, 3]


def test_a_name_may_choose_rows(tmp_path):
    name = write_arrays(tmp_path)
    whole = data.load(name, "test")
    np.save(tmp_path / "rows.npy", [3, 1])
    (tmp_path / "rows.txt").write_text("3\n1\n")
    for rows in ("3,1-1", tmp_path / "rows.npy", tmp_path / "rows.txt"):
        part = data.load(f"{name}:test={rows}", "test")
        np.testing.assert_array_equal(part.images, whole.images[[3, 1]])
        assert part.indices.tolist() == [3, 1] and part.name == f"{name}:test={rows}"
    parts = [data.load("digits:classes=3,5:train=0-499", s) for s in data.SPLITS]
    assert len({i for part in parts for i in part.indices}) == len(parts[2]) + len(parts[3])
    assert max(part.indices.max() for part in parts) < 500 and parts[0].num_classes == 2


@pytest.mark.parametrize(
    ("end", "message"),
    {
        "test=0-9": "no test split of its own",
        "train=5-99999": "rows below 1797",
        "train=9-2": "ascending",
        "train=3,3": "names a row twice",
        "train=0-9:train=1": ":train= twice",
        "train=nowhere.npy": "neither rows such as",
        "train={tmp}/wrong.txt": "must hold whole numbers",
        "train={tmp}/wrong.npy": "a list of whole numbers",
        "train={tmp}/torn.npy": "must hold whole numbers",
    }.items(),
)
def test_rows_that_are_none(end, message, tmp_path):
    (tmp_path / "wrong.txt").write_text("a b")
    np.save(tmp_path / "wrong.npy", np.ones((2, 2)))
    (tmp_path / "torn.npy").touch()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        data.load(f"digits:{end.format(tmp=tmp_path)}")


def test_digits_fill_the_byte_range():
    images = data.load("digits", "train+validation").images
    assert images.dtype == np.uint8 and images.shape[1:] == (8, 8, 1)
    assert images.min() == 0 and images.max() == 255 and len(np.unique(images)) == 17


def test_digits_split_into_everything_without_overlap():
    parts = {split: data.load("digits", split) for split in PARTS}
    rows = np.concatenate([part.indices for part in parts.values()])
    np.testing.assert_array_equal(np.sort(rows), np.arange(1797))
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 1295,
        "validation": 143,
        "test": 359,
    }
    both = data.load("digits", "train+validation")
    np.testing.assert_array_equal(
        both.indices, np.sort(np.concatenate([parts[s].indices for s in ("train", "validation")]))
    )


def test_carved_splits_hold_every_class_in_its_share():
    whole = np.bincount(data.load("digits", "train+validation").labels)
    part = np.bincount(data.load("digits", "validation").labels)
    assert np.abs(part - whole / 10).max() <= 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=10, max_size=80), st.data())
def test_a_stratified_sample_is_within_one_of_each_share(labels, draw):
    from robustjax.data.carving import stratified

    labels = np.array(labels)
    size = draw.draw(st.integers(0, len(labels)))
    rows = stratified(labels, size)
    assert len(rows) == size and len(set(rows)) == size
    share = np.bincount(labels, minlength=5) * size / len(labels)
    assert np.abs(np.bincount(labels[rows], minlength=5) - share).max() < 2


def test_indices_lead_back_to_the_source(tmp_path):
    name = write_arrays(tmp_path)
    source = np.load(tmp_path / "train_images.npy")
    for split in ("train", "validation"):
        part = data.load(name, split)
        np.testing.assert_array_equal(part.images, source[part.indices])
    np.testing.assert_array_equal(data.load(name, "test").indices, np.arange(8))


def test_validation_is_at_most_a_thousand(tmp_path):
    n = 20_000
    name = write_arrays(
        tmp_path, train_images=np.zeros((n, 1, 1, 1), np.uint8), train_labels=np.arange(n) % 7
    )
    assert len(data.load(name, "validation")) == 1_000
    assert len(data.load(name, "train")) == 19_000


@pytest.mark.parametrize("split", ["val", "Train", ""])
def test_an_unknown_split_names_the_known(split):
    with pytest.raises(ValueError, match=r"choose one of train, validation, test, train\+valid"):
        data.load("digits", split)


# ---- arrays


def test_arrays_are_read_as_they_are(tmp_path):
    name = write_arrays(tmp_path)
    test = data.load(name, "test")
    np.testing.assert_array_equal(test.images, np.load(tmp_path / "test_images.npy"))
    np.testing.assert_array_equal(test.labels, np.arange(8) % 4)
    assert test.num_classes == 4 and test.class_names is None and test.split == "test"
    assert isinstance(test.images, np.memmap)


def test_arrays_with_their_own_validation_lose_nothing_of_train(tmp_path):
    name = write_arrays(tmp_path, {"train": 40, "validation": 12, "test": 8})
    parts = {split: data.load(name, split) for split in data.SPLITS}
    assert [len(parts[s]) for s in data.SPLITS] == [40, 12, 8, 52]
    assert isinstance(parts["train"].images, np.memmap)
    np.testing.assert_array_equal(parts["validation"].indices, np.arange(40, 52))
    np.testing.assert_array_equal(parts["train+validation"].indices, np.arange(52))
    np.testing.assert_array_equal(parts["train+validation"].images[40:], parts["validation"].images)


@pytest.mark.parametrize(
    ("replaced", "split", "message"),
    [
        ({"train_images": np.zeros((40, 6, 5, 3))}, "train", "images must be uint8.*float64"),
        ({"train_images": np.zeros((40, 6, 5), np.uint8)}, "train", "must be uint8 of shape"),
        ({"train_labels": np.zeros(39, int)}, "train", "labels must be 40 integers"),
        ({"train_labels": np.zeros(40)}, "train", "train_labels.npy must hold integers"),
        ({"test_labels": np.full(8, 4)}, "test", r"labels must lie in \[0, 4\), got 4 to 4"),
        ({"test_labels": np.zeros(8)}, "test", "labels must be 8 integers"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, replaced, split, message):
    with pytest.raises(ValueError, match=message):
        data.load(write_arrays(tmp_path, **replaced), split)


@pytest.mark.parametrize("file", ["train_images", "train_labels", "test_images", "test_labels"])
def test_a_missing_array_is_named(tmp_path, file):
    name = write_arrays(tmp_path)
    (tmp_path / f"{file}.npy").unlink()
    with pytest.raises(FileNotFoundError, match=f"needs {file}.npy: the folder must hold"):
        data.load(name, file.split("_")[0])


def test_a_torn_array_is_named(tmp_path):
    name = write_arrays(tmp_path)
    path = tmp_path / "train_images.npy"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"train_images\.npy is damaged"):
        data.load(name)


# ---- TFDS


def test_a_tfds_set_is_read_without_its_other_features(tfds_dir):
    test = data.load("tiny_images", "test", tfds_dir)
    assert test.images.shape == (10, *SHAPE) and test.images.dtype == np.uint8
    values = test.images[:, 0, 0, 0]
    np.testing.assert_array_equal(np.sort(values), np.arange(10))
    np.testing.assert_array_equal(test.labels, values % 3)
    assert test.class_names == ("a", "b", "c") and test.num_classes == 3
    np.testing.assert_array_equal(test.indices, np.arange(10))


def test_a_tfds_sets_own_validation_is_used(tfds_dir):
    sizes = [len(data.load("tiny_held_out", split, tfds_dir)) for split in data.SPLITS]
    assert sizes == [20, 6, 10, 26]


def test_without_a_test_split_validation_is_what_is_tested_on(tfds_dir):
    parts = {split: data.load("tiny_no_test", split, tfds_dir) for split in data.SPLITS}
    assert [len(parts[s]) for s in data.SPLITS] == [18, 2, 6, 20]
    assert not set(parts["train"].indices) & set(parts["validation"].indices)


def test_available_lists_what_is_prepared(tfds_dir, tmp_path):
    found = data.available(tfds_dir)
    assert list(found)[:3] == ["digits", "folder:DIR", "arrays:DIR"]
    assert found["tiny_held_out"] == "1.0.0: train 20, validation 6, test 10"
    names = {"digits", "folder:DIR", "arrays:DIR", "hf:NAME"}
    assert set(data.available(str(tmp_path / "nowhere"))) == names


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'robustjax\[datasets\]'"):
        data.load("hf:some/set")


def test_missing_data_name_the_command(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        data.load("cifar10", data_dir=str(tmp_path))
    assert f"robustjax data prepare cifar10 --data-dir {tmp_path}" in str(error.value)
    assert "pass the --data-dir that holds it" in str(error.value)
    assert str(tmp_path / "cifar10") in str(error.value)


def test_an_unknown_set_names_its_neighbours(tmp_path):
    with pytest.raises(ValueError, match=r"data set 'cifar11'.*did you mean cifar10.*arrays:"):
        data.load("cifar11", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny_many", r"uint8 images of shape \(None, None, None\).*arrays:DIR"),
        ("tiny_sequence", r"not an image classification set: among its features \(\) 0 could be"),
        ("tiny_text", r"not an image classification set: among its features \(id\) 0 could be"),
    ],
)
@pytest.mark.parametrize(
    "call", [data.prepare, lambda name, folder: data.load(name, data_dir=folder)]
)
def test_sets_of_another_kind_are_refused(name, message, call, tmp_path):
    with pytest.raises(ValueError, match=message):
        call(name, str(tmp_path))


def test_pictures_of_any_size_become_squares(tmp_path):
    data.prepare("tiny_varying:size=4", str(tmp_path))
    with pytest.raises(ValueError, match=r"tiny_varying/1\.0\.0 vary in size: .*:size=64 resizes"):
        data.load("tiny_varying", data_dir=str(tmp_path))
    test = data.load("tiny_varying:size=4", "test", str(tmp_path))
    assert test.images.shape == (10, 4, 4, 3) and test.name == "tiny_varying:size=4"
    number = test.images[:, 0, -1, 0]
    assert sorted(number) == list(range(10)) and (test.labels == number % 3).all()
    np.testing.assert_array_equal(test.images[:, :, 0], 0)
    np.testing.assert_array_equal(test.images[:, :, -1], np.zeros((4, 3)) + number[:, None, None])
    small = data.load("tiny_varying:size=2", "test", str(tmp_path))
    assert small.images.shape[1:] == (2, 2, 3) and small.digest != test.digest
    assert ":size=64 is 64x64" in data.available(str(tmp_path))["tiny_varying"]


def test_what_a_killed_preparation_left_is_removed(tmp_path):
    left = tmp_path / "tiny_no_test" / "incomplete.AB12CD_1.0.0"
    left.mkdir(parents=True)
    (left / "part").touch()
    message = "the preparation of another process is writing to"
    with locked(left.parent, "a test"), pytest.raises(ValueError, match=message):
        data.prepare("tiny_no_test", str(tmp_path))
    path = data.prepare("tiny_no_test", str(tmp_path))
    assert {p.name for p in left.parent.iterdir()} == {".lock", path.name}
    assert "tiny_no_test" in data.available(str(tmp_path))


def test_images_of_one_size_are_resized_on_demand(tfds_dir):
    found = data.load("tiny_images:size=3", "test", tfds_dir)
    whole = data.load("tiny_images", "test", tfds_dir)
    np.testing.assert_array_equal(found.images, whole.images[:, :3, :3])


@pytest.mark.parametrize("size", ["", "0", "-1", "1e3", "9999", "64x64"])
def test_sizes_that_are_none_are_refused(tfds_dir, size):
    with pytest.raises(ValueError, match="size of tiny_images must be a whole number in"):
        data.load(f"tiny_images:size={size}", data_dir=tfds_dir)


def test_a_picture_of_other_channels_is_named(tmp_path):
    data.prepare("tiny_channels", str(tmp_path))
    message = "image 0 of tiny_channels:size=4 cannot be read: it has 4 channels, not 3"
    with pytest.raises(ValueError, match=message):
        data.load("tiny_channels:size=4", data_dir=str(tmp_path))


def test_preparing_arrays_without_tensorflow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # absent, even where it is installed
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'robustjax\[prepare\]'"):
        data.prepare("tiny_arrays", str(tmp_path))


def test_a_set_to_download_by_hand_says_what_goes_where(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"by hand: .*manual.*Ask the authors") as error:
        data.prepare("tiny_by_hand", str(tmp_path))
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("name", ["digits", "arrays:mine", "folder:mine"])
def test_local_data_need_no_preparation(name):
    with pytest.raises(ValueError, match="needs no preparation"):
        data.prepare(name)


def test_a_set_stored_for_tensorflow_is_refused(tfds_dir, monkeypatch):
    monkeypatch.setattr(
        tfds.core.DatasetInfo, "file_format", tfds.core.FileFormat.TFRECORD, raising=True
    )
    for call in (data.prepare, lambda name, folder: data.load(name, "train", folder)):
        with pytest.raises(FileNotFoundError, match=r"stored as tfrecord.*another folder"):
            call("tiny_images", tfds_dir)


def test_loading_imports_neither_tensorflow_nor_torch(tfds_dir, tmp_path):
    program = (
        "import sys; from robustjax import data; data.load('digits'); "
        "from tests.test_data import TinyImages; "
        f"data.load('tiny_images', 'test', {tfds_dir!r}); data.available({tfds_dir!r}); "
        "print(sorted({'tensorflow', 'torch'} & set(sys.modules)))"
    )
    path = os.pathsep.join([os.getcwd(), *sys.path])
    out = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == "[]"


# ---- cache


def decodes(name, folder, split="test"):
    """Whether loading had to decode, as opposed to reading the cache."""
    from unittest import mock

    with mock.patch.object(data.tfds.TFDS, "_decode", autospec=True) as decode:
        decode.side_effect = ZeroDivisionError
        try:
            data.load(name, split, folder)
        except ZeroDivisionError:
            return True
    return False


def test_a_set_is_decoded_once(tfds_dir):
    assert decodes("tiny_images", tfds_dir)
    first = data.load("tiny_images", "test", tfds_dir)
    assert not decodes("tiny_images", tfds_dir)
    np.testing.assert_array_equal(data.load("tiny_images", "test", tfds_dir).images, first.images)
    assert decodes("tiny_images", tfds_dir, "train")


def test_another_folder_is_another_cache(tfds_dir, tmp_path):
    data.load("tiny_images", "test", tfds_dir)
    data.prepare("tiny_images", str(tmp_path / "other"))
    assert decodes("tiny_images", str(tmp_path / "other"))


IMAGES = np.arange(60, dtype=np.uint8).reshape(5, 4, 3, 1)


def kept(name, made=None):
    """The five images as a source would have them cached; `made` counts how often."""

    def make():
        if made is not None:
            made.append(1)
        return zip(IMAGES, range(5), strict=True)

    return cache.decoded(name, lambda: IMAGES.shape, make)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_cache_is_made_again(tmp_path_factory, draw):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUSTJAX_CACHE", str(folder))
        kept("a")
        whole = (folder / "a.npz").read_bytes()
        at = draw.draw(st.integers(0, len(whole) - 1))
        if draw.draw(st.booleans()):
            damaged = whole[:at]
        else:
            damaged = (
                whole[:at] + bytes([whole[at] ^ draw.draw(st.integers(1, 255))]) + whole[at + 1 :]
            )
        (folder / "a.npz").write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = kept("a")
        np.testing.assert_array_equal(found["images"], IMAGES)
        np.testing.assert_array_equal(found["labels"], np.arange(5))
        assert found["images"].dtype == np.uint8 and found["labels"].dtype == np.int32


def test_a_torn_cache_says_so_and_is_replaced():
    made = []
    kept("x", made)
    path = cache.folder() / "x.npz"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.warns(UserWarning, match="damaged.*decoded again"):
        kept("x", made)
    np.testing.assert_array_equal(kept("x", made)["images"], IMAGES)
    assert len(made) == 2


def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ROBUSTJAX_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="set ROBUSTJAX_CACHE"):
        np.testing.assert_array_equal(kept("x")["images"], IMAGES)
    monkeypatch.setattr(parallel, "machine_memory", lambda: 100)
    with pytest.raises(OSError, match="set ROBUSTJAX_CACHE to a writable folder with"):
        kept("x")


def test_the_cache_is_in_the_home_folder_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("ROBUSTJAX_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == tmp_path / ".cache" / "robustjax"


# ---- batches

sizes_and_batches = st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))
seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(0, 5), sizes_and_batches)
def test_an_epoch_is_a_permutation_but_for_the_rest(seed, epoch, size_and_batch):
    size, batch = size_and_batch
    steps = data.steps_per_epoch(size, batch)
    rows = [data.batch_indices(seed, epoch * steps + s, size, batch) for s in range(steps)]
    assert all(r.shape == (batch,) and r.dtype == np.int32 for r in rows)
    rows = np.concatenate(rows)
    assert len(set(rows)) == len(rows) == steps * batch > size - batch
    assert rows.min() >= 0 and rows.max() < size


@given(seeds, st.integers(0, 200), sizes_and_batches)
def test_batches_are_a_pure_function(seed, step, size_and_batch):
    from robustjax.data import batches

    first = data.batch_indices(seed, step, *size_and_batch)
    batches._permutation.cache_clear()
    np.testing.assert_array_equal(data.batch_indices(seed, step, *size_and_batch), first)


def test_batches_do_not_change_with_releases():
    assert data.batch_indices(3, 7, 100, 8).tolist() == [98, 13, 93, 8, 45, 16, 4, 46]


def test_epochs_and_seeds_are_in_different_orders():
    orders = [data.batch_indices(s, e, 100, 100).tolist() for s in range(3) for e in range(3)]
    assert len({tuple(o) for o in orders}) == 9


def test_a_batch_cannot_be_written_into():
    with pytest.raises(ValueError, match="read-only"):
        data.batch_indices(0, 0, 10, 5)[0] = 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 10, 11), r"batch size must lie in \[1, 10\]"),
        ((0, 0, 10, 0), r"batch size must lie in \[1, 10\]"),
        ((0, -1, 10, 5), "step must lie in"),
        ((-1, 0, 10, 5), "seed must be .* got -1"),
        ((2**32, 0, 10, 5), "seed must be .* got 4294967296"),
    ],
)
def test_impossible_batches_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.batch_indices(*arguments)


@given(st.integers(1, 6), st.integers(1, 6))
def test_shards_in_order_are_the_batch(processes, each):
    batch = np.random.default_rng(0).permutation(processes * each)
    blocks = [data.shard(batch, p, processes) for p in range(processes)]
    assert {len(b) for b in blocks} == {each}
    np.testing.assert_array_equal(np.concatenate(blocks), batch)


@pytest.mark.parametrize(
    ("process", "processes", "message"), [(0, 3, "multiple of 3"), (2, 2, "no process 2 among 2")]
)
def test_impossible_shards_are_refused(process, processes, message):
    with pytest.raises(ValueError, match=message):
        data.shard(np.arange(8), process, processes)


# ---- augmentation

H, W = 4, 6
IMAGE = np.random.default_rng(0).random((H, W, 2)).astype(np.float32)
PAD = 2
KEYS = 1_000


def candidates(mode):
    """Every crop of the padded image and its mirror image, the identity among them."""
    padded = np.pad(IMAGE, ((PAD, PAD), (PAD, PAD), (0, 0)), mode)
    offsets = itertools.product(range(2 * PAD + 1), repeat=2)
    crops = [padded[i : i + H, j : j + W] for i, j in offsets]
    return np.stack(crops + [c[:, ::-1] for c in crops])


def augmented(config, keys):
    return np.asarray(jax.jit(jax.vmap(config, in_axes=(0, None)))(keys, jnp.asarray(IMAGE)))


@pytest.mark.parametrize(("mode", "numpy_mode"), [("zero", "constant"), ("reflect", "reflect")])
def test_every_crop_and_mirror_image_comes_up_and_nothing_else(mode, numpy_mode):
    images = augmented(data.Augment(PAD, mode), jax.random.split(jax.random.key(0), KEYS))
    matches = (images[:, None] == candidates(numpy_mode)[None]).all((2, 3, 4))
    assert (matches.sum(1) == 1).all()
    counts = matches.sum(0)
    assert counts.min() > 0 and counts.max() < 4 * KEYS / len(counts)


def test_without_pad_and_flip_nothing_changes():
    images = augmented(data.Augment(pad=0, flip=False), jax.random.split(jax.random.key(0), 5))
    np.testing.assert_array_equal(images, np.stack([IMAGE] * 5))


def test_flip_alone_mirrors_half():
    images = augmented(data.Augment(pad=0), jax.random.split(jax.random.key(0), KEYS))
    same, mirrored = ((images == x).all((1, 2, 3)) for x in (IMAGE, IMAGE[:, ::-1]))
    assert (same ^ mirrored).all() and abs(mirrored.mean() - 0.5) < 0.06


def test_shifts_are_uniform_fractions_interpolated_with_the_border_repeated():
    """Every image is SciPy's shift of the original; the shifts are read off a ramp."""
    config = data.Augment(pad=0, shift=0.25, flip=False)
    ramp = np.stack(np.meshgrid(np.arange(40.0), np.arange(80.0), indexing="ij"), -1)
    keys = jax.random.split(jax.random.key(0), 200)
    ramps = jax.jit(jax.vmap(config, in_axes=(0, None)))(keys, jnp.asarray(ramp, jnp.float32))
    found = (ramp - np.asarray(ramps))[:, 20, 40] / [40, 80]
    assert np.abs(found).max() < 0.25 and np.abs(found.mean(0)).max() < 0.05
    np.testing.assert_allclose(found.std(0), 0.25 / np.sqrt(3), rtol=0.15)
    again = jax.random.split(jax.random.key(0), 200)
    for image, by in zip(augmented(config, again), found, strict=True):
        want = ndimage.shift(IMAGE, (*(by * [H, W]), 0), order=1, mode="nearest")
        np.testing.assert_allclose(image, want, atol=1e-4)


def test_vmap_is_the_loop_and_the_key_decides():
    config = data.Augment(PAD)
    together = augmented(config, jax.random.split(jax.random.key(1), 8))
    one_by_one = [config(k, jnp.asarray(IMAGE)) for k in jax.random.split(jax.random.key(1), 8)]
    np.testing.assert_array_equal(together, np.stack(one_by_one))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "edge"}, "mode must be one of reflect, zero, got 'edge'"),
        ({"pad": 4}, r"cannot pad an image of shape \(4, 6, 2\) by 4 with mode 'reflect'"),
        ({"pad": -1, "mode": "zero"}, "pad must lie in .* got -1"),
        ({"pad": 0, "shift": 1.5}, "shift must lie in"),
        ({"pad": 1, "shift": 0.1}, "needs pad 0, got shift 0.1 and pad 1"),
    ],
)
def test_impossible_augmentation_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.augment(jax.random.key(0), jnp.asarray(IMAGE), **arguments)


def test_a_batch_is_no_image():
    with pytest.raises(ValueError, match="must have the shape"):
        data.augment(jax.random.key(0), jnp.zeros((2, H, W, 2)))


def test_cutout_is_a_square_around_a_pixel_as_far_as_it_lies_in_the_image():
    still = {"pad": 0, "flip": False}
    keys, ones = jax.random.split(jax.random.key(0), 200), jnp.ones((H, W, 1))
    images = np.asarray(jax.vmap(lambda k: data.augment(k, ones, cutout=3, **still))(keys))
    sides = set()
    for image in images[..., 0]:
        rows, columns = np.flatnonzero((image == 0).any(1)), np.flatnonzero((image == 0).any(0))
        assert (image[np.ix_(rows, columns)] == 0).all() and (image == 1).sum() + (
            rows.size * columns.size
        ) == image.size
        sides.add((rows.size, columns.size))
    assert sides == {(a, b) for a in (2, 3) for b in (2, 3)}
    assert (images == 0).mean(0).min() > 0  # the whole image is reached
    key = jax.random.key(1)
    moved = data.augment(jax.random.clone(key), IMAGE, pad=1)
    cut = np.asarray(data.Augment(pad=1, cutout=3)(key, IMAGE))
    np.testing.assert_array_equal(
        cut[cut != 0], np.asarray(moved)[cut != 0]
    )  # the rest is as it was


def test_equal_augmentations_are_one_program():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def traced_once(config, key, image):
        return config(key, image)

    for k in range(2):
        traced_once(data.Augment(PAD), jax.random.key(k), jnp.asarray(IMAGE))
    with pytest.raises(AssertionError, match="traced"):
        traced_once(data.Augment(PAD, flip=False), jax.random.key(2), jnp.asarray(IMAGE))


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("digits", (8, 8, 1), data.Augment(pad=0, flip=False)),
        ("mnist", (28, 28, 1), data.Augment(pad=0, flip=False)),
        ("cifar10", (32, 32, 3), data.Augment(pad=4, mode="reflect", flip=True)),
        ("svhn_cropped", (32, 32, 3), data.Augment(pad=4, flip=False)),
    ],
)
def test_default_augmentation(name, shape, expected):
    assert data.default_augment(name, shape) == expected


def test_a_card_s_augmentation_is_for_colour_images():
    usual = data.Augment(pad=0, shift=0.1)
    assert data.default_augment("cifar10", (32, 32, 3), usual) == usual
    assert data.default_augment("digits", (8, 8, 1), usual) == data.Augment(pad=0, flip=False)
    house = data.default_augment("svhn_cropped", (32, 32, 3), usual)
    assert house == data.Augment(pad=0, shift=0.1, flip=False)


def test_to_float_is_exact_to_the_last_bit_at_every_level():
    levels = np.arange(256, dtype=np.uint8)
    floats = np.asarray(data.to_float(levels))
    assert floats.dtype == np.float32
    np.testing.assert_array_max_ulp(floats, levels / np.float32(255), maxulp=1)
    assert floats[0] == 0 and floats[-1] == 1
    np.testing.assert_array_equal(np.round(floats * 255).astype(np.uint8), levels)


# ---- the real sets, where they are


@pytest.fixture(scope="module")
def real_dir():
    folder = os.environ.get("ROBUSTJAX_DATA_DIR")
    if not folder:
        pytest.skip("REAL DATA NOT TESTED: set ROBUSTJAX_DATA_DIR to prepared cifar10 and mnist")
    return folder


@pytest.mark.parametrize(
    ("name", "shape", "train", "mean"),
    [("mnist", (28, 28, 1), 60_000, 0.1307), ("cifar10", (32, 32, 3), 50_000, 0.4734)],
)
def test_real_sets_have_their_known_size_and_mean(real_dir, name, shape, train, mean):
    whole = data.load(name, "train+validation", real_dir)
    assert whole.image_shape == shape and len(whole) == train and whole.num_classes == 10
    assert abs(whole.images.mean() / 255 - mean) < 1e-4
    parts = {split: data.load(name, split, real_dir) for split in PARTS}
    assert len(parts["validation"]) == 1_000 and len(parts["train"]) == train - 1_000
    assert not set(parts["train"].indices) & set(parts["validation"].indices)
    assert set(np.unique(parts["test"].labels)) == set(range(10))


def test_a_set_to_test_on_alone(tmp_path):
    """As CIFAR-10-C and ImageNet-A are published; of a validation split the same holds."""
    name = write_arrays(tmp_path)
    for file in ("train_images", "train_labels"):
        (tmp_path / f"{file}.npy").unlink()
    test = data.load(name, "test")
    assert len(test) == 8 and test.num_classes == 1 + test.labels.max()
    with pytest.raises(ValueError, match="no train split; it has test, so models of another"):
        data.load(name, "train")
