"""Any convolution against itself: the same values and derivatives, in every layout."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from robustjax.convolutions import with_fast_convolutions

LAYOUTS = {
    1: [("NWC", "WIO", "NWC"), ("NCW", "OIW", "NCW"), ("WNC", "OWI", "CWN")],
    2: [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW"), ("CHWN", "IHWO", "NHWC")],
    3: [("NDHWC", "DHWIO", "NDHWC"), ("NCDHW", "OIDHW", "NDHWC")],
}


def shaped(layout, sizes):
    return tuple(sizes[letter] for letter in layout)


def drawn(layouts, image, kernel, seed=0, dtype=jnp.float32):
    x, w = jax.random.split(jax.random.key(seed))
    x = jax.random.normal(x, shaped(layouts[0], image), dtype)
    return x, jax.random.normal(w, shaped(layouts[1], kernel), dtype)


def assert_same(convolve, x, w, tolerance=1e-5):
    """Values, gradients, and gradients of a gradient's norm, compiled in a loop."""

    def everything(convolve):
        def loss(x, w):
            return jnp.sum(jnp.sin(convolve(x, w).astype(jnp.float32)))

        def penalty(x, w):
            return jnp.sum(jax.grad(loss)(x, w).astype(jnp.float32) ** 2)

        found = convolve(x, w), jax.grad(loss, (0, 1))(x, w), jax.grad(penalty, (0, 1))(x, w)
        return jax.tree.map(lambda a: a.astype(jnp.float32), found)

    ours, theirs = jax.jit(everything, static_argnums=0), jax.jit(everything, static_argnums=0)
    fast = with_fast_convolutions(convolve)
    for a, b in zip(*map(jax.tree.leaves, (ours(fast), theirs(convolve))), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * (1 + np.abs(b).max()))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    data=st.data(),
    n=st.integers(1, 3),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    base=st.integers(1, 2),
    padding=st.one_of(
        st.sampled_from(("SAME", "VALID")), st.tuples(st.integers(0, 2), st.integers(0, 2))
    ),
    taps=st.integers(1, 4),
)
def test_values_and_derivatives_are_those_of_the_convolution(
    data, n, stride, dilation, base, padding, taps
):
    layouts = data.draw(st.sampled_from(LAYOUTS[n]))
    if base > 1 and isinstance(padding, str):
        padding = (1, 1)  # lax refuses the names with a dilated image
    letters = "DHW"[-n:]
    sides = {letter: 7 + i for i, letter in enumerate(letters)}
    x, w = drawn(
        layouts, {"N": 2, "C": 3, **sides}, {"I": 3, "O": 4, **dict.fromkeys(letters, taps)}
    )

    def convolve(x, w):
        return lax.conv_general_dilated(
            x,
            w,
            (stride,) * n,
            padding if isinstance(padding, str) else [padding] * n,
            (base,) * n,
            (dilation,) * n,
            layouts,
        )

    assert_same(convolve, x, w)


@pytest.mark.parametrize("layouts", LAYOUTS[2])
def test_bfloat16(layouts):
    x, w = drawn(
        layouts, {"N": 2, "H": 8, "W": 8, "C": 3}, {"H": 3, "W": 3, "I": 3, "O": 4}, 0, jnp.bfloat16
    )

    def convolve(x, w):
        return lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=layouts)

    assert with_fast_convolutions(convolve)(x, w).dtype == jnp.bfloat16
    assert_same(convolve, x, w, tolerance=5e-2)


def test_groups_and_integers_stay_as_they_are():
    x, w = drawn(LAYOUTS[2][0], {"N": 2, "H": 8, "W": 8, "C": 4}, {"H": 3, "W": 3, "I": 1, "O": 4})

    def grouped(x, w):
        return lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=LAYOUTS[2][0], feature_group_count=4
        )

    assert_same(grouped, x, w)

    def whole(x, w):
        return lax.conv(x, w, (1, 1), "SAME")

    counts = jnp.arange(48).reshape(1, 3, 4, 4), jnp.ones((2, 3, 3, 3), int)
    np.testing.assert_array_equal(with_fast_convolutions(whole)(*counts), whole(*counts))


def lowered(function, platform):
    """The program of single images' gradients in a loop, lowered for a platform."""
    x, w = drawn(LAYOUTS[2][1], {"N": 4, "H": 8, "W": 8, "C": 3}, {"H": 4, "W": 4, "I": 3, "O": 4})

    def one(x):
        def ascend(_, x):
            return x + 0.1 * jax.grad(lambda x: jnp.sum(function(x[None], w) ** 2))(x)

        return lax.fori_loop(0, 3, ascend, x)

    step = jax.jit(jax.vmap(one))
    return step.trace(x).lower(lowering_platforms=(platform,)).as_text()


def layouts_of(text):
    return sorted(re.findall(r"dim_numbers = (\[.*?\]x\[.*?\]->\[.*?\])", text))


def plain(x, w):
    return lax.conv(x, w, (2, 2), "SAME")


def test_the_cpu_gets_one_layout():
    found = layouts_of(lowered(with_fast_convolutions(plain), "cpu"))
    assert set(found) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}
    assert set(layouts_of(lowered(plain, "cpu"))) != set(found)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_other_platforms_get_the_plain_form(platform):
    ours, theirs = (
        layouts_of(lowered(f, platform)) for f in (with_fast_convolutions(plain), plain)
    )
    assert ours == theirs and len(ours) == 2  # forward, input gradient
