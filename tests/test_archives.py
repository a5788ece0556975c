"""Arrays from files: the same as NumPy's, or an error that names the file."""

import numpy as np
import pytest

from robustjax import archives

ARRAYS = {"a": np.arange(3.0), "b/c": np.asfortranarray(np.ones((4, 5), ">i2")), "d": np.array("x")}


@pytest.mark.parametrize("compress", [False, True])
def test_arrays_come_back_by_name(tmp_path, compress):
    arrays = {"a": np.arange(3.0), "b/c": np.zeros((1000, 2))}
    archives.write_arrays(tmp_path / "a.npz", arrays, compress)
    with np.load(tmp_path / "a.npz") as found:
        assert {name: found[name].tolist() for name in found.files} == {
            name: a.tolist() for name, a in arrays.items()
        }
    assert ((tmp_path / "a.npz").stat().st_size < 16_000) == compress


@pytest.mark.parametrize("read", [archives.read_arrays, archives.map_arrays])
def test_arrays_are_those_that_numpy_reads(tmp_path, read):
    np.savez(tmp_path / "a.npz", empty=np.zeros((0, 3)), **ARRAYS)
    found = read(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as theirs:
        assert list(found) == theirs.files
        for name in theirs.files:
            np.testing.assert_array_equal(found[name], theirs[name])
            assert found[name].dtype == theirs[name].dtype


def test_one_array_is_mapped(tmp_path):
    for array in (np.arange(6).reshape(2, 3), np.zeros((0, 2))):
        np.save(tmp_path / "a.npy", array)
        np.testing.assert_array_equal(archives.map_array(tmp_path / "a.npy"), array)


def test_every_changed_bit_of_an_array_is_seen(tmp_path):
    """What a bit changes elsewhere, such as a date, reads as the same arrays."""
    path = tmp_path / "a.npz"
    np.savez(path, **ARRAYS)
    whole, seen = path.read_bytes(), 0
    bits = np.random.default_rng(0).choice(8 * len(whole), 600, replace=False)
    for bit in map(int, bits):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            found = archives.read_arrays(path)
        except ValueError:
            seen += 1
            continue
        names = zip(found, ARRAYS, strict=True)
        assert sum(a != b for a, b in names) <= 1  # a name, which its reader looks for
        for a, b in zip(found.values(), ARRAYS.values(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert seen > 300


def test_a_large_archive_keeps_its_sizes_elsewhere(tmp_path, monkeypatch):
    """Archives of more than 4 GB: here, with every number too long."""
    monkeypatch.setattr("zipfile.ZIP64_LIMIT", 10)
    monkeypatch.setattr("zipfile.ZIP_FILECOUNT_LIMIT", 0)
    np.savez(tmp_path / "a.npz", **ARRAYS)
    found = archives.read_arrays(tmp_path / "a.npz")
    assert found.keys() == ARRAYS.keys()
    np.testing.assert_array_equal(found["a"], ARRAYS["a"])
