"""Rows reach every logger, once, also when a run is resumed; a trace is written where asked for."""

import csv
import gc
import struct
import sys
from dataclasses import replace
from types import ModuleType

import jax
import numpy as np
import pytest
import tiny
from flax import linen as nn
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from robustjax import data, files
from robustjax.training import CSV, LOGGERS, Natural, Recipe, TensorBoard, WandB, fit
from robustjax.training.event_file import crc32c

ROWS = [
    {"step": 2, "epoch": 0.5, "seconds": 1.0, "split": "train", "loss": 2.5, "lr": 0.1},
    {"step": 4, "epoch": 1.0, "seconds": 2.0, "split": "train", "loss": 1.5, "lr": 0.1},
    {"step": 4, "epoch": 1.0, "seconds": 3.0, "split": "validation", "accuracy": 0.75},
]


def event_type():
    """`Event` as TensorBoard declares it, read by the library of protocol buffers."""
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="t", syntax="proto3")
    kinds = {"double": 1, "float": 2, "int64": 3, "string": 9, "enum": 5}
    for name, fields in {
        "Value": [("tag", 1, "string"), ("simple_value", 2, "float")],
        "Summary": [("value", 1, "*Value")],
        "SessionLog": [("status", 1, "enum")],
        "Event": [
            ("wall_time", 1, "double"),
            ("step", 2, "int64"),
            ("file_version", 3, "string"),
            ("summary", 5, "Summary"),
            ("session_log", 7, "SessionLog"),
        ],
    }.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            added = message.field.add(name=field, number=number)
            added.label = 3 if kind[0] == "*" else 1
            added.type = kinds.get(kind, 11)
            if kind not in kinds:
                added.type_name = f".t.{kind.lstrip('*')}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Event"))


def events(folder):
    """All events of a folder, oldest file first; checksums are checked."""
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            body, rest = content[12 : 12 + length], content[12 + length :]
            for data_, masked in ((content[:8], content[8:12]), (body, rest[:4])):
                crc = crc32c(data_)
                masked_crc = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
                assert struct.unpack("<I", masked)[0] == masked_crc
            content = rest[4:]
            yield event_type().FromString(body)


def scalars(folder):
    """(step, tag) -> number, without what a later session takes back."""
    found = {}
    for event in events(folder):
        if event.HasField("session_log"):
            found = {key: v for key, v in found.items() if key[0] < event.step}
        for value in event.summary.value:
            found[event.step, value.tag] = value.simple_value
    return found


def log(logger, out, rows, before=()):
    logger.open(out, {"seed": 0}, list(before))
    for row in rows:
        logger.log(row)
    logger.close()


def test_tensorboard_reads_its_event_files(tmp_path):
    log(TensorBoard(), tmp_path, ROWS)
    first = next(events(tmp_path / "tensorboard" / "train"))
    assert first.file_version == "brain.Event:2" and first.wall_time > 1e9
    found = scalars(tmp_path / "tensorboard" / "train")
    assert found[2, "loss"] == 2.5 and found[4, "epoch"] == 1.0
    assert scalars(tmp_path / "tensorboard" / "validation")[4, "accuracy"] == 0.75
    log(TensorBoard(), tmp_path, [ROWS[1] | {"loss": 1.25}], before=ROWS[:1])
    assert scalars(tmp_path / "tensorboard" / "train")[4, "loss"] == 1.25


def test_csv_has_a_line_a_row(tmp_path):
    log(CSV(), tmp_path, ROWS)
    log(CSV(), tmp_path, ROWS[1:], before=ROWS[:1])
    with open(tmp_path / "metrics_train.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["loss"] for row in rows] == ["2.5", "1.5"]
    assert list(rows[0]) == ["step", "epoch", "seconds", "loss", "lr"]


class Fake(ModuleType):
    """What of wandb is used."""

    def __init__(self):
        super().__init__("wandb")
        self.calls = []

    def init(self, **settings):
        self.calls.append(settings)
        return self

    def log(self, values, step):
        self.calls.append((step, values))

    def finish(self):
        self.calls.append("finished")


def test_weights_and_biases_gets_every_row(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", fake := Fake())
    log(WandB("mine"), tmp_path / "run", ROWS)
    log(WandB("mine"), tmp_path / "run", [])
    begun, *rows, _, again, last = fake.calls
    assert begun == again and begun["project"] == "mine" and begun["resume"] == "allow"
    assert begun["config"] == {"seed": 0} and last == "finished"
    assert rows[-1] == (4, {"validation/accuracy": 0.75, "epoch": 1.0})


def test_without_wandb_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ModuleNotFoundError, match="pip install wandb"):
        LOGGERS["wandb"]()


class Kept:
    """A logger of one's own."""

    def __init__(self):
        self.rows, self.closed = [], False

    def open(self, out, config, rows):
        self.rows = list(rows)

    def log(self, row):
        self.rows.append(row)

    def close(self):
        self.closed = True


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(tiny.CLASSES)(x.reshape(len(x), -1))


@pytest.fixture
def given():
    """What runs of a tiny problem share: four steps an epoch."""
    image, label = (tiny.examples()[kind] for kind in ("image", "label"))
    train = data.Dataset(image, label, np.arange(len(label)), "tiny", "train", tiny.CLASSES)
    return {
        "method": Natural(),
        "train": train,
        "validation": train,
        "model": Linear(),
        "progress": False,
    }


RECIPE = Recipe(epochs=2, batch_size=8, augment=data.Augment(pad=0, flip=False))


def test_a_run_calls_its_loggers_and_writes_a_trace(given, tmp_path):
    logger, out = Kept(), tmp_path / "run"
    fit(**given, out=out, recipe=RECIPE, log_every=1, loggers=[logger], profile=2)
    assert logger.closed and logger.rows == files.read_metrics(out / "metrics.jsonl")
    assert len(list(out.glob("profile/**/*.xplane.pb"))) == 1


class Living(Kept):
    """How many arrays there are at the end of the first and the last epochs."""

    def log(self, row):
        if row["split"] == "validation" and not 5 < row["epoch"] <= 26:
            gc.collect()
            self.rows.append(len(jax.live_arrays()))


def test_a_long_run_keeps_no_more_arrays_than_a_short_one(given, tmp_path):
    """Copies that wait to be saved come and go; in between there are no more than before."""
    logger = Living()
    fit(**given, out=tmp_path / "run", recipe=replace(RECIPE, epochs=30), loggers=[logger])
    assert min(logger.rows[5:]) <= max(logger.rows[:5])
