"""Files that nobody should trust: valid ones with damage, and some made to harm their reader.

`files(seed, count)` makes them. As a script, this module reads those listed on its input, one after
the other, and says of each what became of it.
"""

import contextlib
import functools
import io
import itertools
import json
import os
import pathlib
import pickle
import resource
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile

import jax
import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
GOLDEN = pathlib.Path(__file__).parent / "golden" / "from_torch"
SLACK = 1 << 27
"""Bytes that a reader may take beside twice the file: programs that JAX compiles, tables."""
LARGE = 160 << 20
"""Bytes of what is compressed to a thousandth."""

SECONDS = 1.0
"""That a reader may compute."""

PATIENCE = 10
"""Seconds after which a reader is stopped."""

CONFIG = {
    "method": {"type": "PGDAT", "fields": {}},
    "model": {"name": "cnn", "num_classes": 3, "width": 2},
    "image_shape": [8, 8, 1],
    "data": {"name": "digits"},
    "threat": {"type": "Linf", "fields": {"eps": 0.1}},
    "class_names": ["a", "b", "c"],
}
REPORT = {
    "clean": 0.5,
    "robust": {"pgd-10": 0.25},
    "worst_case": 0.25,
    "stderr": {"worst_case": 0.1},
    "warnings": ["none"],
    "threat": CONFIG["threat"],
}
METRICS = [
    {"step": step, "epoch": step / 2, "seconds": 0.1, "split": "train", "loss": 1 / step}
    for step in (1, 2, 3)
]


# ---- what is read, and how


def read(kind, path):
    """Read a file as users do."""
    from robustjax import data, models, report

    if kind in ("resnet.pt", "wide.safetensors"):
        return models.from_torch(path)
    if kind == "preact.pth":
        return models.from_torch(path, shortcut="activated")
    if kind == "weights.npz":
        return models.load_weights(path)
    if kind == "pool.npz":
        return data.load_extra(f"arrays:{path}", 3).images[:1].sum()
    if kind in ("train_labels.npy", "train_images.npy"):
        return data.load(f"arrays:{path.parent}", "train").channel_statistics()
    if kind == "metrics.jsonl":
        return report.training_curves(path, path.parent / "training.png")
    if kind == "report.json":
        return report.table([path.parent])
    return models.load(path.parent), report.table([path.parent])


def arrays(**given):
    file = io.BytesIO()
    np.savez(file, **given)
    return file.getvalue()


def array(given):
    file = io.BytesIO()
    np.save(file, given)
    return file.getvalue()


@functools.cache
def valid():
    """A whole file of each kind."""
    images, labels = np.zeros((30, 8, 8, 1), np.uint8), np.arange(30) % 3
    found = {kind: (GOLDEN / kind).read_bytes() for kind in TORCH}
    found["weights.npz"] = arrays(**{"params/a/kernel": np.ones((4, 5)), "params/b": np.ones(3)})
    found["pool.npz"] = arrays(images=images, labels=labels)
    found |= {"train_labels.npy": array(labels), "train_images.npy": array(images)}
    found |= {
        "config.json": json.dumps(CONFIG).encode(),
        "report.json": json.dumps(REPORT).encode(),
    }
    found["metrics.jsonl"] = "".join(json.dumps(row) + "\n" for row in METRICS).encode()
    return found


TORCH = ("resnet.pt", "preact.pth", "wide.safetensors")


# ---- damage


