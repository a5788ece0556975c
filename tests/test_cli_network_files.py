"""A network's file on the command line: the same logits as the Python line gives."""

import dataclasses
import inspect
from pathlib import Path

import jax
import numpy as np
import pytest

from robustjax import models
from robustjax.cli import network_files

GOLDEN = Path(__file__).parent / "golden" / "from_torch"


def same(text, *source, **options):
    theirs, _ = models.from_torch(*source, **options)
    jax.tree.map(np.testing.assert_array_equal, network_files.logits_of(text).args, theirs.args)
    assert network_files.logits_of(text).func == theirs.func


def test_settings_are_those_of_from_torch():
    asked = inspect.signature(models.from_torch).parameters.values()
    keywords = {p.name: p.default for p in asked if p.kind is p.KEYWORD_ONLY}
    assert {f.name: f.default for f in dataclasses.fields(network_files.Torch)} == keywords


def test_a_file_with_settings_is_what_python_reads():
    file = GOLDEN / "resnet.pt"
    same(f"{file}:mean=0.5,0.4,0.3:std=1/4,1,2", file, mean=(0.5, 0.4, 0.3), std=(0.25, 1, 2))
    file = GOLDEN / "preact_raw.pt"
    same(f"{file}:shortcut=raw", file, shortcut="raw")
    same(str(GOLDEN / "wide.safetensors"), GOLDEN / "wide.safetensors")


def test_layers_come_last_and_keep_their_colons(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    state = {
        "a.weight": np.ones((2, 3, 3, 3), np.float32),
        "b.weight": np.ones((5, 32), np.float32),
    }
    safetensors.save_file(state, tmp_path / "net.safetensors")
    layers = "conv:stride=2:padding=1 relu flatten linear"
    same(f"{tmp_path}/net.safetensors:mean=0.5:layers={layers}", state, mean=(0.5,), layers=layers)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (":shortcut=rew", "unknown shortcut of preact_raw.pt: 'rew'"),
        (":patches=4", "unknown field of preact_raw.pt: 'patches'; did you mean patch"),
        (":patch=4:shortcut=raw", "`patch` is for a XCiT of timm; these are weights of a PreAct"),
        ("", "shortcut='activated' .* or 'raw'"),
    ],
)
def test_what_is_wrong_is_named(words, message):
    with pytest.raises(ValueError, match=message):
        network_files.logits_of(f"{GOLDEN / 'preact_raw.pt'}{words}")


def test_names_of_functions_are_no_files():
    assert network_files.stem("my.pt:logits_fn") is None is network_files.stem("a_net:logits_fn")
    with pytest.raises(
        ValueError, match=r"unknown field of net\.onnx: 'layers'; known: channels_first"
    ):
        network_files.logits_of("net.onnx:layers=relu")
    assert network_files.stem("runs/a.pt.safetensors:patch=4") == "a.pt"
