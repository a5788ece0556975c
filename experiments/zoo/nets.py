"""Networks of one hidden layer that are made in milliseconds: random features, a ridge readout."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from robustjax import data

HIDDEN = 256


@functools.cache
def digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 8, 8, 1) in [0, 1] and labels (N,)."""
    found = data.load("digits", split)
    return np.float32(found.images) / 255, found.labels


@functools.cache
def random_layer(seed: int = 0, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Weights (size, HIDDEN) and biases (HIDDEN,) of random features."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(size, HIDDEN)) * 2 / np.sqrt(size), rng.normal(size=HIDDEN) / 2
    return np.float32(weights[0]), np.float32(weights[1])


def readout(features: Callable, outputs: np.ndarray | None = None) -> tuple:
    """Ridge regression from features to a row of `outputs` (K, D) for each class.

    By default ten times the one-hot labels. It returns weights (F, D) and biases (D,).
    """
    images, labels = digits("train")
    values = np.asarray(features(jnp.asarray(images)), np.float64)
    values = np.concatenate([values, np.ones((len(values), 1))], axis=1)
    wanted = (10 * np.eye(10) if outputs is None else outputs)[labels]
    solved = np.linalg.solve(values.T @ values + np.eye(values.shape[1]), values.T @ wanted)
    return np.float32(solved[:-1]), np.float32(solved[-1])


def affine(x: jax.Array, weights: tuple) -> jax.Array:
    """x W + b of each image, flattened."""
    return x.reshape(len(x), -1) @ weights[0] + weights[1][None]


def dense(weights: tuple, x: jax.Array, activation: Callable = jax.nn.relu) -> jax.Array:
    """The undefended network: logits (B, 10)."""
    return affine(activation(affine(x, weights[0])), weights[1])


@functools.cache
def fitted(
    activation: Callable = jax.nn.relu,
    before: Callable | None = None,
    size: int = 64,
    outputs: Callable | None = None,
    seed: int = 0,
) -> tuple:
    """The weights of `dense`, on images that `before` has changed, towards the rows `outputs()`."""
    layer = random_layer(seed, size)
    rows = None if outputs is None else outputs()

    def features(x):
        return activation(affine(x if before is None else before(x), layer))

    return layer, readout(features, rows)
