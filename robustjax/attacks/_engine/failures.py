"""Why a model of another library cannot be attacked as it is, and what to do: one sentence each."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax

TRAINING = (
    "it is in training mode, where it updates statistics, draws random numbers or normalises over "
    "a mapped axis; switch it to evaluation: train=False, deterministic=True and "
    "use_running_average=True in linen, model.eval() in NNX, eqx.nn.inference_mode(model) in "
    "Equinox, training=False in Keras"
)
OUTSIDE = (
    "it leaves JAX: NumPy, PyTorch or a Python `if` cannot see the values that JAX traces; write "
    "it in jax.numpy, or load its weights (models.from_torch for PyTorch)"
)
ADVICE = (
    (
        "ModifyScopeVariableError|TraceContextError|unbound axis name|InvalidRngError|"
        "requires? a key|old state|UnexpectedTracerError",
        TRAINING,
    ),
    ("Tracer|ConcretizationTypeError|Tensor|torch|not a valid JAX (array )?type", OUTSIDE),
    (
        "unbound module",
        "a Flax module has no weights of its own; give jax.tree_util.Partial(module.apply, "
        "variables), in evaluation mode",
    ),
    (
        "call_exported",
        "jax.vmap cannot map an exported function; give models.from_exported(exported)",
    ),
    (
        "pure_callback",
        "jax.vmap maps jax.pure_callback with vmap_method='expand_dims' only (it has no gradient)",
    ),
    (
        r"Shape mismatch for args\[0\]",
        "it was exported for one batch size; export it with jax.export.symbolic_shape('b, ...')",
    ),
)
"""(what the error's type and text hold, what to do)."""


def advice_for(error: Exception) -> str:
    """What to do about an error of a user's function; if nothing is known, what it says."""
    said = f"{type(error).__name__}: {error}"
    return next((text for pattern, text in ADVICE if re.search(pattern, said)), said.split("\n")[0])


def advice_for_model(error: Exception, model: Callable, inputs: Any) -> str:
    """The same for a model that failed on a batch, of which `inputs` has the shapes."""
    advice = advice_for(error)
    one_image = advice.startswith(type(error).__name__) and _takes_one(model, inputs)
    return "it takes one image, not a batch; give jax.vmap(model)" if one_image else advice


def _takes_one(model: Callable, inputs: Any) -> bool:
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), inputs)
    try:
        jax.eval_shape(model, one)
    except Exception:
        return False
    return True
