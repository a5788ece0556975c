"""The convolutions of a program, found and replaced wherever they stand in it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun

Rule = Callable[[Callable, Mapping[str, Any], jax.Array, jax.Array], jax.Array]
"""(the convolution as it stands, its settings, image, kernel) -> its value.

The settings are those of the primitive `conv_general_dilated`.
"""


def rewritten(function: Callable, rule: Rule) -> Callable:
    """The same function with `rule` in the place of its convolutions, in loops and branches too.

    Those of custom derivatives stay as they are.

    Args:
      function: of pytrees of arrays, flags and other constants; it is traced at each call.
      rule: see `Rule`.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = jax.tree.flatten((args, kwargs))
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray)]
        arrays = [leaves[i] for i in places]

        def of_arrays(*arrays):
            filled = dict(enumerate(leaves)) | dict(zip(places, arrays, strict=True))
            args, kwargs = jax.tree.unflatten(structure, filled.values())
            return function(*args, **kwargs)

        program, shape = jax.make_jaxpr(of_arrays, return_shape=True)(*arrays)
        outputs = jaxpr_as_fun(_replaced(program, rule))(*arrays)
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return run


def _replaced(value: Any, rule: Rule) -> Any:
    """A parameter of an equation, with other convolutions in the programs that it holds."""
    if type(value) is tuple:  # the branches of a `cond`
        return tuple(_replaced(one, rule) for one in value)
    if not isinstance(value, PROGRAMS) or not convolves(value):
        return value
    if isinstance(value, Jaxpr):  # since JAX 0.12 every program is one
        return value.replace(eqns=[_equation(equation, rule) for equation in value.eqns])
    return value.replace(jaxpr=_replaced(value.jaxpr, rule))


def _equation(equation: Any, rule: Rule) -> Any:
    name, settings = equation.primitive.name, equation.params
    if name.startswith(OWN_DERIVATIVES):
        return equation
    if name != CONVOLUTION:
        return equation.replace(params={k: _replaced(v, rule) for k, v in settings.items()})
    plain = functools.partial(equation.primitive.bind, **settings)
    call = jax.jit(functools.partial(rule, plain, settings))
    (made,) = jax.make_jaxpr(call)(*(atom.aval for atom in equation.invars)).eqns
    return made.replace(invars=equation.invars, outvars=equation.outvars)


CONVOLUTION = "conv_general_dilated"
OWN_DERIVATIVES = ("custom_vjp", "custom_jvp")
"""How the names of the primitives begin that differentiate by their own rule."""
PROGRAMS = (Jaxpr, ClosedJaxpr)


def convolves(program: Jaxpr | ClosedJaxpr) -> bool:
    """Whether a program convolves other than by a function with derivatives of its own."""
    return any(_convolves(equation) for equation in program.eqns)


def _convolves(equation: Any) -> bool:
    if equation.primitive.name == CONVOLUTION:
        return True
    if equation.primitive.name.startswith(OWN_DERIVATIVES):
        return False
    leaves = jax.tree.leaves(equation.params, is_leaf=lambda v: isinstance(v, PROGRAMS))
    programs: list[Any] = [leaf for leaf in leaves if isinstance(leaf, PROGRAMS)]
    return any(map(convolves, programs))
