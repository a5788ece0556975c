"""PyTorch's files: whole ones give the tensors, torn ones a sentence, hostile ones nothing."""

import collections
import json
import os
import pathlib
import pickle
import zipfile

import numpy as np
import pytest

from robustjax.models.pytorch.file import read_state_dict

GOLDEN = pathlib.Path(__file__).parent / "golden" / "from_torch"
FILES = ("resnet.pt", "preact.pth", "wide.safetensors")


def zipped(path, content, data=b""):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/data/0", data)
    return path


class Code:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("file", FILES)
def test_tensors_have_names_and_shapes(file):
    state = read_state_dict(GOLDEN / file)
    prefix = {"resnet.pt": "module.", "preact.pth": "1.", "wide.safetensors": ""}[file]
    assert state[f"{prefix}conv1.weight"].shape == (2, 3, 3, 3)
    assert state[f"{prefix}conv1.weight"].dtype == np.float32


@pytest.mark.parametrize("legacy", [False, True])
def test_every_kind_of_tensor_is_what_pytorch_reads(legacy, tmp_path):
    torch = pytest.importorskip("torch")
    whole = torch.arange(24.0).reshape(4, 6)
    state = {
        "whole": whole,
        "transposed": whole.T,
        "slice": whole[1:3, ::2],
        "expanded": torch.ones(3, 1).expand(3, 4),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 2),
        "parameter": torch.nn.Parameter(torch.randn(3)),
    }
    floats = ("float64", "float32", "float16", "bfloat16")
    for kind in (*floats, "int64", "int32", "int16", "int8", "uint8", "bool"):
        state[kind] = (torch.arange(5) > 2).to(getattr(torch, kind))
    path = tmp_path / "weights.pt"
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    theirs, ours = torch.load(path, weights_only=True), read_state_dict(path)
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        if name == "bfloat16":
            assert ours[name].dtype == name
            tensor = tensor.float()
        np.testing.assert_array_equal(
            ours[name].astype(tensor.detach().numpy().dtype), tensor.detach()
        )


def test_safetensors_are_what_their_library_reads():
    safetensors = pytest.importorskip("safetensors.numpy")
    theirs = safetensors.load_file(GOLDEN / "wide.safetensors")
    ours = read_state_dict(GOLDEN / "wide.safetensors")
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)


@pytest.mark.parametrize("file", FILES)
def test_torn_files_are_refused_by_name(file, tmp_path):
    whole = (GOLDEN / file).read_bytes()
    for keep in (0, 1, 7, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / file).write_bytes(whole[:keep])
        with pytest.raises(ValueError, match=rf"{file} is damaged or not a PyTorch weights file"):
            read_state_dict(tmp_path / file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.pt. is no weights file"):
        read_state_dict(tmp_path / "gone.pt")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("where", ["value", "key"])
def test_code_in_a_file_does_not_run(where, protocol, legacy, tmp_path):
    """Only the name of what a hostile file calls is ever looked at."""
    code = Code(os.mkdir, (str(tmp_path / "ran"),))
    content = pickle.dumps({"a": code} if where == "value" else {code: 1}, protocol)
    path = tmp_path / "hostile.pt"
    if legacy:
        path.write_bytes(content)
    else:
        zipped(path, content)
    with pytest.raises(ValueError, match=r"hostile\.pt needs \w+\.mkdir, which would run"):
        read_state_dict(path)
    assert not (tmp_path / "ran").exists()
    pickle.loads(content)
    assert (tmp_path / "ran").exists()  # the file was hostile


@pytest.mark.parametrize(
    "name", [("builtins", "getattr"), ("torch", "load"), ("torch._utils", "_rebuild_tensor_v2.x")]
)
def test_no_other_name_is_known(name, tmp_path):
    content = b"\x80\x04\x8c" + bytes([len(name[0])]) + name[0].encode()
    content += b"\x8c" + bytes([len(name[1])]) + name[1].encode() + b"\x93."
    with pytest.raises(ValueError, match=rf"needs {name[0]}\.{name[1]}, which"):
        read_state_dict(zipped(tmp_path / "w.pt", content))


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [
        (0, (5,), (1,)),
        (3, (2,), (1,)),
        (0, (2, 2), (3, 2)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (9, (1,), (1,)),
    ],
)
def test_a_tensor_stays_within_its_numbers(offset, shape, stride, tmp_path):
    """Strides come from the file: without a check they would read other memory."""

    good = _tensor(tmp_path / "good.pt", 0, (2, 2), (2, 1))
    np.testing.assert_array_equal(read_state_dict(good)["w"], [[0, 1], [2, 3]])
    with pytest.raises(ValueError, match="is damaged"):
        read_state_dict(_tensor(tmp_path / "bad.pt", offset, shape, stride))


def _tensor(path, offset, shape, stride):
    """A file with one tensor 'w' over the numbers 0 to 3, in pickle's protocol 0 by hand."""

    def ints(values):
        return b"(" + b"".join(b"I%d\n" % v for v in values) + b"t"

    pid = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\nt" + b"Q"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + b"I%d\n" % offset
    call += ints(shape) + ints(stride) + b"I00\nNtR"
    return zipped(path, b"(dS'w'\n" + call + b"s.", np.arange(4, dtype="<f4").tobytes())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "ema": {}}, "has no state_dict among 'epoch', 'ema'; load it yourself"),
        ({}, "has no state_dict among ;"),
        ([1, 2], "holds a list; save `model.state_dict"),
        ({"net": collections.OrderedDict(a=1)}, "has no state_dict among 'a'"),
    ],
)
def test_files_without_weights_are_refused(content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_state_dict(zipped(tmp_path / "w.pt", pickle.dumps(content, 2)))


def test_numbers_of_another_byte_order_or_type_are_refused(tmp_path):
    path = _tensor(tmp_path / "w.pt", 0, (4,), (1,))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/byteorder", "big")
    with pytest.raises(ValueError, match="big-endian"):
        read_state_dict(path)
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"0")
    with pytest.raises(ValueError, match="holds w as F8_E4M3"):
        read_state_dict(path)
