"""Convolutions are found and replaced wherever they stand in a program."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from robustjax.convolutions import is_slow_in_a_loop, with_fast_convolutions
from robustjax.convolutions.programs import convolves, rewritten

KERNEL = jax.random.normal(jax.random.key(0), (3, 3, 2, 2)) / 4
KEY = jax.random.key(5)
IMAGES = jax.random.normal(jax.random.key(1), (2, 6, 6, 2))


def conv(x, w):
    return lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def in_a_scan(x, w):
    return lax.scan(lambda x, _: (jnp.tanh(conv(x, w)), x.sum()), x, None, length=3)


def in_a_loop(x, w):
    return lax.while_loop(lambda x: jnp.sum(x) < 1e-6, lambda x: conv(x, w) + 1, x)


def in_branches(x, w):
    return lax.cond(x.sum() > 0, lambda x: conv(x, w), lambda x: 2 * conv(x, w), x)


def with_remat(x, w):
    return jax.checkpoint(lambda x: jnp.sin(conv(jnp.sin(conv(x, w)), w)))(x)


def with_random_numbers(x, w):
    """Keys come with a NamedTuple in the parameters of a call."""
    key = jax.random.clone(KEY)
    return jax.jit(lambda key, x: conv(x, w) + jax.random.normal(key, x.shape))(key, x)


def in_a_call(x, w):
    return {"outer": jax.jit(lambda x: jax.jit(conv)(x, w) + 1)(x)}


PLACES = [conv, in_a_scan, in_a_loop, in_branches, with_remat, with_random_numbers, in_a_call]


@pytest.mark.parametrize("function", PLACES)
def test_the_same_function_without_plain_convolutions(function):
    fast = with_fast_convolutions(function)
    assert is_slow_in_a_loop(function, IMAGES, KERNEL)
    assert not is_slow_in_a_loop(fast, IMAGES, KERNEL)
    ours, theirs = jax.jit(fast)(IMAGES, KERNEL), function(IMAGES, KERNEL)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, theirs)


@pytest.mark.parametrize("function", [f for f in PLACES if f is not in_a_loop])
def test_gradients_of_single_images(function):
    def gradients(function):
        def loss(x):
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(function(x, KERNEL)))

        return jax.jit(jax.vmap(jax.grad(lambda x: loss(x[None]))))(IMAGES)

    np.testing.assert_allclose(
        gradients(with_fast_convolutions(function)), gradients(function), atol=1e-5
    )


def test_custom_derivatives_stay():
    """A gradient of one's own is not that of the convolution inside."""

    @jax.custom_vjp
    def own(x, w):
        return conv(x, w)

    own.defvjp(lambda x, w: (own(x, w), w), lambda w, g: (7 * g, w))
    fast = with_fast_convolutions(own)
    np.testing.assert_array_equal(jax.grad(lambda x: fast(x, KERNEL).sum())(IMAGES), 7.0)


def test_the_rule_is_told_the_settings():
    seen = []

    def rule(plain, settings, x, w):
        seen.append(settings["window_strides"])
        return 2 * plain(x, w)

    np.testing.assert_allclose(
        rewritten(conv, rule)(IMAGES, KERNEL), 2 * conv(IMAGES, KERNEL), rtol=1e-6
    )
    assert seen == [(1, 1)]


def test_keys_structures_and_programs_without_convolutions():
    def noisy(tree, key):
        return {"sum": tree["a"] + jax.random.normal(key, (2,)), "none": None}

    tree, key = {"a": jnp.ones(2), "b": ()}, jax.random.key(3)
    theirs = noisy(tree, jax.random.clone(key))
    ours = with_fast_convolutions(noisy)(tree, key)
    np.testing.assert_array_equal(ours["sum"], theirs["sum"])
    assert ours["none"] is None
    assert not convolves(jax.make_jaxpr(noisy)(tree, jax.random.clone(key)).jaxpr)


def test_flags_and_keywords_are_constants():
    def network(weights, x, train, *, act):
        y = jnp.tanh(conv(x, weights["kernel"]))
        return y if train else act(y) + weights["bias"]

    weights = {"kernel": KERNEL, "bias": 1.0}
    for train, images in ((False, IMAGES), (True, np.asarray(IMAGES))):
        about = weights, images, train
        ours = with_fast_convolutions(network)(*about, act=jax.nn.relu)
        np.testing.assert_allclose(ours, network(*about, act=jax.nn.relu), atol=1e-6)


def test_mapped_axes_are_known_inside():
    def centered(x):
        y = conv(x[None], KERNEL)[0]
        return y - lax.pmean(y, "example")

    ours = jax.vmap(with_fast_convolutions(centered), axis_name="example")(IMAGES)
    theirs = jax.vmap(centered, axis_name="example")(IMAGES)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True)(nn.Conv(4, (4, 4), 2)(x))
        return nn.Dense(3)(nn.ConvTranspose(4, (3, 3), (2, 2))(x).mean((1, 2)))


def linen():
    variables = Linen().init(jax.random.key(0), IMAGES)
    return lambda x: Linen().apply(variables, x)


def of_nnx():
    net = nnx.Conv(2, 4, (3, 3), strides=2, rngs=nnx.Rngs(0))
    return lambda x: net(x).mean((1, 2))


def of_equinox():
    net = eqx.nn.Conv2d(2, 4, 3, stride=2, key=jax.random.key(0))
    return lambda x: jax.vmap(net)(jnp.moveaxis(x, -1, 1)).mean((2, 3))


@pytest.mark.parametrize("made", [linen, of_nnx, of_equinox])
def test_networks_of_other_libraries(made):
    net = made()
    fast = with_fast_convolutions(net)
    assert is_slow_in_a_loop(net, IMAGES) and not is_slow_in_a_loop(fast, IMAGES)

    def attacked(net):
        gradient = jax.grad(lambda x: jnp.sum(net(x) ** 2))
        return jax.jit(lambda x: lax.fori_loop(0, 3, lambda _, x: x + 0.01 * gradient(x), x))

    np.testing.assert_allclose(attacked(fast)(IMAGES), attacked(net)(IMAGES), atol=1e-5)
