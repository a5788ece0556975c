"""Sets that are too large for memory, which they are said to be here, stay on disk."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustjax import data, parallel
from robustjax.data import cache
from robustjax.data.rows import Rows, join, select

SOURCES = np.arange(24).reshape(6, 4), np.arange(100, 112).reshape(3, 4)
ROWS = st.lists(st.integers(0, 8), min_size=1, max_size=12).map(np.array)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(parallel, "machine_memory", lambda: 400)


@given(ROWS, st.data())
def test_rows_are_those_of_the_array_in_memory(rows, draw):
    want, found = np.concatenate(SOURCES)[rows], Rows(SOURCES, rows)
    assert (found.shape, found.ndim, found.nbytes) == (want.shape, want.ndim, want.nbytes)
    assert len(found) == len(want) and found.dtype == want.dtype
    keys = st.one_of(
        st.integers(-len(rows), len(rows) - 1),
        st.slices(len(rows)),
        ROWS.map(lambda r: r % len(rows)),
    )
    key = draw.draw(keys)
    np.testing.assert_array_equal(found[key], want[key])
    np.testing.assert_array_equal(np.asarray(found), want)
    if not isinstance(key, int):
        np.testing.assert_array_equal(found.take(key), want[key])


def mapped(tmp_path, n):
    np.save(tmp_path / f"{n}.npy", np.arange(n * 10).reshape(n, 10))
    return np.load(tmp_path / f"{n}.npy", mmap_mode="r")


def test_what_fits_is_read_and_the_rest_stays_on_disk(tmp_path, small):
    array = mapped(tmp_path, 20)
    many, few = select(array, np.arange(20) % 2 == 0), select(array, np.array([4]))
    assert isinstance(many, Rows) and isinstance(few, np.ndarray)
    np.testing.assert_array_equal(many, array[::2])
    assert isinstance(select(many, slice(3)), Rows)
    np.testing.assert_array_equal(select(many, np.array([2])), few)
    both = join(many, mapped(tmp_path, 7))
    assert isinstance(both, Rows)
    np.testing.assert_array_equal(both, np.concatenate([array[::2], np.arange(70).reshape(7, 10)]))


@pytest.fixture
def large(tmp_path):
    """8 MB of images without a validation split of their own."""
    images = np.random.default_rng(0).integers(0, 256, (8000, 16, 16, 4)).astype(np.uint8)
    np.save(tmp_path / "train_images.npy", images)
    np.save(tmp_path / "train_labels.npy", np.arange(8000) % 3)
    np.save(tmp_path / "test_images.npy", images[:9])
    np.save(tmp_path / "test_labels.npy", np.arange(9) % 3)
    return f"arrays:{tmp_path}"


def test_a_large_set_is_the_same_and_takes_no_memory(large, monkeypatch):
    want = {split: data.load(large, split) for split in data.SPLITS}
    monkeypatch.setattr(parallel, "machine_memory", lambda: 1 << 20)
    tracemalloc.start()
    try:
        found = {split: data.load(large, split) for split in data.SPLITS}
        digests = [part.digest for part in found.values()]
        batch = data.Plan(found["train"].head(3000), 8, seed=0).batch(5)
        mean, _ = found["train"].channel_statistics()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(found["train"].images, Rows) and peak < 4.5e6
    assert digests == [part.digest for part in want.values()]
    assert mean == want["train"].channel_statistics()[0]
    np.testing.assert_array_equal(batch["image"], want["train"].images[batch["index"]])


def test_decoding_takes_no_memory_either(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTJAX_CACHE", str(tmp_path))
    shape = (300, 100, 100, 1)

    def decoded(name):
        images = (np.full(shape[1:], i % 256, np.uint8) for i in range(shape[0]))
        tracemalloc.start()
        try:
            found = cache.decoded(name, lambda: shape, lambda: zip(images, range(300), strict=True))
            return found, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    want, peak = decoded("memory")
    assert peak > 3 << 20
    monkeypatch.setattr(parallel, "machine_memory", lambda: 1 << 20)
    for _ in range(2):
        found, peak = decoded("disk")
        assert isinstance(found["images"], np.memmap) and peak < 1 << 19
        for name, array in want.items():
            np.testing.assert_array_equal(found[name], array)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disk.npz", "memory.npz"]
