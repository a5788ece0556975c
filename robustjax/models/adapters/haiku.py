"""Networks of Haiku as functions of images."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.tree_util import Partial

from robustjax.checks import checked
from robustjax.promotion import usual


@dataclasses.dataclass(frozen=True)
class Transformed:
    """A transformed function: (params, state, images) -> its output; equal ones share programs.

    Args:
      apply: of `hk.transform`, `hk.transform_with_state`, or either without its rng.
      settings: its other arguments by name.
    """

    apply: Callable[..., Any]
    settings: tuple[tuple[str, Any], ...]

    def __call__(self, params: Any, state: Any, images: jax.Array) -> Any:
        """The output of an evaluation: no random numbers, and the state stays.

        Raises:
          ValueError: the function draws, or updates its state.
        """
        before = () if state is None else (state,)
        rng = (None,) if "rng" in inspect.signature(self.apply).parameters else ()
        try:
            with usual():
                output = self.apply(params, *before, *rng, images, **dict(self.settings))
        except ValueError as error:
            if "PRNG" not in str(error):
                raise
            raise ValueError(
                "the Haiku network draws random numbers: switch it to evaluation "
                "(from_haiku(..., is_training=False)), or wrap it yourself: attacks.Randomized("
                "lambda key, images: net.apply(params, key, images))"
            ) from error
        if state is None:
            return output
        output, after = output
        if any(a is not b for a, b in zip(*map(jax.tree.leaves, (state, after)), strict=False)):
            raise ValueError(
                "the Haiku network updates its state: switch it to evaluation "
                "(from_haiku(..., is_training=False))"
            )
        return output


@checked
def from_haiku(
    transformed: Any, params: Mapping[str, Any], state: Any = None, **settings: Any
) -> Partial:
    """A network of Haiku in evaluation mode, as a function of images (B, H, W, C).

    Args:
      transformed: what `hk.transform` or `hk.transform_with_state` returns.
      params: its weights.
      state: for `hk.transform_with_state`: its state.
      settings: other arguments of the function, such as is_training=False.

    Returns:
      logits_fn: images -> the function's output; its weights and its state are data.

    Raises:
      TypeError: `transformed` is something else, or a setting cannot be hashed.
      ValueError: the state is missing or one too many; or, where the function is called, it draws
        random numbers or updates its state.

    >>> logits_fn = rj.models.from_haiku(  # doctest: +SKIP
    ...     net, params, state, is_training=False
    ... )
    >>> rj.models.from_haiku(print, params={})
    Traceback (most recent call last):
    TypeError: pass what hk.transform or hk.transform_with_state returns, got builtin_function...
    """
    kind = type(transformed).__name__
    if kind not in ("Transformed", "TransformedWithState"):
        raise TypeError(f"pass what hk.transform or hk.transform_with_state returns, got {kind}")
    if (kind == "TransformedWithState") != (state is not None):
        raise ValueError(
            "pass state=, which hk.transform_with_state's init returns beside the params"
            if state is None
            else "the network has no state: hk.transform_with_state makes one that has"
        )
    function = Transformed(transformed.apply, tuple(sorted(settings.items())))
    try:
        hash(function)
    except TypeError as error:
        raise TypeError(f"the settings must be numbers, text or functions: {error}") from error
    return Partial(function, params, state)
