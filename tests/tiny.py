"""The smallest problem that exercises training: four classes of 8x8 colours, two convolutions."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from scipy.special import log_softmax, rel_entr, softmax

from robustjax import files, models, parallel
from robustjax.config import encode
from robustjax.data import Augment
from robustjax.models.classifier import Classifier
from robustjax.models.heads import Auxiliary, attach
from robustjax.models.nets.layers import AdaptiveNorm, BatchNorm, Conv
from robustjax.threats import Linf
from robustjax.training import SAT, TRADES, Optimizer, Recipe
from robustjax.training.methods.base import Batch, Crafted
from robustjax.training.net import Net
from robustjax.training.schedules import Constant
from robustjax.training.step import create_state

CLASSES, SIZE, SHAPE = 4, 32, (8, 8, 2)
RECIPE = Recipe(
    batch_size=SIZE,
    lr=0.1,
    schedule=Constant(),
    optimizer=Optimizer(weight_decay=1e-3),
    ema=0.9,
    label_smoothing=0.1,
    augment=Augment(pad=0, flip=False),  # costs a third of a small step's compilation
)


class Body(nn.Module):
    """BN, ReLU, a strided convolution, BN, ReLU, average: every kind of layer once."""

    norm: type[nn.Module] = BatchNorm

    @nn.compact
    def __call__(self, h, bn):
        h = nn.relu(self.norm()(h, bn))
        h = nn.relu(self.norm()(Conv(6, stride=2)(h), bn))
        return h.mean((1, 2))


@functools.cache
def module(method=None):
    """The network as the method asks for it, by default with a linear head and nothing else."""
    wanted = dict(method.model) if method else {}
    norm = AdaptiveNorm if wanted.pop("adaptive_norm", False) else BatchNorm
    teacher = module() if wanted.pop("teacher", None) else None
    auxiliary = Auxiliary() if wanted.pop("auxiliary", False) else None
    body, head = attach(Body(norm), CLASSES, **wanted)
    return Classifier(stem=Conv(4), body=body, head=head, teacher=teacher, auxiliary=auxiliary)


class Smooth(nn.Module):
    """A layer, BatchNorm, tanh, a layer: weights move the statistics, and nothing has a kink."""

    @nn.compact
    def __call__(self, x, bn):
        h = Conv(6, 1)(x)
        h = nn.tanh(BatchNorm()(h, bn))
        kernel = self.param("kernel", nn.initializers.normal(0.1), (h[0].size, CLASSES))
        return h.reshape(len(x), -1) @ kernel


class Flat(nn.Module):
    """Logits linear in the pixels: what a method computes on it, one can by hand."""

    @nn.compact
    def __call__(self, x, bn):
        kernel = self.param("kernel", nn.initializers.normal(), (x[0].size, CLASSES))
        return x.reshape(len(x), -1) @ kernel


class Pair(Flat):
    """The linear model, and a teacher of other weights."""

    @nn.compact
    def taught(self, x, bn):
        kernel = self.param("teacher", nn.initializers.normal(), (x[0].size, CLASSES))
        return x.reshape(len(x), -1) @ kernel


@struct.dataclass
class Watched(Net):
    """A net that notes the mode of every forward."""

    modes: list = struct.field(pytree_node=False, default=None)

    def forward(self, params, x, mode="running", *args, **kwargs):
        self.modes.append(mode)
        return super().forward(params, x, mode, *args, **kwargs)


@struct.dataclass
class Noted(Net):
    """A net that notes what it is asked to craft."""

    asked: list = struct.field(pytree_node=False, default_factory=list)

    def craft(self, attack, params, keys, x, y, target=None, *args, **kwargs):
        self.asked.append((attack, target))
        return super().craft(attack, params, keys, x, y, target, *args, **kwargs)


def flat_net(method, scale=0.1):
    """(params, net, batch) of a linear model whose weights are of this size."""
    _, net, batch = net_and_batch(method)
    kernel = scale * jax.random.normal(jax.random.key(5), (np.prod(SHAPE), CLASSES))
    return {"kernel": kernel}, net.replace(stats={}, module=Flat()), batch


def on_one_device(function):
    """The result of a function of nothing under the device axis, as a training step runs it."""
    run = jax.vmap(lambda _: function(), axis_name=parallel.AXIS)
    return jax.tree.map(lambda a: a[0], run(jnp.zeros(1)))


def keys():
    """A key for each example."""
    return jax.random.split(jax.random.key(3), SIZE)


def crafted(method, given):
    """What a method perturbs of (params, net, batch)."""
    params, net, batch = given
    return on_one_device(lambda: method.perturb(net, params, batch, keys()))


def linear(method, shift=0.1, scale=0.1):
    """(loss, logits, logits of moved images, labels), the logits in float64."""
    params, net, batch = flat_net(method, scale)
    x_adv = jnp.clip(batch.image + shift * jnp.sign(jnp.sin(1e3 * batch.image)), 0, 1)
    loss, _ = on_one_device(lambda: method.loss(net, params, batch, Crafted(x_adv, net.stats)))
    z = [np.asarray(net.logits(params, x), np.float64) for x in (batch.image, x_adv)]
    return float(loss), *z, np.asarray(batch.label)


def cross_entropies(z, label):
    """Of each example, in float64."""
    return -log_softmax(z, -1)[np.arange(SIZE), label]


def divergences(reference, z):
    """KL(reference || z) of each example."""
    return rel_entr(softmax(reference, -1), softmax(z, -1)).sum(-1)


def taught_net():
    """(params of both, net, batch, images that moved) of the linear model and its teacher."""
    params, net, batch = flat_net(TRADES())
    teacher = 0.1 * jax.random.normal(jax.random.key(6), params["kernel"].shape)
    params, net = params | {"teacher": teacher}, net.replace(module=Pair())
    return params, net, batch, Crafted(jnp.clip(batch.image + 0.1, 0, 1), {})


def noted(method, rows):
    """(attack, target of the attack, what was crafted) for examples that have these rows."""
    params, net, batch = flat_net(method)
    net = Noted(net.stats, net.progress, net.module)
    found = method.perturb(net, params, batch.replace(rows=rows), keys())
    ((attack, target),) = net.asked
    return attack, target, found


def loss_of(method, progress=0.5, shift=0.1, rows=None):
    state, net, batch = net_and_batch(SAT())
    net = net.replace(progress=jnp.float32(progress))
    batch = batch if rows is None else batch.replace(rows=rows)
    crafted = Crafted(jnp.clip(batch.image + shift, 0, 1), net.stats)
    return on_one_device(lambda: method.loss(net, state.params, batch, crafted))


@functools.cache
def examples():
    """One batch: image uint8, label, index (in an order of its own)."""
    rng = np.random.default_rng(0)
    label = np.arange(SIZE, dtype=np.int32) % CLASSES
    centre = rng.uniform(60, 190, (CLASSES, 1, 1, SHAPE[2]))
    image = np.clip(centre[label] + rng.normal(0, 20, (SIZE, *SHAPE)), 0, 255).astype(np.uint8)
    return {"image": image, "label": label, "index": np.arange(SIZE, dtype=np.int32)[::-1].copy()}


@functools.cache
def with_extra():
    """The same batch, half of each class extra examples with soft targets."""
    batch, extra = dict(examples()), np.arange(SIZE) // CLASSES % 2 == 1
    soft = np.full((SIZE, CLASSES), 0.1) + 0.6 * np.eye(CLASSES)[batch["label"]]
    hot = np.eye(CLASSES)[batch["label"]]
    batch["target"] = np.where(extra[:, None], soft, hot).astype(np.float32)
    batch["index"] = np.where(extra, -1 - batch["index"], batch["index"])
    return batch


@functools.cache
def helper_run():
    """The directory of a run whose network, untrained, fits the examples."""
    about = {"name": "cnn", "num_classes": CLASSES, "width": 1, "dtype": "float32"}
    variables = models.init(models.create(**about), jax.random.key(7), SHAPE)
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    settings = {
        "model": about,
        "image_shape": SHAPE,
        "data": {"name": "tiny"},
        "threat": encode(Linf()),
        "class_names": [],
    }
    files.write_json(folder / "config.json", settings)
    models.save_weights(folder / "weights.npz", variables)
    return str(folder)


@functools.cache
def fresh(method, shards=1, recipe=RECIPE):
    """The state before the first step; on several shards that of one, with its slot split."""
    if shards > 1:
        state = fresh(method, 1, recipe)
        return state.replace(slot=parallel.split(parallel.merge(state.slot), shards))
    data, key = examples(), jax.random.key(0)
    label = data["label"][np.argsort(data["index"])]  # as the data set holds them
    model = module(method)
    return create_state(model, method, recipe, key, data["image"], label, CLASSES, shards)


def net_and_batch(method, data=None):
    """What a method's verbs are given half way through training, on one device."""
    state, data = fresh(method), data or examples()
    net = Net(state.stats, jnp.float32(0.5), module(method), frozen=state.frozen)
    label = jnp.asarray(data["label"])
    batch = Batch(
        image=jnp.asarray(data["image"]) / 255.0,
        label=label,
        target=jnp.asarray(data.get("target", np.eye(CLASSES, dtype=np.float32)[data["label"]])),
        index=jnp.asarray(data["index"]),
        source=jnp.int32(data["index"] < 0),
        rows=jax.tree.map(lambda table: table[data["index"]], state.rows),
        slot=jax.tree.map(lambda a: a[0], state.slot),
    )
    return state, net, batch
