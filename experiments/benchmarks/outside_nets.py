"""Networks as users write them, in plain lax and nn.Conv, and twins of three of them in PyTorch.

`train` makes a run of each with `training.fit`: a single-step attack, a few epochs, so that a part
of the images resists. No network that is attacked uses robustjax's own layers; ResNet-8 is trained
with `models.conv2d`, on a CPU many times faster, and its weights then go to the plain form.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import torch

from robustjax import data, models, training
from robustjax.threats import Linf


class PlainLax(nn.Module):
    """Two convolutions of 4 x 4 pixels and stride 2 by `lax`, 100 hidden units: MNIST."""

    @nn.compact
    def __call__(self, x):
        for i, channels in enumerate((16, 32)):
            shape = (4, 4, x.shape[-1], channels)
            kernel = self.param(f"conv{i}", nn.initializers.he_normal(), shape)
            x = jax.lax.conv_general_dilated(
                x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = nn.relu(x)
        return nn.Dense(10, name="out")(nn.relu(nn.Dense(100, name="hidden")(_flat(x))))


class Dense(nn.Module):
    """Two hidden layers of 100 units: MNIST."""

    @nn.compact
    def __call__(self, x):
        for i in range(2):
            x = nn.relu(nn.Dense(100, name=f"hidden{i}")(_flat(x)))
        return nn.Dense(10, name="out")(x)


class Conv(nn.Module):
    """Four convolutions by `nn.Conv` and two dense layers: CIFAR-10."""

    @nn.compact
    def __call__(self, x):
        for i, (channels, stride) in enumerate(((16, 1), (32, 2), (32, 1), (64, 2))):
            x = nn.relu(nn.Conv(channels, (3, 3), stride, padding=1, name=f"conv{i}")(x))
        return nn.Dense(10, name="out")(nn.relu(nn.Dense(128, name="hidden")(_flat(x))))


class ResNet8(nn.Module):
    """Three residual blocks by `nn.Conv` and `nn.BatchNorm`: CIFAR-10."""

    convolve: Callable | None = None

    @nn.compact
    def __call__(self, x, train: bool = False):
        def norm(x, name):
            return nn.BatchNorm(use_running_average=not train, momentum=0.9, name=name)(x)

        def conv(x, channels, stride, name, k=3):
            about = {"use_bias": False, "conv_general_dilated": self.convolve, "name": name}
            return nn.Conv(channels, (k, k), stride, padding=k // 2, **about)(x)

        x = nn.relu(norm(conv(x, 16, 1, "conv"), "norm"))
        for i, (channels, stride) in enumerate(((16, 1), (32, 2), (64, 2))):
            h = nn.relu(norm(conv(x, channels, stride, f"conv{i}a"), f"norm{i}a"))
            h = norm(conv(h, channels, 1, f"conv{i}b"), f"norm{i}b")
            if stride > 1:
                x = conv(x, channels, stride, f"short{i}", k=1)
            x = nn.relu(x + h)
        return nn.Dense(10, name="out")(x.mean((1, 2)))


def _flat(x):
    return x.reshape(len(x), -1)


def _convolve(x, kernel, strides, padding, **_):
    """`lax.conv_general_dilated` of the networks above, by `models.conv2d`."""
    return models.conv2d(x, kernel, strides[0])


class Subject(NamedTuple):
    """A network, the set it is for, eps, and how long it is trained."""

    module: nn.Module
    data: str
    eps: float
    epochs: int


SUBJECTS = {
    "plain-lax": Subject(PlainLax(), "mnist", 0.2, 3),
    "nn-conv": Subject(Conv(), "cifar10", 4 / 255, 6),
    "resnet-8": Subject(ResNet8(), "cifar10", 4 / 255, 2),
}


def train(name: str, data_dir: str | None, out: Path) -> None:
    """A run in `out`, by N-FGSM, unless there is one."""
    if (out / "config.json").exists():
        return
    module, source, eps, epochs = SUBJECTS[name]
    recipe = training.Recipe(
        epochs=epochs,
        lr=0.1,
        schedule=training.schedules.OneCycle(),
        augment=data.Augment(pad=0, flip=False),
    )
    if isinstance(module, ResNet8):
        module = ResNet8(_convolve)
    method = training.with_threat(training.card("n-fgsm").method, Linf(eps))
    images, validation = (data.load(source, split, data_dir) for split in ("train", "validation"))
    training.fit(method, images, validation, model=module, recipe=recipe, out=out)


class Twin(torch.nn.Module):
    """The same function of the same weights, by PyTorch."""

    def __init__(self, name: str, variables: Any):
        """Take the weights of a run."""
        super().__init__()
        self.name = name
        tree = {k: v for part in variables.values() for k, v in _paths(part)}
        self.weights = torch.nn.ParameterDict(
            {k: torch.nn.Parameter(torch.tensor(v), requires_grad=False) for k, v in tree.items()}
        )

    def forward(self, x):
        """(B, C, H, W) -> (B, 10)."""
        return {"plain-lax": self._plain, "nn-conv": self._conv, "resnet-8": self._resnet}[
            self.name
        ](x)

    def _plain(self, x):
        for i in range(2):
            x = torch.relu(torch.nn.functional.conv2d(x, self.weights[f"conv{i}"], None, 2, 1))
        return self._dense(x)

    def _conv(self, x):
        for i, stride in enumerate((1, 2, 1, 2)):
            x = torch.relu(self._convolve(x, f"conv{i}", stride))
        return self._dense(x)

    def _resnet(self, x):
        x = torch.relu(self._norm(self._convolve(x, "conv", 1), "norm"))
        for i, stride in enumerate((1, 2, 2)):
            h = torch.relu(self._norm(self._convolve(x, f"conv{i}a", stride), f"norm{i}a"))
            h = self._norm(self._convolve(h, f"conv{i}b", 1), f"norm{i}b")
            if stride > 1:
                x = torch.nn.functional.conv2d(x, self.weights[f"short{i}_kernel"], None, stride)
            x = torch.relu(x + h)
        return self._linear(x.mean((2, 3)), "out")

    def _convolve(self, x, name, stride):
        bias = self.weights.get(f"{name}_bias", None)
        return torch.nn.functional.conv2d(x, self.weights[f"{name}_kernel"], bias, stride, 1)

    def _norm(self, x, name):
        mean, var, scale, bias = (
            self.weights[f"{name}_{k}"] for k in ("mean", "var", "scale", "bias")
        )
        return torch.nn.functional.batch_norm(x, mean, var, scale, bias)

    def _linear(self, x, name):
        return torch.nn.functional.linear(
            x, self.weights[f"{name}_kernel"], self.weights[f"{name}_bias"]
        )

    def _dense(self, x):
        x = x.permute(0, 2, 3, 1).flatten(1)  # channels last, as Flax flattens
        return self._linear(torch.relu(self._linear(x, "hidden")), "out")


def _paths(tree: Any):
    """(layer_weight, array in PyTorch's layout) of every leaf."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = "_".join(key.key for key in path)
        value = np.asarray(leaf, np.float32)
        axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(value.ndim)
        yield name, np.ascontiguousarray(value.transpose(axes) if axes else value)
