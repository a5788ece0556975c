import json

import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.files import (
    check_content,
    read_json,
    read_metrics,
    to_json,
    write_json,
)


def test_json_takes_arrays_and_refuses_the_rest(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": jnp.float32(0.5), "b": np.arange(3), "c": np.float64(2.0)})
    assert json.loads(path.read_text()) == {"a": 0.5, "b": [0, 1, 2], "c": 2.0}
    with pytest.raises(TypeError, match="cannot hold <object"):
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
    line.write_text(to_json({"step": 1, "loss": np.inf}) + "\n")
    assert read_metrics(line) == [{"step": 1, "loss": np.inf}]


@pytest.mark.parametrize("damaged", [b"", b'{"a": 1', b"\xff\xfe"])
def test_torn_json_is_refused_by_name(tmp_path, damaged):
    path = tmp_path / "a.json"
    write_json(path, {"a": [1]})
    assert read_json(path) == {"a": [1]}
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"a\.json is damaged"):
        read_json(path)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[1, " + b"9" * 5000 + b"]"])
def test_json_that_python_gives_up_on_is_refused_by_name(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")


def test_missing_entries_are_named_with_their_file():
    check_content("a.json", {"a": 1, "b": 2}, {"a": int})
    for content in ({"a": 1}, ["a", "b"], None):
        with pytest.raises(ValueError, match=r"a\.json .* has no .*b"):
            check_content("a.json", content, {"a": int, "b": int})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": "1"}, 'its a is "1", not a number or null'),
        ({"a": True}, "its a is true, not a number"),
        ({"a": 1, "b": {"c": "x"}}, 'its b.c is "x", not a list'),
        ({"a": 1, "b": {}}, r"its b\.c is missing, not a list"),
        ({"a": 1, "b": [1]}, r"its b is \[1\], not an object"),
        ({"a": None, "b": {"c": ["x", 3]}}, r"its b\.c\[1\] is 3, not text"),
    ],
)
def test_entries_of_another_type_are_named(content, message):
    wanted = {"a": (float, type(None)), "b": {"c": [str]}}
    check_content("a.json", {"a": 0.5, "b": {"c": ["x"]}}, wanted)
    with pytest.raises(ValueError, match=rf"a\.json .*{message}"):
        check_content("a.json", {"b": {"c": []}} | content, wanted)


def test_metrics_without_the_torn_last_line(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]


def test_a_torn_line_elsewhere_is_refused(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(ValueError, match="line 2, is not a row"):
        read_metrics(path)
