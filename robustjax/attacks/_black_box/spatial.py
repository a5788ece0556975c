"""Rotations and translations: small ones that no norm calls small."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from typing_extensions import override

from robustjax.attacks._black_box.candidates import Candidates
from robustjax.attacks._core.iterative import Example
from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks.targets import Target, TrueLabel
from robustjax.config import config, number, static
from robustjax.losses import margin
from robustjax.typing import Loss


def rotate_and_translate(x: jax.Array, degrees: jax.Array | float, shift: jax.Array) -> jax.Array:
    """Rotate an image about its centre, then translate it; bilinear, with zeros outside.

    Args:
      x: (H, W, C) in [0, 1].
      degrees: () counter-clockwise, as the image is seen with row 0 on top.
      shift: (2,) in pixels, (down, right).

    Returns:
      (H, W, C) in [0, 1].

    Guarantees:
      Without rotation, a shift by whole pixels moves pixels and changes none.
    """
    angle = jnp.deg2rad(degrees)
    height, width, _ = x.shape
    row = jnp.arange(height)[:, None] - (height - 1) / 2 - shift[0]
    column = jnp.arange(width)[None, :] - (width - 1) / 2 - shift[1]
    # Where each pixel of the result comes from: the inverse motion.
    source = [
        jnp.cos(angle) * row + jnp.sin(angle) * column + (height - 1) / 2,
        jnp.cos(angle) * column - jnp.sin(angle) * row + (width - 1) / 2,
    ]
    moved = jax.vmap(lambda c: map_coordinates(c, source, order=1), in_axes=-1, out_axes=-1)(x)
    return jnp.clip(moved, 0, 1)  # the four weights may sum to 1 and a rounding


@runtime_checkable
class Search(Protocol):
    """The motions to try: a `@config` class of your own will do."""

    @property
    def count(self) -> int | jax.Array:
        """Their number."""
        ...

    def __call__(self, key: jax.Array, k: jax.Array) -> jax.Array:
        """The k-th (rotation, down, right), each in [-1, 1]."""
        ...


@config
class Grid:
    """All combinations of evenly spaced rotations and shifts, both extremes included.

    The corner where the paper's grid begins:

    >>> grid = rj.attacks.Grid(rotations=31, translations=5)
    >>> grid.count, grid(jax.random.key(0), 0).tolist()
    (775, [-1.0, -1.0, -1.0])
    """

    rotations: int = number(default=31, low=1)
    translations: int = number(default=5, low=1)

    @property
    def count(self) -> int | jax.Array:
        """rotations * translations^2."""
        return self.rotations * self.translations**2

    def __call__(self, key: jax.Array, k: jax.Array) -> jax.Array:
        """The k-th (rotation, down, right), each in [-1, 1]."""
        rest, right = jnp.divmod(k, self.translations)
        turn, down = jnp.divmod(rest, self.translations)

        def spaced(i, n):
            return jnp.where(n > 1, 2 * i / jnp.maximum(n - 1, 1) - 1, 0)

        n = self.translations
        return jnp.stack([spaced(turn, self.rotations), spaced(down, n), spaced(right, n)])


@config
class Draws:
    """Uniformly random motions: the worst-of-k attack.

    More draws begin with the same ones:

    >>> key, ten, twenty = jax.random.key(0), rj.attacks.Draws(10), rj.attacks.Draws(20)
    >>> ten(key, 3).tolist() == twenty(key, 3).tolist()
    True
    """

    count: int = number(default=10, low=1)

    def __call__(self, key: jax.Array, k: jax.Array) -> jax.Array:
        """The k-th (rotation, down, right), each in [-1, 1]."""
        return jax.random.uniform(jax.random.fold_in(key, k), (3,), minval=-1, maxval=1)


@config
class Spatial(Candidates):
    """The worst rotation about the centre and translation of an image; stops at success.

    Bilinear, with zeros outside. The unchanged image comes first, then the candidates of
    `search`, each one query. There is no threat model: reports give no distance.

    Args:
      max_rotation: in degrees, both ways.
      max_translation: in pixels, both ways along both axes; the paper takes 3 for 28 or 32 pixels.
      search: `Grid()`, the 775 motions of the paper's grid, `Draws(10)`, its worst of 10, or any
        object like them.
      loss: (output, target) -> scalar, largest for the worst candidate when none succeeds.
      target: which class to leave or to reach when the caller gives none: `attacks.targets`.
      success: (output, y) -> bool.

    References: Engstrom et al., "Exploring the landscape of spatial robustness", 2019, Section 4.

    Guarantees:
      The result lies in [0, 1].
      The identity is among the candidates.

    Three pixels that are the logits. Half a turn takes the white one to the other end:

    >>> x = jnp.array([[[1.0], [0.0], [0.0]]])
    >>> attack = rj.attacks.Spatial(180.0, 0.0, search=rj.attacks.Grid(2, 1))
    >>> print(jnp.ravel(attack(jnp.ravel, jax.random.key(0), x, 0)).round(3))
    [0. 0. 1.]
    """

    moves_pixels = True

    max_rotation: float = number(default=30.0, high=180.0)
    max_translation: float = number(default=3.0)
    search: Search = Grid()
    loss: Loss = static(default=margin)
    target: Target = TrueLabel()
    success: Success = static(default=fooled)

    @property
    @override
    def count(self) -> int | jax.Array:
        return 1 + self.search.count

    @override
    def candidate(self, example: Example, k: jax.Array) -> jax.Array:
        motion = jnp.where(k == 0, 0, self.search(example.key, jnp.maximum(k - 1, 0)))
        return rotate_and_translate(
            example.x, self.max_rotation * motion[0], self.max_translation * motion[1:]
        )
