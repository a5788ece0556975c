"""MagNet's autoencoder: a small convolutional network that learns to reproduce normal images."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from robustjax.checks import check_seed
from robustjax.config import config, number, static
from robustjax.keys import seeded
from robustjax.progress import bar

NHWC = ("NHWC", "HWIO", "NHWC")
Weights = tuple[dict[str, jax.Array], ...]
"""For each layer a kernel (3, 3, C, D) and a bias (D,)."""


@config
class Autoencoder:
    """min E mean (AE(clip(x + noise n)) - x)^2 + penalty sum h^2, n standard normal, by Adam.

    Three 3x3 convolutions, each followed by a sigmoid with the output h: two with `filters`
    channels, and one with the channels of the image. `pool` adds two more; it halves the image by
    averages after the first and doubles it again after the third. The defaults are the authors'
    second network for MNIST, and with `pool` their first; their code has none for CIFAR-10. They
    draw the noise once; here it is new in every epoch. Their penalty is summed over a batch; here
    it is the batch mean. Images that do not fill an epoch's last batch are left out of that epoch.

    Args:
      filters: number of channels of the hidden layers.
      pool: halve the image in between; its height and width must be even.
      noise: standard deviation, pixels in [0, 1].
      penalty: weight of the squares of all layers' outputs.
      epochs, batch_size, lr: of Adam.
      seed: for the weights, the batches and the noise.

    References: Meng & Chen, "MagNet: a two-pronged defense against adversarial examples", 2017,
    and its code.

    Guarantees:
      The same images and the same seed give the same bits.

    >>> images = np.full((2, 4, 4, 1), 0.5, np.float32)
    >>> rj.detection.Autoencoder(epochs=1).fit(images)(images).shape
    (2, 4, 4, 1)
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
          ValueError: an odd height or width, with `pool`; a seed outside [0, 2**32).
        """
        check_seed("seed", self.seed)
        if self.pool and (images.shape[1] % 2 or images.shape[2] % 2):
            raise ValueError(
                f"images of {images.shape[1]}x{images.shape[2]} pixels cannot be halved; "
                "leave `pool` off"
            )
        layers, size = Layers(self.pool), min(self.batch_size, len(images))
        start, noisy = jax.random.split(seeded(self.seed))
        weights = layers.initial(start, images.shape[-1], self.filters)
        state, loss = (weights, optax.adam(self.lr).init(weights)), jnp.nan
        numbers, batches = (self.noise, self.penalty, self.lr), np.random.default_rng(self.seed)
        epochs = range(self.epochs)
        with bar("autoencoder", epochs, unit="epoch", disable=None) as shown:
            for epoch in shown:
                order = batches.permutation(len(images))
                # steps from the host: XLA:CPU's convolutions are several times slower in a loop
                for rows in order[: len(order) // size * size].reshape(-1, size):
                    keys = jax.random.fold_in(noisy, epoch), rows
                    state, loss = descend(layers, state, images[rows], keys, numbers)
                shown.set_postfix(loss=f"{loss:.2g}", refresh=False)
        return Partial(layers, state[0])


@dataclasses.dataclass(frozen=True)
class Layers:
    """The forward pass; static under jit."""

    pool: bool

    def __call__(self, weights: Weights, images: jax.Array) -> jax.Array:
        """Images (B, H, W, C) -> their reconstructions."""
        return self.outputs(weights, images)[-1]

    def outputs(self, weights: Weights, images: jax.Array) -> list[jax.Array]:
        """The outputs of all layers at images (B, H, W, C)."""
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
    """One step of Adam.

    Args:
      layers: the network.
      state: its weights, and Adam's moments.
      clean: (B, H, W, C) images.
      keys: the key of this epoch's noise, and a number (B,) to fold into it for each image.
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
