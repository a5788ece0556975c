"""Ten networks that mask nothing: what is told about them is a false alarm."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.losses import cross_entropy

from .nets import affine, dense, digits, fitted, readout


class Sound(NamedTuple):
    """A network: its name, (weights, images) -> logits, and what makes the weights."""

    name: str
    logits: Callable
    weights: Callable[[], Any]


@functools.cache
def heads() -> tuple:
    """The weights of three networks with other random features."""
    return tuple(fitted(seed=seed) for seed in range(3))


@functools.cache
def trained(eps: float = 0.1, steps: int = 100) -> tuple:
    """The weights of `dense` after adversarial training: gradient descent on steps of FGSM."""
    images, labels = (jnp.asarray(array[:1000]) for array in digits("train"))

    def loss(weights, x):
        return jnp.mean(jax.vmap(cross_entropy)(dense(weights, x), labels))

    def descend(_, weights):
        x = jnp.clip(images + eps * jnp.sign(jax.grad(loss, argnums=1)(weights, images)), 0, 1)
        return jax.tree.map(lambda w, g: w - 0.1 * g, weights, jax.grad(loss)(weights, x))

    return jax.jit(lambda start: jax.lax.fori_loop(0, steps, descend, start))(fitted())


FILTERS = np.float32(np.random.default_rng(0).normal(size=(3, 3, 1, 32)))


def convolved(x):
    """Random filters, ReLU, means over quarters of the image: (B, 16 * 32)."""
    h = jax.lax.conv_general_dilated(
        x, FILTERS, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    h = jax.nn.relu(h).reshape(len(x), 4, 2, 4, 2, 32).mean((2, 4))
    return h.reshape(len(x), -1)


def standardised(x):
    """As batch normalisation with running statistics."""
    return (x - 0.3) / 0.37


def residual(h):
    """Two blocks that add to what they are given."""
    return jax.nn.relu(h) + 0.5 * jnp.tanh(h - 0.5 * jnp.roll(jnp.tanh(h), 1, axis=1))


def in_bfloat16(weights, x):
    few = jax.tree.map(lambda w: jnp.asarray(w, jnp.bfloat16), weights)
    return dense(few, x.astype(jnp.bfloat16)).astype(jnp.float32)


def log_mean_probability(weights, x):
    logs = jnp.stack([jax.nn.log_softmax(dense(head, x)) for head in weights])
    return jax.nn.logsumexp(logs, axis=0) - jnp.log(len(weights))


def normal():
    return fitted(before=standardised)


SOUND = [
    Sound("linear", lambda w, x: affine(x, w), lambda: readout(lambda x: x.reshape(len(x), -1))),
    Sound("ReLU", dense, fitted),
    Sound("tanh", lambda w, x: dense(w, x, jnp.tanh), lambda: fitted(jnp.tanh)),
    Sound("residual", lambda w, x: dense(w, x, residual), lambda: fitted(residual)),
    Sound("convolution", lambda w, x: affine(convolved(x), w), lambda: readout(convolved)),
    Sound("standardised", lambda w, x: dense(w, standardised(x)), normal),
    Sound("adversarially trained", dense, trained),
    Sound("log-probabilities", lambda w, x: jax.nn.log_softmax(dense(w, x)), fitted),
    Sound("mean of three, as log-probabilities", log_mean_probability, heads),
    Sound("bfloat16", in_bfloat16, fitted),
]
