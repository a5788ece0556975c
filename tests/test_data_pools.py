"""Pools of extra images: folders and archives, mapped and not read."""

import numpy as np
import pytest

from robustjax import data

SHAPE = (3, 2, 1)
IMAGES = np.arange(7 * 6, dtype=np.uint8).reshape(7, *SHAPE)
LABELS = np.arange(7) % 3
TARGETS = ((np.eye(3)[(LABELS + 1) % 3] + 0.5) / 2.5).astype(np.float32)


def folder(path, **arrays):
    for kind, array in arrays.items():
        np.save(path / f"train_{kind}.npy", array)
    return f"arrays:{path}"


def archive(path, **arrays):
    np.savez(path / "pool.npz", **arrays)
    return f"arrays:{path / 'pool.npz'}"


def singular(path, **arrays):
    return archive(path, **{kind[:-1]: array for kind, array in arrays.items()})


forms = pytest.mark.parametrize("write", [folder, archive, singular])


@forms
def test_arrays_are_mapped_where_they_lie(tmp_path, write):
    name = write(tmp_path, images=IMAGES, labels=LABELS, targets=TARGETS)
    pool = data.open_pool(name)
    for kind, array in (("images", IMAGES), ("labels", LABELS), ("targets", TARGETS)):
        assert isinstance(pool[kind], np.memmap) and not pool[kind].flags.writeable
        np.testing.assert_array_equal(pool[kind], array)
        assert pool[kind].dtype == array.dtype


def test_an_archive_keeps_the_order_of_its_axes(tmp_path):
    name = archive(tmp_path, images=np.asfortranarray(IMAGES))
    np.testing.assert_array_equal(data.open_pool(name)["images"], IMAGES)


@forms
def test_labels_may_be_given_or_follow_from_the_targets(tmp_path, write):
    hard = data.load_extra(write(tmp_path, images=IMAGES, labels=LABELS), 3)
    np.testing.assert_array_equal(hard.labels, LABELS)
    assert hard.targets is None and isinstance(hard.images, np.memmap)
    for file in tmp_path.iterdir():
        file.unlink()
    soft = data.load_extra(write(tmp_path, images=IMAGES, targets=TARGETS), 3)
    np.testing.assert_array_equal(soft.labels, (LABELS + 1) % 3)
    np.testing.assert_array_equal(soft.take(np.array([4, 2])).targets, TARGETS[[4, 2]])
    both = data.load_extra(write(tmp_path, images=IMAGES, labels=LABELS, targets=TARGETS), 3)
    np.testing.assert_array_equal(both.labels, LABELS)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES}, "neither labels nor targets; `robustjax pseudo-label"),
        ({"images": IMAGES, "labels": LABELS + 1}, r"labels must lie in \[0, 3\)"),
        ({"images": IMAGES, "labels": LABELS[1:]}, "labels must be 7 integers"),
        ({"images": IMAGES, "targets": TARGETS * 2}, "targets must be distributions"),
        ({"images": IMAGES, "targets": TARGETS - 0.3}, "targets must be distributions"),
        ({"images": IMAGES, "targets": TARGETS[:, 0]}, "targets must be distributions"),
        ({"images": IMAGES, "labels": LABELS, "targets": np.eye(7)}, r"of shape \(7, 3\), got"),
        ({"images": IMAGES / 255, "labels": LABELS}, "images must be uint8"),
    ],
)
@pytest.mark.parametrize("write", [folder, archive])
def test_what_cannot_be_trained_on_says_why(tmp_path, write, arrays, message):
    with pytest.raises(ValueError, match=message):
        data.load_extra(write(tmp_path, **arrays), 3)


def test_files_that_cannot_be_mapped_say_why(tmp_path):
    path = tmp_path / "pool.npz"
    np.savez_compressed(path, images=IMAGES)
    with pytest.raises(ValueError, match=r"it is compressed; write it with np\.savez"):
        data.open_pool(f"arrays:{path}")
    np.savez(path, images=np.array([None]))
    with pytest.raises(ValueError, match="it holds Python objects"):
        data.open_pool(f"arrays:{path}")
    path.write_bytes(b"PK torn")
    with pytest.raises(ValueError, match="is damaged, or of another format"):
        data.open_pool(f"arrays:{path}")
    for nothing in (folder(tmp_path / "nowhere"), archive(tmp_path, labels=LABELS)):
        with pytest.raises(FileNotFoundError, match="has no images"):
            data.open_pool(nothing)
    with pytest.raises(ValueError, match=r"arrays:DIR or arrays:FILE\.npz, got 'cifar10'"):
        data.open_pool("cifar10")
