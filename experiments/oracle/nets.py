"""The two networks whose weights come inside the pyautoattack wheel, for robustjax.

Needs `pip install '.[oracle]'`; `wheel(name)` finds the files. torch_nets.py holds the same
two in PyTorch.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from robustjax import models
from robustjax.convolutions.conv2d import conv2d

MNIST, CIFAR10 = "tf_model.weight.h5", "model_test.pt"


def wheel(name: str) -> Path:
    """A file among the examples of the installed pyautoattack."""
    (package,) = importlib.util.find_spec("pyautoattack").submodule_search_locations
    return Path(package) / "examples" / name


def keras_weights(path: str | os.PathLike[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Layer -> (kernel, bias), as Keras has them: HWIO, and (inputs, outputs)."""
    with h5py.File(path) as file:
        groups = {name: file[f"clf/{name}/clf/{name}"] for name in LAYERS}
        return {k: (np.array(g["kernel:0"]), np.array(g["bias:0"])) for k, g in groups.items()}


LAYERS = ("c1", "c2", "c3", "c4", "d1", "d2")


def mnist_logits(weights: dict[str, tuple[jax.Array, jax.Array]], images: jax.Array) -> jax.Array:
    """Two times (3x3 convolution, ReLU) x 2 and a 2x2 maximum; 256 hidden units."""
    h = images
    for pair in (("c1", "c2"), ("c3", "c4")):
        for name in pair:
            kernel, bias = weights[name]
            h = jax.nn.relu(conv2d(h, kernel) + bias.reshape(1, 1, 1, -1))
        b, height, width, c = h.shape
        h = h.reshape(b, height // 2, 2, width // 2, 2, c).max((2, 4))
    h = h.reshape(len(h), -1)
    h = jax.nn.relu(h @ weights["d1"][0] + weights["d1"][1].reshape(1, -1))
    return h @ weights["d2"][0] + weights["d2"][1].reshape(1, -1)


def mnist_net(path: str | os.PathLike[str]) -> Partial:
    """Images (B, 28, 28, 1) in [0, 1] -> logits; nine tenths withstand Linf eps 0.3."""
    return Partial(mnist_logits, jax.tree.map(jnp.asarray, keras_weights(path)))


def cifar_net(path: str | os.PathLike[str]) -> Partial:
    """Images (B, 32, 32, 3) in [0, 1] -> logits; a ResNet-18 trained without a defence."""
    return models.from_torch(path)[0]
