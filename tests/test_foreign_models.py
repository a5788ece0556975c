"""The Python of docs/foreign_models.md runs as it stands on tiny models; training is not run."""

import functools
import inspect
import json
import os
import pathlib
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax import export
from jax.tree_util import Partial

from robustjax import attacks, evaluation, models, training
from robustjax.threats import Linf

os.environ.setdefault("KERAS_BACKEND", "jax")
eqx = pytest.importorskip("equinox")
hk = pytest.importorskip("haiku")
keras = pytest.importorskip("keras")
onnx = pytest.importorskip("onnx")
PAGE = pathlib.Path(__file__).parent.parent / "docs" / "foreign_models.md"
SECTIONS = re.split(r"^#+ (.*)\n", PAGE.read_text(), flags=re.M)[1:]
BLOCKS = {
    title: re.findall(r"```python\n(.*?)```", text, re.S)
    for title, text in zip(SECTIONS[::2], SECTIONS[1::2], strict=True)
}
IMAGES = np.full((3, 28, 28, 1), 0.5, np.float32)
GIVEN = {
    "attacks": attacks,
    "eqx": eqx,
    "evaluation": evaluation,
    "export": export,
    "functools": functools,
    "hk": hk,
    "jax": jax,
    "jnp": jnp,
    "keras": keras,
    "models": models,
    "nn": nn,
    "nnx": nnx,
    "training": training,
    "Linf": Linf,
    "Partial": Partial,
    "key": jax.random.key(0),
    "images": IMAGES,
}


class Flat(nnx.Module):
    def __init__(self):
        self.norm = nnx.BatchNorm(1, rngs=nnx.Rngs(0))
        self.head = nnx.Linear(784, 4, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.head(self.norm(x).reshape(len(x), -1))


class Image(eqx.Module):
    head: eqx.Module

    def __call__(self, x):
        return self.head(x.ravel())


def run(title, number=0, **names):
    """The names after a block of a section."""
    names = GIVEN | names
    exec(BLOCKS[title][number], names)
    return names


def test_every_block_is_run_here():
    assert {title: len(found) for title, found in BLOCKS.items() if found} == {
        "PyTorch": 2,
        "ONNX": 1,
        "Keras 3": 1,
        "Haiku": 1,
        "Flax linen": 1,
        "Flax NNX": 1,
        "Equinox": 2,
        "Left in training mode": 1,
        "Exported networks": 1,
        "Training a network of your own": 1,
    }


def test_pytorch(monkeypatch):
    asked = []
    take, flat = inspect.signature(models.from_torch), lambda x: x.reshape(len(x), -1)[:, :4]
    monkeypatch.setattr(
        models, "from_torch", lambda *a, **k: asked.append(take.bind(*a, **k)) or (flat, flat)
    )
    labels = np.zeros(len(IMAGES), np.int32)
    names = run("PyTorch", 0, MEAN=(0.5,), STD=(0.2,), labels=labels)
    assert set(names["report"].robust) == {"pgd"}
    net = types.SimpleNamespace(state_dict=dict)
    run("PyTorch", 1, MEAN=(0.5,), STD=(0.2,), net=net)
    assert len(asked) == 5


def test_the_tables_of_pytorch_networks_are_those_of_the_results():
    results = PAGE.parent.parent / "experiments" / "results"
    page, parity = PAGE.read_text(), json.loads((results / "parity.json").read_text())
    wanted = []
    for name, row in parity["networks"].items():
        difference = row["difference"]
        relative = difference / row["largest_logit"]
        million = row["parameters"] / 1e6
        wanted.append(f"| {name} | {million:.1f} M | {difference:.0e} | {relative:.0e} |")
        assert relative < (0.05 if "MeanSparse" in name else 1e-5), name
    assert [line for line in page.splitlines() if " M | " in line] == wanted
    bench = json.loads((results / "robustbench.json").read_text())
    read, entries = sum(row["read"] for row in bench["networks"]), len(bench["networks"])
    assert (read, entries) == (bench["read"], bench["entries"]) and read >= 0.95 * entries
    assert f"{read} of the {entries}\nnetworks" in page


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(4)(nn.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1)))


def of_linen():
    return {"model": Linen(), "variables": Linen().init(jax.random.key(0), IMAGES, False)}


class Normalised(eqx.Module):
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, key):
        self.norm = eqx.nn.BatchNorm(1, "batch", mode="batch")
        self.dropout, self.head = eqx.nn.Dropout(0.5), linear()

    def __call__(self, x, state, key=None):
        x, state = self.norm(x, state)
        return self.head(self.dropout(x.ravel(), key=key)), state


def of_equinox():
    return {"module": eqx.nn.make_with_state(Normalised)(jax.random.key(0))}


def forward(images, is_training):
    seen = hk.get_state("seen", (), init=jnp.zeros)
    if is_training:
        hk.set_state("seen", seen + 1)
    return hk.Linear(4)(hk.Flatten()(images))


def of_haiku():
    params, state = hk.transform_with_state(forward).init(jax.random.key(0), IMAGES, True)
    return {"forward": forward, "params": params, "state": state}


def of_onnx():
    """The names of the block, beside its file."""
    nodes = [onnx.helper.make_node("Flatten", ["x"], ["y"])]
    images = onnx.helper.make_tensor_value_info("x", 1, ("b", 1, 28, 28))
    logits = onnx.helper.make_tensor_value_info("y", 1, ("b", 784))
    graph = onnx.helper.make_graph(nodes, "net", [images], [logits])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save_model(onnx.helper.make_model(graph, opset_imports=opset), "net.onnx")
    return {"MEAN": (0.5,), "STD": (0.2,)}


def of_keras():
    layers = keras.layers
    keras.Sequential([keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(4)]).save(
        "net.keras"
    )
    return {}


def linear(key=0):
    return eqx.nn.Linear(784, 4, key=jax.random.key(key))


def perceptron():
    return Image(eqx.nn.MLP(784, 4, 3, 1, key=jax.random.key(0)))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras saves
@pytest.mark.parametrize(
    ("title", "number", "names"),
    [
        ("ONNX", 0, of_onnx),
        ("Keras 3", 0, of_keras),
        ("Haiku", 0, of_haiku),
        ("Flax linen", 0, of_linen),
        ("Flax NNX", 0, lambda: {"model": Flat()}),
        ("Equinox", 0, lambda: {"model": Image(linear())}),
        ("Equinox", 1, lambda: {"model": perceptron()}),
        ("Left in training mode", 0, of_equinox),
        ("Exported networks", 0, lambda: {"network": lambda x: x.reshape(x.shape[0], -1)[:, :4]}),
    ],
)
def test_a_function_of_a_batch(title, number, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logits_fn = run(title, number, **names())["logits_fn"]
    labels = logits_fn(IMAGES).argmax(-1)
    z = attacks.perturb(attacks.FGSM(Linf(0.1)), logits_fn, GIVEN["key"], IMAGES, labels)
    assert np.isclose(np.abs(z - IMAGES).max(), 0.1)


@pytest.mark.filterwarnings("ignore:the model returns no logits")
def test_training(monkeypatch):
    asked = []
    take = inspect.signature(training.fit)
    monkeypatch.setattr(training, "fit", lambda *a, **k: asked.append(take.bind(*a, **k)))
    monkeypatch.setattr(models, "load", lambda run: (1, 2, {}))
    names = run("Training a network of your own", train=None, validation=None)
    network = models.adapt(names["Net"]())
    shape = jax.eval_shape(lambda key: models.init(network, key, (28, 28, 1)), GIVEN["key"])
    assert {"params", "batch_stats"} == set(shape) and asked
