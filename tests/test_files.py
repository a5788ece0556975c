import json
import os

import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.files import (
    check_keys,
    read_json,
    read_metrics,
    replacing,
    to_json,
    write_arrays,
    write_json,
)


def test_takes_the_place_of_the_old_file(tmp_path):
    path = tmp_path / "new" / "a.txt"
    for text in (b"one", b"two"):
        with replacing(path) as file:
            file.write(text)
        assert path.read_bytes() == text
    assert os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize("compress", [False, True])
def test_arrays_come_back_by_name(tmp_path, compress):
    arrays = {"a": np.arange(3.0), "b/c": np.zeros((1000, 2))}
    write_arrays(tmp_path / "a.npz", arrays, compress)
    with np.load(tmp_path / "a.npz") as found:
        assert {name: found[name].tolist() for name in found.files} == {
            name: a.tolist() for name, a in arrays.items()
        }
    assert ((tmp_path / "a.npz").stat().st_size < 16_000) == compress


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_reader_sees_the_old_file_until_the_block_ends(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_permissions_are_those_of_an_ordinary_file(tmp_path):
    with replacing(tmp_path / "a") as file:
        file.write(b"")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_json_takes_arrays_and_refuses_the_rest(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": jnp.float32(0.5), "b": np.arange(3), "c": np.float64(2.0)})
    assert json.loads(path.read_text()) == {"a": 0.5, "b": [0, 1, 2], "c": 2.0}
    with pytest.raises(TypeError, match="cannot hold a object"):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text())["a"] == 0.5


def test_json_is_strict_and_keeps_what_is_not_finite(tmp_path):
    def refuse(token):
        raise AssertionError(f"{token} is not JSON")

    path, old = tmp_path / "a.json", tmp_path / "old.json"
    data = {"eps": np.inf, "auc": np.nan, "far": [jnp.float32(-np.inf), {"d": np.full(2, np.inf)}]}
    want = {"eps": np.inf, "auc": np.nan, "far": [-np.inf, {"d": [np.inf, np.inf]}]}
    write_json(path, data)
    assert json.loads(path.read_text(), parse_constant=refuse)["eps"] == "Infinity"
    old.write_text(json.dumps(want))  # as it was written once: bare NaN and Infinity
    for found in (read_json(path), read_json(old)):
        np.testing.assert_equal(found, want)
    line = tmp_path / "m.jsonl"
    line.write_text(to_json({"loss": np.inf}) + "\n")
    assert read_metrics(line) == [{"loss": np.inf}]


@pytest.mark.parametrize("damaged", [b"", b'{"a": 1', b"\xff\xfe"])
def test_torn_json_is_refused_by_name(tmp_path, damaged):
    path = tmp_path / "a.json"
    write_json(path, {"a": [1]})
    assert read_json(path) == {"a": [1]}
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"a\.json is damaged"):
        read_json(path)


def test_missing_keys_are_named_with_their_file():
    check_keys("a.json", {"a": 1, "b": 2}, ("a",))
    for content in ({"a": 1}, ["a", "b"], None):
        with pytest.raises(ValueError, match=r"a\.json .* has no .*b"):
            check_keys("a.json", content, ("a", "b"))


def test_metrics_without_the_torn_last_line(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]


def test_a_torn_line_elsewhere_is_refused(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(ValueError, match="line 2, is not JSON"):
        read_metrics(path)
