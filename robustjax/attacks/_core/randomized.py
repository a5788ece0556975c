"""Models with randomness: a fresh draw at every step, and expectations over draws (EOT).

Every function here leaves a deterministic model as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from robustjax.checks import INF, checked
from robustjax.deterministic import ordered_sum
from robustjax.keys import seeded, threefry


@jax.tree_util.register_pytree_node_class
class Randomized:
    """A model whose output depends on a key: `function(key, images)` -> logits (B, K).

    A call with images uses the key it holds. An attack in `perturb` or `evaluate` sees the mean
    output of `eot` draws in its place, and its gradient is that of this mean. Attacks with a field
    `eot` of their own take other draws at every step. The rest (Square, HopSkipJump, the
    minimum-norm attacks) see the same draws at every query, else they would keep the point of the
    luckiest one. The verdict on an image is over draws that no attack has seen.

    Args:
      function: (key, images (B, H, W, C)) -> (B, K); a `jax.tree_util.Partial` keeps weights out
        of the program.
      key: the draw; `redraw` changes it.
      eot: the draws of each look of an attack, which its cost counts. With 1 an evaluation flags
        those that see the same draw at every query.

    References: Athalye et al., "Synthesizing robust adversarial examples", 2018.

    >>> def noisy(key, images):
    ...     return images.reshape(len(images), -1) + jax.random.normal(key, (len(images), 2))
    >>> model, images = rj.attacks.Randomized(noisy, jax.random.key(1)), jnp.zeros((3, 1, 2, 1))
    >>> bool((model(images) == model(images)).all())
    True
    """

    @checked(eot=(1, INF))
    def __init__(self, function: Callable, key: jax.Array | None = None, eot: int = 1):
        is_partial = isinstance(function, jax.tree_util.Partial)
        self.function = function if is_partial else jax.tree_util.Partial(function)
        self.key = seeded(0) if key is None else threefry(key)
        self.eot = eot

    def __call__(self, images: jax.Array) -> Any:
        """The output under the current key, the same draw at every call."""
        return self.function(jax.random.clone(self.key), images)

    def tree_flatten(self) -> tuple:
        """The function's weights and the key are data."""
        return (self.function, self.key), self.eot

    @classmethod
    def tree_unflatten(cls, eot: int, children: tuple) -> Randomized:
        """Rebuild around tracers."""
        new = object.__new__(cls)
        (new.function, new.key), new.eot = children, eot
        return new

    def with_function(self, function: Callable) -> Randomized:
        """The same draws of another function."""
        return Randomized(function, self.key, self.eot)


def redraw(logits_fn: Callable, key: jax.Array) -> Callable:
    """The same model with another key; a deterministic model as it is."""
    if not isinstance(logits_fn, Randomized):
        return logits_fn
    return Randomized(logits_fn.function, key, logits_fn.eot)


def averaged(logits_fn: Callable) -> Callable:
    """The model of one image that an attack sees: the mean over `eot` draws of each key."""
    if draws_of(logits_fn) == 1:
        return logits_fn
    return Randomized(lambda key, x: expected(lambda draw: draw(x), logits_fn, key, logits_fn.eot))


def draws_of(logits_fn: Callable) -> int:
    """The draws of each look of an attack at a model."""
    return logits_fn.eot if isinstance(logits_fn, Randomized) else 1


def after(logits_fn: Callable, change: Callable[[jax.Array], jax.Array]) -> Callable:
    """The model of one image after a change of that image."""
    if isinstance(logits_fn, Randomized):
        return logits_fn.with_function(lambda key, x: logits_fn.function(key, change(x)))
    return lambda x: logits_fn(change(x))


def expected(
    function: Callable[[Callable], Any], logits_fn: Callable, key: jax.Array | None, draws: int
) -> Any:
    """The mean of `function(logits_fn)` over `draws` draws of the model (EOT).

    Float leaves are averaged; others come from the first draw. One draw, or a deterministic model,
    takes one call. Without a key the draw is the one that the model holds.

    References: Athalye et al., "Synthesizing robust adversarial examples", 2018.
    """
    if not isinstance(logits_fn, Randomized) or key is None:
        return function(logits_fn)
    if draws == 1:
        return function(redraw(logits_fn, key))
    keys = jax.random.split(key, draws)
    values = jax.vmap(lambda k: function(redraw(logits_fn, k)))(keys)

    def mean(leaf):
        floats = jnp.issubdtype(leaf.dtype, jnp.floating)
        return ordered_sum(leaf) / draws if floats else leaf[0]

    return jax.tree.map(mean, values)
