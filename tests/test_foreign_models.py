"""The Python of docs/foreign_models.md runs as it stands on tiny models; training is not run."""

import functools
import inspect
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

eqx = pytest.importorskip("equinox")
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
    "jax": jax,
    "jnp": jnp,
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
        "PyTorch": 1,
        "Flax NNX": 1,
        "Equinox": 2,
        "Exported networks": 1,
        "Training a network of your own": 1,
    }


def test_pytorch(monkeypatch):
    asked = []
    take = inspect.signature(models.from_torch)
    monkeypatch.setattr(
        models, "from_torch", lambda *a, **k: asked.append(take.bind(*a, **k)) or (1, 2)
    )
    run("PyTorch", MEAN=(0.5,), STD=(0.2,), net=types.SimpleNamespace(state_dict=dict))
    assert len(asked) == 3


def linear(key=0):
    return eqx.nn.Linear(784, 4, key=jax.random.key(key))


def perceptron():
    return Image(eqx.nn.MLP(784, 4, 3, 1, key=jax.random.key(0)))


@pytest.mark.parametrize(
    ("title", "number", "names"),
    [
        ("Flax NNX", 0, {"model": Flat()}),
        ("Equinox", 0, {"model": Image(linear())}),
        ("Equinox", 1, {"model": perceptron()}),
        ("Exported networks", 0, {"network": lambda x: x.reshape(x.shape[0], -1)[:, :4]}),
    ],
)
def test_a_function_of_a_batch(title, number, names):
    logits_fn = run(title, number, **names)["logits_fn"]
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