def damaged(content, rng):
    """The content with one to three changes."""
    for _ in range(rng.integers(1, 4)):
        content = bytearray(content)
        at = int(rng.integers(len(content) or 1))
        match rng.integers(7):
            case 0 if content:
                content[at] ^= 1 << int(rng.integers(8))
            case 1:
                content[at : at + 1] = rng.bytes(1)
            case 2:
                del content[at:]
            case 3:
                content[at:at] = content[at : at + int(rng.integers(1, 64))]
            case 4:
                content[at:at] = rng.bytes(int(rng.integers(1, 16)))
            case 5:
                content[at : at + 4] = rng.choice(
                    [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0" * 4]
                )
            case _:
                del content[at : at + int(rng.integers(1, 64))]
    return bytes(content)


VALUES = [None, True, -1, 1e400, 3.5, "", "x", [], {}, [[]], {"type": "Linf", "fields": {}}, 10**30]


def retyped(content, rng):
    """JSON with one entry of another type, or without it."""
    if content.count(b"\n") > 1:  # a line of several
        lines = content.splitlines()
        at = int(rng.integers(len(lines)))
        return b"\n".join([*lines[:at], retyped(lines[at], rng), *lines[at + 1 :]]) + b"\n"
    tree = json.loads(content)
    places = [(tree, key) for key in tree]
    for node, key in places:
        inner = node[key]
        if isinstance(inner, dict | list):
            keys = inner if isinstance(inner, dict) else range(len(inner))
            places += [(inner, key) for key in keys]
    node, key = places[rng.integers(len(places))]
    if rng.integers(5):
        node[key] = VALUES[rng.integers(len(VALUES))]
    else:
        del node[key]
    return json.dumps(tree).encode()


# ---- made to harm


def zipped(members, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def torch(content, data=bytes(16), method=zipfile.ZIP_STORED):
    return zipped({"a/data.pkl": content, "a/data/0": data}, method)


def ints(*values):
    return b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"


STORAGE = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + b"0X\3\0\0\0cpuI%d\ntQ"


def tensor(storage, offset, shape, stride):
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"I%d\n" % offset
    return call + ints(*shape) + ints(*stride) + b"I00\nNtR"


def named(value, name=b"normalize.mean"):
    return b"\x80\2}X" + struct.pack("<I", len(name)) + name + value + b"s."


class Code:
    def __reduce__(self):
        return exec, ("import pathlib; pathlib.Path('ran').touch()",)


def legacy(content):
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {})]
    return b"".join(head) + content


def header(shape, descr="<f4"):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


HASHED = 2**61 - 1
"""Python's hash of a whole number is its remainder."""


