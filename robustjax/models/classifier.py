"""The container of every architecture: normalise, stem, body, dropout, head."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from robustjax.models.nets.layers import BN


class Classifier(nn.Module):
    """Images in [0, 1] -> logits, with the input normalisation inside.

    Args:
      stem: (B, H, W, C) -> first hidden layer.
      body: (hidden layer, bn) -> float32 features (B, D).
      head: (B, D) -> float32 logits (B, K).
      mean, std: of each image channel, in [0, 1] pixels; None is 0 and 1.
      dtype: compute dtype of the stem and the body; parameters are float32.
      teacher: another classifier, stored with this one and used only in training.
      auxiliary: (features, bn) -> log-odds (B,) that the prediction is right, or None.
      dropout: the probability, in [0, 1), that a feature is set to zero before the head. It applies
        if a forward pass has keys: (B,), one for each example, or (), the same draw for all.

    Guarantees:
      `rest(stem_output(x, bn), bn)` is `__call__(x, bn)`.
      Without keys, or with a dropout of 0, nothing is random. With keys, an example's draw depends
      only on its own key.
      Logits and features are float32.
      Images are float32 until they are normalised, so a perturbation survives a bfloat16 body.

    >>> model = rj.models.create("cnn", num_classes=10, mean=(0.5,), std=(0.25,))
    >>> isinstance(model, rj.models.Classifier), model.mean, model.head.num_classes
    (True, (0.5,), 10)
    """

    stem: nn.Module
    body: nn.Module
    head: nn.Module
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    dtype: Any = jnp.float32
    teacher: nn.Module | None = None
    auxiliary: nn.Module | None = None
    dropout: float = 0.0

    def __call__(self, x: jax.Array, bn: BN, keys: jax.Array | None = None) -> jax.Array:
        """Images (B, H, W, C) float32 in [0, 1] -> logits (B, K)."""
        if self.teacher is not None and self.is_initializing():
            self.taught(x, bn)
        if self.auxiliary is not None and self.is_initializing():
            self.trust(self.features(x, bn), bn)
        return self.rest(self.stem_output(x, bn), bn, keys)

    def features(self, x: jax.Array, bn: BN, keys: jax.Array | None = None) -> jax.Array:
        """Images (B, H, W, C) float32 in [0, 1] -> features (B, D), before dropout."""
        del keys  # as in `stem_output`
        return self.body(self.stem_output(x, bn), bn)

    def both(
        self, x: jax.Array, bn: BN, keys: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Images (B, H, W, C) float32 in [0, 1] -> (features (B, D), logits (B, K))."""
        z = self.features(x, bn)
        return z, self.answer(z, keys)

    def taught(self, x: jax.Array, bn: BN, keys: jax.Array | None = None) -> jax.Array:
        """Images (B, H, W, C) float32 in [0, 1] -> the teacher's logits (B, K)."""
        if self.teacher is None:
            raise ValueError("the model has no teacher: create it with `teacher`")
        return self.teacher(x, bn, keys)

    def stem_output(self, x: jax.Array, bn: BN, keys: jax.Array | None = None) -> jax.Array:
        """Images -> the first layer's output: the only part that touches the pixels (YOPO)."""
        del bn, keys  # no stem has BN or dropout; all methods have the same arguments
        if x.ndim != 4 or x.dtype != jnp.float32:
            raise ValueError(
                f"images must be float32 (B, H, W, C) in [0, 1], got {x.dtype} {x.shape}"
            )
        for name, value in (("mean", self.mean), ("std", self.std)):
            if value is not None and len(value) != x.shape[-1]:
                raise ValueError(
                    f"{name} has {len(value)} values for images of {x.shape[-1]} channels"
                )
        if self.mean is not None:
            x = x - jnp.array(self.mean, jnp.float32).reshape(1, 1, 1, -1)
        if self.std is not None:
            x = x / jnp.array(self.std, jnp.float32).reshape(1, 1, 1, -1)
        return self.stem(x.astype(self.dtype))

    def rest(self, h: jax.Array, bn: BN, keys: jax.Array | None = None) -> jax.Array:
        """The first layer's output -> logits (B, K)."""
        return self.answer(self.body(h, bn), keys)

    def trust(self, z: jax.Array, bn: BN, keys: jax.Array | None = None) -> jax.Array:
        """Features (B, D) -> the auxiliary head's log-odds (B,)."""
        del keys  # it sees the features before dropout
        if self.auxiliary is None:
            raise ValueError("the model has no auxiliary head: create it with `auxiliary`")
        return self.auxiliary(z, bn)

    def answer(self, z: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """Features (B, D) -> logits (B, K)."""
        if self.dropout and keys is not None:
            z = jax.vmap(self.drop, (0 if keys.ndim else None, 0))(keys, z)
        return self.head(z)

    def drop(self, key: jax.Array, z: jax.Array) -> jax.Array:
        """Set random features (D,) of one example to zero, and scale the others to compensate."""
        kept = 1 - self.dropout
        key = jax.random.clone(key)  # forward passes with the same key draw the same
        return jnp.where(jax.random.bernoulli(key, kept, z.shape), z / kept, 0)
