"""Twenty defences, and for each what is known of it.

A defence is written once. Where a part has no derivative, or one that leads nowhere, it says
`hard(forward, backward)`: this is `forward` for whoever evaluates the defence unsuspecting, and
`bpda(forward, backward)` for whoever attacks it knowing how it works.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.attacks import bpda
from robustjax.attacks.transforms import DiverseInput

from .nets import HIDDEN, dense, fitted


@dataclasses.dataclass(frozen=True)
class Defence:
    """A broken defence.

    Attributes:
      name: of its row.
      source: who proposed it, or this kind of it.
      broken: who broke it, with the accuracy that they published.
      logits: (weights, images (B, 8, 8, 1), hard) -> (B, 10); a random one (weights, key, images,
        hard).
      weights: makes them.
      attack: 'bpda', 'margin' or 'eot': what leads to the truth.
      random: whether it draws.
    """

    name: str
    source: str
    broken: str
    logits: Callable
    weights: Callable[[], Any]
    attack: str
    random: bool


DEFENCES: list[Defence] = []


def defence(source, broken="", attack="bpda", weights=fitted, random=False):
    """Put a function into the list."""

    def add(logits):
        name = logits.__name__.replace("_", " ")
        DEFENCES.append(Defence(name, source, broken, logits, weights, attack, random))
        return logits

    return add


def as_it_is(forward: Callable, backward: Callable | None = None) -> Callable:
    """`hard` of the defence itself."""
    return forward


def known(forward: Callable, backward: Callable = lambda x: x) -> Callable:
    """`hard` of whoever knows the defence."""
    return bpda(forward, backward)


ATHALYE = "Athalye et al. 2018"
TRAMER = "Tramer et al. 2020"


# The input is changed.


@defence("Xu et al. 2018; Guo et al. 2018", ATHALYE)
def bit_depth(weights, x, hard):
    return dense(weights, hard(lambda x: jnp.round(7 * x) / 7)(x))


BASIS = np.float32([[np.cos(np.pi * (i + 0.5) * k / 8) for i in range(8)] for k in range(8)])
BASIS *= np.float32(np.sqrt([[1 / 8]] + [[2 / 8]] * 7))
STEPS = np.float32(0.1 * (1 + np.add.outer(np.arange(8), np.arange(8)) / 4))


def jpeg(x):
    """Rounds the 64 coefficients of the cosine transform, high frequencies more coarsely."""
    c = BASIS @ x[..., 0] @ BASIS.T
    return (BASIS.T @ (jnp.round(c / STEPS[None]) * STEPS[None]) @ BASIS)[..., None]


@defence("Das et al. 2017; Guo et al. 2018", ATHALYE)
def jpeg_compression(weights, x, hard):
    return dense(weights, hard(jpeg)(x))


def denoised(x):
    """Ten steps of descent on half the squared distance plus the total variation."""

    def energy(z):
        across, down = jnp.diff(z, axis=1), jnp.diff(z, axis=2)
        variation = jnp.sum(jnp.sqrt(across**2 + 1e-4)) + jnp.sum(jnp.sqrt(down**2 + 1e-4))
        return jnp.sum((z - x) ** 2) / 2 + 0.03 * variation

    return jax.lax.fori_loop(0, 10, lambda _, z: z - 0.2 * jax.grad(energy)(z), x)


@defence("Guo et al. 2018", f"0 % (ImageNet, L2 .005), {ATHALYE}")
def total_variation(weights, x, hard):
    return dense(weights, hard(lambda x: jax.lax.stop_gradient(denoised(x)), denoised)(x))


LEVELS = np.float32(np.arange(10) / 10)


def thermometer(x):
    """(B, 8, 8, 1) -> (B, 8, 8, 10): which levels a pixel exceeds."""
    return (x > LEVELS).astype(x.dtype)


@defence(
    "Buckman et al. 2018",
    f"0 % (CIFAR-10), {ATHALYE}",
    weights=lambda: fitted(before=thermometer, size=640),
)
def thermometer_encoding(weights, x, hard):
    def ramp(x):
        return jnp.clip(3 * (x - LEVELS) + 0.5, 0, 1)

    return dense(weights, hard(thermometer, ramp)(x))


@defence("", f"shattered gradients, {ATHALYE}")
def ripples(weights, x, hard):
    return dense(weights, hard(lambda x: x + 0.01 * jnp.sin(3000 * x))(x))


@defence("Alfarra et al. 2022", "Croce et al. 2022")
def anti_adversary(weights, x, hard):
    """Moves the image towards the class that is predicted before it classifies it."""

    def confidence(x, weights):
        return jax.nn.log_softmax(dense(weights, x)).max(1).sum()

    def moved(both):
        x, weights = both
        step = 0.05 * jnp.sign(jax.grad(confidence)(x, weights))
        return dense(weights, jax.lax.stop_gradient(x + step))

    return hard(moved, lambda both: dense(both[1], both[0]))((x, weights))


# The features are changed.


def winners(h):
    """Keeps the largest tenth."""
    kth = jnp.sort(h, axis=1)[:, -HIDDEN // 10, None]
    return jnp.where(h >= kth, h, 0)


@defence("Xiao et al. 2020", TRAMER, weights=lambda: fitted(winners))
def k_winners(weights, x, hard):
    def soft(h):
        kth = jnp.sort(h, axis=1)[:, -HIDDEN // 10, None]
        return h * jax.nn.sigmoid(4 * (h - kth))

    return dense(weights, x, hard(winners, soft))


@defence("Galloway et al. 2018", weights=lambda: fitted(jnp.sign))
def sign_activations(weights, x, hard):
    return dense(weights, x, hard(jnp.sign, lambda h: jnp.tanh(2 * h)))


def steep(h):
    """A sigmoid that is nearly a step."""
    return jax.nn.sigmoid(100 * h)


@defence("Nayebi & Ganguli 2017", "Brendel & Bethge 2017", weights=lambda: fitted(steep))
def saturated_sigmoids(weights, x, hard):
    return dense(weights, x, hard(steep, lambda h: jax.nn.sigmoid(4 * h)))


def sparse(h):
    """Puts every feature that is near the mean of its kind on it."""
    return jnp.where(jnp.abs(h - 0.7) < 1.0, 0.7, h)


@defence(
    "Amini et al. 2024 (MeanSparse)",
    "75.28 -> 73.10 % (RobustBench, CIFAR-10)",
    weights=lambda: fitted(sparse),
)
def dead_zone(weights, x, hard):
    def soft(h):
        return 0.7 + (h - 0.7) * jax.nn.sigmoid(4 * (jnp.abs(h - 0.7) - 1))

    return dense(weights, x, hard(sparse, soft))


# The logits are changed.


@defence("Papernot et al. 2016", "0 %, Carlini & Wagner 2017", "margin")
def distillation(weights, x, hard):
    return 100 * dense(weights, x)


CENTERS = np.float32(3 * np.eye(10) - 0.3)


@defence(
    "Pang et al. 2020 (MMC)", TRAMER, "margin", weights=lambda: fitted(outputs=lambda: CENTERS)
)
def quadratic_logits(weights, x, hard):
    z = dense(weights, x)
    return -20 * ((z[:, None] - CENTERS[None]) ** 2).sum(-1)


@defence("", attack="margin")
def relu_logits(weights, x, hard):
    return jax.nn.relu(50 * dense(weights, x))


CODE = np.float32([[(-1) ** bin(i & j).count("1") for j in range(1, 16)] for i in range(1, 11)])


@defence("Verma & Swami 2019", TRAMER, weights=lambda: fitted(outputs=lambda: CODE))
def output_codes(weights, x, hard):
    return hard(lambda z: jnp.tanh(100 * z), jnp.tanh)(dense(weights, x)) @ CODE.T


@defence("")
def float16_probabilities(weights, x, hard):
    def rounded(z):
        p = jax.nn.softmax((8 * z).astype(jnp.float16))
        return jnp.log(p + jnp.float16(1e-7)).astype(jnp.float32)

    return hard(rounded)(dense(weights, x))


@defence("", "Brendel et al. 2018")
def decision_only(weights, x, hard):
    return hard(lambda z: jax.nn.one_hot(z.argmax(1), 10))(dense(weights, x))


@defence(
    "Sen et al. 2020 (EMPIR)", TRAMER, weights=lambda: tuple(fitted(seed=seed) for seed in range(3))
)
def vote(weights, x, hard):
    ballot = hard(lambda z: jax.nn.one_hot(z.argmax(1), 10))
    return (
        ballot(dense(weights[0], x)) + ballot(dense(weights[1], x)) + ballot(dense(weights[2], x))
    )


# The model draws.


@defence("Dhillon et al. 2018", f"0 % (CIFAR-10), {ATHALYE}", "eot", random=True)
def stochastic_pruning(weights, key, x, hard):
    def prune(h):
        share = h / (h.sum(1, keepdims=True) + 1e-6)
        kept = 1 - (1 - share) ** (2 * HIDDEN)
        drawn = jax.random.uniform(key, h.shape) < kept
        return jnp.where(drawn, h / jnp.maximum(kept, 1e-3), 0)

    return dense(weights, x, lambda h: prune(jax.nn.relu(h)))


def view(key, x):
    """Every image shrunk and put at a random place."""
    return jax.vmap(DiverseInput(p=1.0, low=0.9).view)(jax.random.split(key, len(x)), x)


@defence(
    "Xie et al. 2018",
    f"0 % (ImageNet), {ATHALYE}",
    "eot",
    weights=lambda: fitted(before=functools.partial(view, jax.random.key(0))),
    random=True,
)
def random_resizing(weights, key, x, hard):
    return dense(weights, view(key, x))


@defence("He et al. 2019; Liu et al. 2018", attack="eot", random=True)
def noise(weights, key, x, hard):
    return dense(weights, x + 0.1 * jax.random.normal(key, x.shape))