def harmful():
    """(kind, content) of each."""
    whole = tensor(STORAGE % 4, 0, (4,), (1,))
    spread = tensor(STORAGE % 4, 0, (1 << 40,), (0,))
    graph = b"I1\n" + b"q\0h\0\x86" * 60
    deep = b"(" * 300_000 + b"t" * 300_000
    many = (GOLDEN / "resnet.pt").read_bytes()
    pickles = {
        "a view of a view": named(tensor(spread, 0, (1000,), (4096,))),
        "one number a trillion times": named(spread),
        "300 million means": named(tensor(STORAGE % 4, 0, (300_000_000,), (0,))),
        "an endless shape": named(tensor(STORAGE % 4, 0, (0, 1 << 46), (1, 1))),
        "a graph of tuples as a key": b"\x80\2}" + graph + b"I1\ns.",
        "a deep tuple as a key": b"\x80\2}" + deep + b"I1\ns.",
        "a graph of tuples as a name": b"\x80\2" + graph + graph + b"\x93.",
        "a memo of 2**31 entries": b"\x80\2Nr\xff\xff\xff\x7f.",
        "a bytearray of a terabyte": b"\x80\5\x96" + struct.pack("<Q", 1 << 40) + b".",
        "a text of a terabyte": b"\x80\4\x8d" + struct.pack("<Q", 1 << 40) + b".",
        "a frame of an exabyte": b"\x80\4\x95" + struct.pack("<Q", 1 << 60) + b"N.",
        "keys that are numbers": b"\x80\2}I0\n" + whole + b"s.",
        "a dictionary in itself": b"\x80\2}q\0X\5\0\0\0modelh\0s.",
        "code": pickle.dumps({"a": Code()}, 2),
        "code as a key": b"\x80\2}" + pickle.dumps(Code(), 2)[2:-1] + b"I1\ns.",
        "keys that collide": b"\x80\2}("
        + b"".join(b"\x8a\x0a" + (i * HASHED).to_bytes(10, "little") + b"N" for i in range(99_999))
        + b"u.",
        "three million lists": b"\x80\2" + b"]" * 3_000_000 + b".",
        "one list in 40,000 dictionaries": b"\x80\2ccollections\nOrderedDict\nq\0]q\1("
        + b"".join(b"]q\2(I%d\nNe" % i for i in range(20_000))
        + b"e"
        + b"h\0h\1\x85R0" * 40_000
        + b".",
        "a negative offset": named(tensor(STORAGE % 4, -64, (4,), (1,))),
        "a storage of 2**60": named(tensor(STORAGE % (1 << 60), 0, (4,), (1,))),
        "an unknown storage": named(tensor((STORAGE % 4).replace(b"0X\3", b"9X\3"), 0, (4,), (1,))),
    }
    for content in pickles.values():
        yield "resnet.pt", torch(content)
        if len(content) < 100_000:
            yield "preact.pth", legacy(content + pickle.dumps([], 2))
    yield "resnet.pt", torch(named(whole), bytes(LARGE), zipfile.ZIP_DEFLATED)
    yield "resnet.pt", torch(b"\x80\2" + b"]" * LARGE + b".", b"", zipfile.ZIP_DEFLATED)
    yield "resnet.pt", zipped({f"{i}/data.pkl": b"" for i in range(20_000)})
    yield "resnet.pt", many[: len(many) // 2] + many
    yield "preact.pth", legacy(named(tensor(STORAGE % (1 << 40), 0, (4,), (1,))))
    keys = pickle.dumps(["0"], 2) + struct.pack("<Q", 1 << 40)
    yield "preact.pth", legacy(named(tensor(STORAGE % (1 << 40), 0, (4,), (1,))) + keys)
    for entry in (
        {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [0, 1 << 60], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [-8, 4]},
        {"dtype": ["F32"], "shape": "x", "data_offsets": None},
        [],
    ):
        text = json.dumps({"mean": entry}).encode()
        yield "wide.safetensors", struct.pack("<Q", len(text)) + text + bytes(8)
    for text in (b"[" * 3_000_000, b"[" + b"[]," * 2_000_000 + b"[]]", b'{"a":' * 90_000):
        yield "wide.safetensors", struct.pack("<Q", len(text)) + text
    yield "wide.safetensors", struct.pack("<Q", 1 << 62) + bytes(8)
    for kind in ("weights.npz", "pool.npz"):
        for name in ("params/a", "images", "labels"):
            for head in (
                header((1 << 40,)),
                header((1 << 62, 4)),
                header((-1,)),
                header((0, 1 << 62)),
                header((3,), "|O"),
                header((1,), "<V2000000000"),
                header("(" * 100 + ")" * 100),
                header("-" * 50 + "1"),
                b"\x93NUMPY\7\0",
                b"",
                b"text",
            ):
                yield kind, zipped({f"{name}.npy": head + bytes(12)})
        bomb = {"params/a.npy": header((LARGE // 4,)) + bytes(LARGE), "images.npy": b""}
        yield kind, zipped(bomb, zipfile.ZIP_DEFLATED)
        yield kind, zipped({"images.txt": b"x"})
        yield kind, array(np.zeros(3))
        yield (
            kind,
            zipped({"params/a.npy": array(np.zeros(3)), "params/a/b.npy": array(np.ones(3))}),
        )
    for kind in ("train_labels.npy", "train_images.npy"):
        for head in (
            header((1 << 40,), "<i8"),
            header((1 << 62, 4)),
            header((-1,), "<i8"),
            header((3,), "|O"),
            header((30,), "<V2000000000"),
            header("(" * 100),
            b"\x93NUMPY\7\0",
            b"",
            zipped({"a": b""}),
        ):
            yield kind, head + bytes(24)
        yield kind, pickle.dumps(Code())
    yield "train_labels.npy", array(np.arange(30) << 36)
    for kind in ("config.json", "report.json", "metrics.jsonl"):
        yield kind, b"[" * 3_000_000
        yield kind, b'{"a":' * 90_000 + b"1" + b"}" * 90_000
        yield kind, b'{"step": ' + b"9" * 100_000 + b"}\n" * 2
        yield kind, b"\xff\xfe" + b"{}" * 9
        yield kind, b"\0" * 1000
        yield kind, b"null\nnull\n[]\n"


def files(seed, count):
    """(kind, content): all that are made to harm, then damaged ones up to `count`."""
    rng, whole = np.random.default_rng(seed), valid()
    kinds = itertools.cycle(whole)
    text = ("config.json", "report.json", "metrics.jsonl")

    def made():
        for kind in kinds:
            change = retyped if kind in text and rng.integers(3) else damaged
            yield kind, change(whole[kind], rng)

    return itertools.islice(itertools.chain(harmful(), made()), count)


# ---- reading them, in a process of its own


def write(folder, kind, content):
    """A folder with this file, and valid ones beside it."""
    folder.mkdir(parents=True)
    beside = valid() if kind.endswith(("json", "npy")) else {}
    for name in ("config.json", "report.json", "train_images.npy", "train_labels.npy"):
        if name in beside:
            (folder / name).write_bytes(beside[name])
    for name in ("images", "labels") if beside else ():
        (folder / f"test_{name}.npy").write_bytes(beside[f"train_{name}.npy"])
    if beside:
        (folder / "weights.npz").write_bytes(weights())
    (folder / kind).write_bytes(content)
    return folder / kind


@functools.cache
def weights():
    """Those of the run of `CONFIG`."""
    from robustjax import models

    made = models.init(models.create(**CONFIG["model"]), jax.random.key(0), CONFIG["image_shape"])
    with tempfile.TemporaryDirectory() as folder:
        models.save_weights(f"{folder}/w.npz", made)
        return pathlib.Path(folder, "w.npz").read_bytes()


def outcome(kind, path, bounded):
    """What becomes of reading a file, with a bound on memory or without."""
    size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = size + 2 * path.stat().st_size + SLACK if bounded else resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    begun = time.process_time()
    try:
        read(kind, path)
        found = "read"
    except MemoryError:
        found = "memory"
    except (ValueError, OSError) as error:
        text = str(error)
        found = "refused" if str(path) in text or str(path.parent) in text else "not named"
        if "MemoryError" in text or "allocate" in text:
            found = "memory"
    except Exception as error:
        found = f"{type(error).__name__}"
    if time.process_time() - begun > SECONDS:
        found = "slow"
    return "code" if pathlib.Path("ran").exists() else found


def reader(package):
    """A process that reads files by the robustjax in a folder, after all valid ones."""
    env = os.environ | {"PYTHONPATH": str(package), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, __file__],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def ask(process, kind, path, bounded=True):
    """What the process says of a file; None if nothing in time."""
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps([kind, str(path), bounded]) + "\n")
        process.stdin.flush()
    ready, _, _ = select.select([process.stdout], [], [], PATIENCE if bounded else 300)
    return process.stdout.readline().strip() if ready else None


def judge(seed, count, package=ROOT):
    """What became of each file: (kind, number, outcome)."""
    process, found = None, []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        known = [(kind, write(folder / kind, kind, content)) for kind, content in valid().items()]
        for number, (kind, content) in enumerate(files(seed, count)):
            if process is None:
                process = reader(package)
                for whole, path in known:  # compiles what is compiled once
                    said = ask(process, whole, path, False)
                    assert said in ("read", "slow"), f"{whole}: {said}"
            path = write(folder / str(number), kind, content)
            said = ask(process, kind, path)
            if not said:
                process.kill()
                said, process = "hang" if said is None else "crash", None
            found.append((kind, number, said))
            shutil.rmtree(path.parent)
        if process is not None:
            process.communicate()
    return found


if __name__ == "__main__":
    for line in sys.stdin:
        kind, path, bounded = json.loads(line)
        print(outcome(kind, pathlib.Path(path), bounded), flush=True)
