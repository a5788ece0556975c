"""The container every architecture fills: normalise, stem, body, dropout, head."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from robustjax.models.layers import BN


class Classifier(nn.Module):
    """Images in [0, 1] -> logits, with the input normalisation inside.

    Args:
      stem: (B, H, W, C) -> first hidden layer.
      body: (hidden layer, bn) -> float32 features (B, D).
      head: (B, D) -> float32 logits (B, K).
      mean, std: of each image channel, in [0, 1] pixels; None is 0 and 1.
      dtype: what the stem and the body compute in; parameters are float32.
      teacher: another classifier whose parameters are kept beside these, for training alone.
      auxiliary: (features, bn) -> log-odds (B,) that the prediction is to be trusted, or None.
      dropout: the probability with which a feature is zero before the head, in [0, 1), where a
        forward is given keys: (B,) one for each example, or () one draw for all of them.

    Guarantees:
      `rest(stem_output(x, bn), bn)` is `__call__(x, bn)`.
      Without keys, or with a dropout of 0, nothing is random; with them, an example's draw depends
      on its own key alone.
      Logits and features are float32.
      Images are float32 until they are normalised, so a perturbation survives a bfloat16 body.
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
        """Images (B, H, W, C) float32 in [0, 1] -> what the head sees without dropout, (B, D)."""
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
        """Images -> the first layer's output: all of the network that touches the pixels (YOPO)."""
        del bn, keys  # no stem normalises or drops; the arguments keep the methods alike
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
        del keys  # it sees all features
        if self.auxiliary is None:
            raise ValueError("the model has no auxiliary head: create it with `auxiliary`")
        return self.auxiliary(z, bn)

    def answer(self, z: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """Features (B, D) -> logits (B, K)."""
        if self.dropout and keys is not None:
            z = jax.vmap(self.drop, (0 if keys.ndim else None, 0))(keys, z)
        return self.head(z)

    def drop(self, key: jax.Array, z: jax.Array) -> jax.Array:
        """Zero features (D,) of one example, and let the others make up for them."""
        kept = 1 - self.dropout
        key = jax.random.clone(key)  # all forwards that are given it draw alike
        return jnp.where(jax.random.bernoulli(key, kept, z.shape), z / kept, 0)
