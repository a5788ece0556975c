"""MagNet's autoencoder: a small convolutional network that learns to give back normal images."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from tqdm import tqdm

from robustjax.config import config, number, static

NHWC = ("NHWC", "HWIO", "NHWC")
Weights = tuple[dict[str, jax.Array], ...]
"""A kernel (3, 3, C, D) and a bias (D,) a layer."""


@config
class Autoencoder:
    """min E mean (AE(clip(x + noise n)) - x)^2 + penalty sum h^2, n standard normal, by Adam.

    3x3 convolutions, each before a sigmoid whose output is h: one to `filters` channels, one back
    from there, and one to the channels of the image. With `pool` the image is halved in between,
    by averages, and doubled again, with one more convolution on either side. The defaults are the
    authors' second one for MNIST, and with `pool` the first; what they take for CIFAR-10 is not in
    their code. They draw the noise once, here it is new in every epoch, and their penalty is summed
    over a batch, where here it is its mean. What a batch leaves over of an epoch waits for another.

    Args:
      filters: channels of the hidden layers.
      pool: images of even sides only.
      noise: its standard deviation, pixels in [0, 1].
      penalty: of the squares of all outputs of layers.
      epochs, batch_size, lr: of Adam.
      seed: of the weights, the batches and the noise.

    References: Meng & Chen, "MagNet: a two-pronged defense against adversarial examples", 2017,
    and its code.

    Guarantees:
      The same images and the same seed give the same bits.
    """

    filters: int = number(default=3, low=1, static=True)
    pool: bool = static(default=False)
    noise: float = number(default=0.1)
    penalty: float = number(default=1e-9)
    epochs: int = number(default=100, low=1)
    batch_size: int = number(default=256, low=1)
    lr: float = number(default=1e-3)
    seed: int = 0

    def fit(self, images: np.ndarray) -> Partial:
        """Train on normal images, with a progress bar in a terminal.

        Args:
          images: (N, H, W, C) float32 in [0, 1].

        Returns:
          (B, H, W, C) -> (B, H, W, C) in [0, 1], a `Partial` of the weights.

        Raises:
          ValueError: an odd height or width, where there is a pooling.
        """
        if self.pool and (images.shape[1] % 2 or images.shape[2] % 2):
            raise ValueError(
                f"images of {images.shape[1]}x{images.shape[2]} pixels cannot be halved; "
                "leave `pool` off"
            )
        layers, size = Layers(self.pool), min(self.batch_size, len(images))
        start, noisy = jax.random.split(jax.random.key(self.seed))
        weights = layers.initial(start, images.shape[-1], self.filters)
        state, loss = (weights, optax.adam(self.lr).init(weights)), jnp.nan
        numbers, batches = (self.noise, self.penalty, self.lr), np.random.default_rng(self.seed)
        with tqdm(range(self.epochs), "autoencoder", unit="epoch", disable=None) as bar:
            for epoch in bar:
                order = batches.permutation(len(images))
                # steps from the host: XLA:CPU's convolutions are several times slower in a loop
                for rows in order[: len(order) // size * size].reshape(-1, size):
                    keys = jax.random.fold_in(noisy, epoch), rows
                    state, loss = descend(layers, state, images[rows], keys, numbers)
                bar.set_postfix(loss=f"{loss:.2g}", refresh=False)
        return Partial(layers, state[0])


@dataclasses.dataclass(frozen=True)
class Layers:
    """The forward pass; equal ones make equal programs."""

    pool: bool

    def __call__(self, weights: Weights, images: jax.Array) -> jax.Array:
        """Images (B, H, W, C) -> their reconstructions."""
        return self.outputs(weights, images)[-1]

    def outputs(self, weights: Weights, images: jax.Array) -> list[jax.Array]:
        """What every convolution makes of images (B, H, W, C)."""
        found, h = [], images
        for i, layer in enumerate(weights):
            h = jax.lax.conv_general_dilated(
                h, layer["kernel"], (1, 1), "SAME", dimension_numbers=NHWC
            )
            h = h + layer["bias"].reshape(1, 1, 1, -1)
            found.append(h := jax.nn.sigmoid(h))
            if self.pool and i == 0:
                h = halved(h)
            elif self.pool and i == 2:
                h = doubled(h)
        return found

    def initial(self, key: jax.Array, channels: int, filters: int) -> Weights:
        """Kernels of Glorot and Bengio (2010), and biases of zero."""
        sizes = [channels, *[filters] * (4 if self.pool else 2), channels]
        glorot = jax.nn.initializers.glorot_uniform()
        return tuple(
            {"kernel": glorot(key, (3, 3, before, after)), "bias": jnp.zeros(after)}
            for key, before, after in zip(
                jax.random.split(key, len(sizes) - 1), sizes, sizes[1:], strict=False
            )
        )


@functools.partial(jax.jit, static_argnums=0)
def descend(
    layers: Layers,
    state: tuple[Weights, Any],
    clean: jax.Array,
    keys: tuple[jax.Array, jax.Array],
    numbers: tuple[float, float, float],
) -> tuple[tuple[Weights, Any], jax.Array]:
    """A step of Adam.

    Args:
      layers: the network.
      state: its weights, and Adam's.
      clean: (B, H, W, C) images.
      keys: of the noise of this epoch, and what is folded into it for each image, (B,).
      numbers: noise, penalty, learning rate.

    Returns:
      (the state, the loss).
    """
    (weights, moments), (noise, penalty, lr) = state, numbers
    own = jax.vmap(jax.random.fold_in, (None, 0))(*keys)
    shift = noise * jax.vmap(lambda key: jax.random.normal(key, clean.shape[1:]))(own)

    def loss(weights):
        found = layers.outputs(weights, jnp.clip(clean + shift, 0, 1))
        squares = sum((h**2).sum() for h in found) / len(clean)
        return ((found[-1] - clean) ** 2).mean() + penalty * squares

    value, slope = jax.value_and_grad(loss)(weights)
    updates, moments = optax.adam(lr).update(slope, moments)
    moved: Any = optax.apply_updates(weights, updates)
    return (moved, moments), value


def halved(h: jax.Array) -> jax.Array:
    """The mean of every 2x2 pixels: (B, H, W, D) -> (B, H / 2, W / 2, D)."""
    rows = h[:, ::2] + h[:, 1::2]  # not a reduction, whose last bits the batch would change
    return (rows[:, :, ::2] + rows[:, :, 1::2]) / 4


def doubled(h: jax.Array) -> jax.Array:
    """Every pixel four times: (B, H, W, D) -> (B, 2 H, 2 W, D)."""
    return h.repeat(2, 1).repeat(2, 2)
