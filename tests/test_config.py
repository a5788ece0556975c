import dataclasses
import functools
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustjax import checks, config, files, losses
from robustjax.attacks import APGD, PGD
from robustjax.threats import L2, Linf
from robustjax.training import AWP, METHODS, TRADES, Recipe

FUNCTIONS = losses.NAMED


@given(st.integers(-1000, 1000), st.integers(1, 1000))
def test_fractions_are_numbers(p, q):
    assert config.parse_number(f"{p}/{q}") == p / q


@given(st.floats(0, 1e6) | st.fractions(0, 1, max_denominator=1000).map(float))
def test_a_written_number_is_read_again(value):
    assert config.parse_number(config.format_number(value)) == value


def test_numbers_are_written_short():
    written = [config.format_number(x) for x in (8 / 255, 0.1, 5e-4, 100 / 110, 3, 2 / 3)]
    assert written == ["8/255", "0.1", "0.0005", "10/11", "3", "2/3"]


@pytest.mark.parametrize("text", ["", "8/0", "eight", "8/255/2"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match=r"write 0\.03 or 8/255"):
        config.parse_number(text)


@pytest.mark.parametrize("value", [*METHODS.values(), AWP(METHODS["sat"]), Recipe()])
def test_json_round_trip(value):
    assert config.decode(config.encode(value), FUNCTIONS) == value


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown config type 'Nothing'"):
        config.decode({"type": "Nothing", "fields": {}}, FUNCTIONS)
    with pytest.raises(ValueError, match="has no field 'epsilon'"):
        config.decode({"type": "Linf", "fields": {"epsilon": 1}}, FUNCTIONS)
    encoded = config.encode(PGD())
    encoded["fields"]["loss"] = "os.system"
    with pytest.raises(ValueError, match=r"unknown function 'os\.system'"):
        config.decode(encoded, FUNCTIONS)


@pytest.mark.parametrize("value", [2.5, 100.0])
def test_a_count_is_no_float(value):
    with pytest.raises(ValueError, match=f"steps must be a whole number such as 10, got {value}"):
        PGD(steps=value)


def test_numbers_are_data_and_functions_are_program():
    assert jax.tree.structure(PGD(Linf(0.1))) == jax.tree.structure(PGD(Linf(0.2)))
    assert jax.tree.structure(PGD(Linf(0.1))) != jax.tree.structure(PGD(L2(0.1)))
    assert jax.tree.structure(PGD()) != jax.tree.structure(PGD(loss=losses.kl))


ARRAYS = [
    ("step_size", jnp.float32(-1)),
    ("step_size", jnp.bfloat16(jnp.nan)),
    ("rel_step", np.array([1.0, -1.0])),
    ("steps", jnp.float32(jnp.nan)),
    ("steps", jnp.int32(-1)),
    ("steps", np.array(3.0)),
]


def test_a_traced_number_passes_the_checks_a_wrong_one_does_not():
    for wrong in (-1.0, np.float32(-1), np.int64(-1), np.nan):
        with pytest.raises(ValueError, match="eps"):
            Linf(wrong)
    for name, wrong in ARRAYS:
        with pytest.raises(ValueError, match=f"{name} must"):
            PGD(**{name: wrong})
    scaled = jax.jit(lambda s: dataclasses.replace(Linf(), eps=s).eps)(jnp.float32(-1.0))
    assert scaled == -1.0


CELL = """
from typing import Literal
from robustjax.config import config, number, static

@config
class Walk:
    steps: int = number(default=10, low=1)
    gait: Literal["slow", "fast"] = static(default="slow")
    path: object = None
"""


def defined(module: str, future: bool = False) -> type:
    """A class as a notebook's cell or a user's module defines it."""
    scope = vars(sys.modules.setdefault(module, types.ModuleType(module)))
    exec(("from __future__ import annotations" if future else "") + CELL, scope)
    return scope["Walk"]


@pytest.mark.parametrize("future", [False, True])
def test_fields_are_checked_whether_annotations_are_postponed_or_not(future):
    walk = defined("somebody", future)
    with pytest.raises(ValueError, match=r"steps must be a whole number such as 10, got 2\.5"):
        walk(steps=2.5)
    with pytest.raises(ValueError, match=r"steps must lie in \[1, inf\], got 0"):
        walk(steps=0)
    with pytest.raises(ValueError, match="gait must be one of slow, fast, got 'quick'"):
        walk(gait="quick")


def test_a_loss_by_its_name_is_refused_in_python():
    with pytest.raises(ValueError, match="loss must be a function of 2 arguments, got 'dlr'"):
        PGD(loss="dlr")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AWP("trades"), "inner must be a Method, got 'trades'"),
        (lambda: AWP(TRADES), "inner must be a Method, got <class"),
        (lambda: TRADES(attack=APGD()), r"attack must be a PGD, got APGD\("),
        (lambda: PGD(start=1e-3), "start must be a Start, got 0.001"),
        (lambda: Recipe(optimizer="adam"), "optimizer must be an Optimizer, got 'adam'"),
    ],
)
def test_a_field_holds_what_its_type_names(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_jax_puts_in_a_field_passes():
    for leaf in (object(), None, True, 0, jax.ShapeDtypeStruct((), "float32")):
        made = jax.tree.map(lambda _, leaf=leaf: leaf, AWP(), is_leaf=lambda n: isinstance(n, PGD))
        assert made.inner.attack is leaf
    assert jax.jit(lambda method: method)(AWP()).inner.beta == 6


def test_a_cell_may_be_run_twice():
    first, second = defined("notebook"), defined("notebook")
    assert first is not second
    assert type(config.decode(config.encode(second(7)), {})) is second


def test_classes_of_one_name_live_in_their_modules():
    one, other = defined("mine")(3), defined("yours")(4)
    assert config.decode(config.encode(one), {}) == one
    assert config.decode(config.encode(other), {}) == other
    with pytest.raises(TypeError, match="named Linf already"):
        type_in_ours = types.new_class("Linf")
        type_in_ours.__module__ = "robustjax.elsewhere"
        config.config(type_in_ours)


def somebodys_loss(output, target, weight=1.0):
    return weight * losses.margin(output, target)


def test_functions_of_users_come_back():
    for loss in (somebodys_loss, functools.partial(somebodys_loss, weight=2.0)):
        found = config.decode(config.encode(PGD(loss=loss)), FUNCTIONS).loss
        assert (found == loss) or (found.func, found.keywords) == (loss.func, loss.keywords)
    for name in ("nowhere.loss", "os.system", "builtins.eval"):
        with pytest.raises(ValueError, match=f"unknown function '{re.escape(name)}'; import"):
            config.decode(config.encode(PGD()) | {"fields": {"loss": name}}, FUNCTIONS)


def test_configs_with_arrays_are_compared_entry_by_entry():
    walk = defined("somebody")
    assert walk(path=np.ones(3)) == walk(path=np.ones(3))
    assert walk(path=np.ones(3)) != walk(path=np.zeros(3))


def test_text_is_no_number_in_python():
    with pytest.raises(ValueError, match=r"eps must be a number, such as 8 / 255, not .*'8/255'"):
        checks.check_number("eps", "8/255")


@pytest.mark.parametrize("size", [3, 5000])
def test_an_array_in_a_config_comes_back_from_json(size):
    eps = np.linspace(0, 1, size, dtype=np.float32).reshape(1, 1, size)
    written = files.from_json(files.to_json(config.encode(Linf(eps, mask=eps > 0.5))))
    read = config.decode(written, {})
    assert read == Linf(eps, mask=eps > 0.5) and read.eps.dtype == np.float32
