"""Batch normalisation by mode, activations, and the convolution module."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.models.nets.layers import ACTIVATIONS, BN, AdaptiveNorm, BatchNorm, Conv, activation

X = 3.0 + 2.0 * np.random.default_rng(0).standard_normal((8, 3, 3, 2)).astype(np.float32)
Y = np.sign(np.random.default_rng(1).standard_normal((8, 3, 3, 2))).astype(np.float32)
VARIABLES = {
    "params": {"scale": jnp.array([1.0, 0.5]), "bias": jnp.array([0.0, 0.2])},
    "batch_stats": {"mean": jnp.array([0.1, 0.2]), "var": jnp.array([1.5, 0.5])},
}
MEAN, VAR = X.mean((0, 1, 2)), X.var((0, 1, 2))
RUNNING = np.array([0.1, 0.2]), np.array([1.5, 0.5])


def normalise(x, mean, var):
    scale, bias = (np.asarray(VARIABLES["params"][name]) for name in ("scale", "bias"))
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def run(mode, axes=(), x=X, dtype=jnp.float32):
    y, new = BatchNorm(dtype).apply(VARIABLES, x, BN(mode, axes), mutable=["batch_stats"])
    return y, new["batch_stats"]


def test_init_leaves_the_statistics_at_zero_and_one():
    for mode in ("running", "commit", "capture"):
        stats = BatchNorm().init(jax.random.key(0), X, BN(mode))["batch_stats"]
        np.testing.assert_array_equal(stats["mean"], 0)
        np.testing.assert_array_equal(stats["var"], 1)


def test_running_normalises_with_the_running_statistics():
    np.testing.assert_allclose(run("running")[0], normalise(X, *RUNNING), rtol=2e-5)


@pytest.mark.parametrize("mode", ("batch", "commit", "capture"))
def test_other_modes_normalise_with_the_batch(mode):
    np.testing.assert_allclose(run(mode)[0], normalise(X, MEAN, VAR), atol=2e-5)


@pytest.mark.parametrize("mode", ("running", "batch"))
def test_running_and_batch_leave_the_statistics_bit_identical(mode):
    for name, value in run(mode)[1].items():
        np.testing.assert_array_equal(value, VARIABLES["batch_stats"][name])
    BatchNorm().apply(VARIABLES, X, BN(mode))  # and need no mutable collection


def test_commit_moves_the_statistics_a_tenth_of_the_way():
    stats = run("commit")[1]
    np.testing.assert_allclose(stats["mean"], 0.9 * np.array([0.1, 0.2]) + 0.1 * MEAN, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 * np.array([1.5, 0.5]) + 0.1 * VAR, rtol=1e-5)


def test_capture_returns_the_batchs_own_statistics_and_they_freeze_it():
    y, stats = run("capture")
    np.testing.assert_allclose(stats["mean"], MEAN, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], VAR, rtol=1e-5)
    again = BatchNorm().apply(VARIABLES | {"batch_stats": stats}, X, BN("running"))
    np.testing.assert_array_equal(again, y)


def test_gradients_flow_through_captured_statistics():
    def two_passes(x):
        stats = run("capture", x=x)[1]
        y = BatchNorm().apply(VARIABLES | {"batch_stats": stats}, x, BN("running"))
        return jnp.sum(Y * y**2)

    def one_pass(x):
        return jnp.sum(Y * run("batch", x=x)[0] ** 2)

    x = jnp.asarray(X)
    np.testing.assert_allclose(jax.grad(two_passes)(x), jax.grad(one_pass)(x), atol=1e-5)


def per_example_gradients(axes):
    def gradient(x, y):
        return jax.grad(lambda x: jnp.sum(y * run("batch", axes, x[None])[0][0] ** 2))(x)

    return jax.vmap(gradient, axis_name="example")(jnp.asarray(X), jnp.asarray(Y))


def test_with_the_axis_named_the_gradient_is_that_of_the_summed_loss():
    batch = jax.grad(lambda x: jnp.sum(Y * run("batch", x=x)[0] ** 2))(jnp.asarray(X))
    scale = float(jnp.abs(batch).max())
    np.testing.assert_allclose(per_example_gradients(("example",)), batch, atol=1e-5 * scale)
    wrong = jnp.mean(jnp.sign(per_example_gradients(())) != jnp.sign(batch))
    assert wrong > 0.1  # what naming the axis is for


def test_statistics_over_two_axes_are_those_of_the_whole_batch():
    def one(x):
        return run("capture", ("example", "batch"), x[None])[1]

    inner = jax.vmap(one, axis_name="example")
    stats = jax.vmap(inner, axis_name="batch")(jnp.asarray(X).reshape(2, 4, 3, 3, 2))
    for name, whole in (("mean", MEAN), ("var", VAR)):
        np.testing.assert_allclose(stats[name], np.broadcast_to(whole, (2, 4, 2)), rtol=1e-5)


def test_statistics_are_float32_in_a_bfloat16_network():
    x = 100 + jnp.asarray(X, jnp.bfloat16)  # bfloat16 sums of these would be off by several units
    y, stats = run("capture", x=x, dtype=jnp.bfloat16)
    assert y.dtype == jnp.bfloat16 and stats["mean"].dtype == jnp.float32
    exact = np.asarray(x, np.float32).mean((0, 1, 2))
    np.testing.assert_allclose(stats["mean"], exact, rtol=1e-5)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="unknown BN mode 'train'"):
        run("train")


def test_conv_adds_its_bias():
    conv = Conv(4, 3, 2, use_bias=True)
    params = conv.init(jax.random.key(0), X)["params"]
    assert {name: p.shape for name, p in params.items()} == {
        "kernel": (3, 3, 2, 4),
        "bias": (4,),
    }
    zero = conv.apply({"params": params}, X)
    moved = conv.apply({"params": params | {"bias": jnp.arange(4.0)}}, X)
    np.testing.assert_allclose(moved - zero, np.broadcast_to(np.arange(4.0), zero.shape), atol=1e-5)


# at -2, -0.5, 0.5 and 2, from the formulas
VALUES = {
    "relu": (0.0, 0.0, 0.5, 2.0),
    "softplus": (0.126928, 0.474077, 0.974077, 2.126928),
    "softplus:10": (0.0, 0.000672, 0.500672, 2.0),
    "gelu": (-0.045500, -0.154269, 0.345731, 1.954500),
    "elu": (-0.864665, -0.393469, 0.5, 2.0),
    "leaky_relu": (-0.2, -0.05, 0.5, 2.0),
    "selu": (-1.520167, -0.691758, 0.525350, 2.101402),
    "celu": (-0.973349, -0.408912, 0.5, 2.0),
    "tanh": (-0.964028, -0.462117, 0.462117, 0.964028),
    "silu": (-0.238406, -0.188770, 0.311230, 1.761594),
}


@pytest.mark.parametrize("name", VALUES)
def test_activations_have_their_standard_values(name):
    x = jnp.array([-2.0, -0.5, 0.5, 2.0])
    np.testing.assert_allclose(activation(name)(x), VALUES[name], atol=2e-6)


def test_every_activation_has_a_row_here():
    assert set(ACTIVATIONS) == {name for name in VALUES if ":" not in name}


@pytest.mark.parametrize("name", ("swish", "softplus:0", "softplus:x", "softplus:nan", ""))
def test_unknown_activations_are_refused(name):
    with pytest.raises(ValueError, match="softplus"):
        activation(name)


@pytest.fixture(scope="module")
def adaptive():
    """Variables of an AdaptiveNorm around the batch normalisation of this file."""
    new = AdaptiveNorm().init(jax.random.key(0), X, BN())
    return {name: new[name] | {"norm": VARIABLES[name]} for name in VARIABLES}


@pytest.mark.parametrize("mode", ("running", "commit"))
def test_a_new_adaptive_norm_is_the_plain_one(adaptive, mode):
    y, new = AdaptiveNorm().apply(adaptive, X, BN(mode), mutable=["batch_stats"])
    want, stats = run(mode)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(new["batch_stats"]["norm"]["mean"], stats["mean"])


def test_an_adaptive_norm_scales_and_shifts_by_the_example_s_own_mean(adaptive):
    params, ones = adaptive["params"], jnp.ones(2)
    last = {"kernel": jnp.zeros((1, 1, 8, 4)).at[..., 0, :].set(1.0), "bias": jnp.arange(4.0)}
    hidden = {"kernel": jnp.ones((1, 1, 2, 8)), "bias": jnp.zeros(8)}
    variables = adaptive | {"params": params | {"hidden": hidden, "last": last}}
    found = AdaptiveNorm().apply(variables, X, BN())
    seen = np.maximum(X.mean((1, 2)) @ ones, 0).reshape(-1, 1, 1, 1)
    want = np.asarray(run("running")[0]) * (1 + seen + [0.0, 1.0]) + seen + [2.0, 3.0]
    np.testing.assert_allclose(found, want, rtol=1e-5)
