"""The convolution against `lax.conv_general_dilated`, on every platform it can be lowered for."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from robustjax.convolutions.conv2d import conv2d, grouped_conv2d, padded_conv2d


def plain(x, w, stride):
    p = w.shape[0] // 2
    return lax.conv_general_dilated(
        x, w, (stride, stride), ((p, p), (p, p)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def draw(batch, height, width, channels, features, kernel, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (batch, height, width, channels), dtype)
    w = jax.random.normal(keys[1], (kernel, kernel, channels, features), dtype) / kernel
    return x, w


def value_and_gradients(conv, x, w, stride):
    def loss(x, w):
        return jnp.sum(jnp.sin(conv(x, w, stride).astype(jnp.float32)))

    return conv(x, w, stride), *jax.grad(loss, (0, 1))(x, w)


def assert_equal(conv, x, w, stride, tolerance=2e-5):
    both = jax.jit(lambda x, w: [value_and_gradients(f, x, w, stride) for f in (conv, plain)])
    for ours, theirs in zip(*both(x, w), strict=True):
        assert ours.dtype == theirs.dtype
        ours, theirs = np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * (1 + abs(theirs).max()))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from((1, 3, 4)),
    features=st.sampled_from((2, 16, 33)),
    kernel=st.sampled_from((1, 3, 5)),
    stride=st.integers(1, 3),
)
def test_value_and_gradients_equal_the_plain_form(
    height, width, channels, features, kernel, stride
):
    assert_equal(conv2d, *draw(2, height, width, channels, features, kernel), stride)


@pytest.mark.parametrize("kernel", (1, 3, 5))
@pytest.mark.parametrize("stride", (1, 2))
def test_value_and_gradients_equal_the_plain_form_where_the_phases_fit(kernel, stride):
    assert_equal(conv2d, *draw(2, 8, 4, 3, 8, kernel), stride)


def test_bfloat16():
    x, w = draw(2, 8, 8, 3, 8, 3, jnp.bfloat16)
    assert conv2d(x, w, 2).dtype == jnp.bfloat16
    assert_equal(conv2d, x, w, 2, tolerance=2e-2)


@pytest.mark.parametrize("stride", (1, 2))
def test_second_derivatives_equal_the_plain_form(stride):
    """The gradient of a gradient's norm, with respect to both arguments (LLR, GradAlign)."""
    x, w = draw(2, 4, 4, 2, 8, 3)

    def penalty(conv, x, w):
        g = jax.grad(lambda x: jnp.sum(jnp.sin(conv(x, w, stride))))(x)
        return jnp.sum(g**2)

    @jax.jit
    def both(x, w):
        return [jax.grad(penalty, (1, 2))(conv, x, w) for conv in (conv2d, plain)]

    for ours, theirs in zip(*both(x, w), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * (1 + abs(theirs).max()))


def stablehlo(conv, platform, stride=2):
    """The program of one example's gradients in a loop, under vmap, lowered for `platform`."""
    x, w = draw(4, 8, 8, 3, 8, 3)

    def one(x):
        def ascend(_, x):
            return x + 0.1 * jax.grad(lambda x: jnp.sum(conv(x[None], w, stride) ** 2))(x)

        return lax.fori_loop(0, 3, ascend, x)

    step = jax.jit(jax.vmap(one, axis_name="example"))
    return step.trace(x).lower(lowering_platforms=(platform,)).as_text()


def convolutions(text):
    return sorted(re.findall(r"stablehlo\.convolution\([^)]*\) (.*)", text))


@pytest.mark.parametrize("platform", ("tpu", "cuda"))
def test_other_platforms_get_the_plain_form_only(platform):
    ours, theirs = (convolutions(stablehlo(conv, platform)) for conv in (conv2d, plain))
    assert ours == theirs
    assert len(ours) == 2  # forward, input gradient


def test_the_cpu_gets_its_own_form():
    assert convolutions(stablehlo(conv2d, "cpu")) != convolutions(stablehlo(plain, "cpu"))


@pytest.mark.parametrize("platform", ("cpu", "tpu"))
@pytest.mark.parametrize("stride", (1, 2))
def test_a_vmapped_example_emits_no_grouped_convolution(platform, stride):
    text = stablehlo(conv2d, platform, stride)
    groups = re.findall(r"(?:feature|batch)_group_count = (\d+)", text)
    assert groups and set(groups) == {"1"}


@pytest.mark.parametrize(("groups", "features"), [(1, 4), (2, 6), (4, 4), (4, 8)])
def test_groups_are_convolutions_of_parts_of_the_channels(groups, features):
    x, w = draw(2, 5, 6, 4, features, 3)
    w = w[:, :, : 4 // groups]
    parts = zip(jnp.split(x, groups, -1), jnp.split(w, groups, -1), strict=True)
    theirs = jnp.concatenate([plain(*part, 2) for part in parts], -1)
    np.testing.assert_allclose(grouped_conv2d(x, w, 2, groups), theirs, atol=1e-5)


@pytest.mark.parametrize(("channels", "features"), [(4, 6), (6, 4)])
def test_groups_that_do_not_divide_the_channels_are_refused(channels, features):
    x, w = draw(1, 4, 4, channels, features, 3)
    with pytest.raises(ValueError, match=f"4 groups .* not {channels} in and {features} out"):
        grouped_conv2d(x, w[:, :, :1], 1, 4)


@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(3, 2, (0, 1)), (5, 1, (0, 0)), (3, 1, (1, 0)), (4, 4, (0, 0))]
)
def test_any_padding_equals_the_plain_form(size, stride, padding):
    x, w = draw(2, 8, 12, 3, 4, size)

    def plain(x, w):
        return lax.conv_general_dilated(
            x, w, (stride, stride), (padding, padding), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def ours(x, w):
        return padded_conv2d(x, w, stride, 1, padding)

    def gradients(f):
        return jax.grad(lambda x, w: jnp.sum(jnp.sin(f(x, w))), (0, 1))(x, w)

    np.testing.assert_allclose(ours(x, w), plain(x, w), atol=1e-5)
    for mine, theirs in zip(gradients(ours), gradients(plain), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)
