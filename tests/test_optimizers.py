"""Optimisers against their definitions, written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import models
from robustjax.training import Optimizer
from robustjax.training.optimizers import kernels

PARAMS = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5])}
GRADS = {"kernel": jnp.array([[0.3, 0.1]]), "bias": jnp.array([-0.2])}


def run(optimizer, steps=3, rate=0.1):
    tx, params = optimizer.transform(), PARAMS
    state = tx.init(params)
    for _ in range(steps):
        direction, state = tx.update(GRADS, state, params)
        params = jax.tree.map(lambda w, d: w - rate * d, params, direction)
    return params


def sgd(w, g, steps=3, rate=0.1, momentum=0.9, wd=0.01, nesterov=False, decoupled=False):
    buffer = 0.0
    for _ in range(steps):
        h = g if decoupled else g + wd * w
        buffer = momentum * buffer + h
        d = h + momentum * buffer if nesterov else buffer
        w = w - rate * (d + (wd * w if decoupled else 0))
    return w


@pytest.mark.parametrize("name", ["sgd", "nesterov"])
@pytest.mark.parametrize("decoupled", [False, True])
def test_sgd(name, decoupled):
    got = run(Optimizer(name, weight_decay=0.01, decoupled=decoupled))
    for k in PARAMS:
        want = sgd(
            np.array(PARAMS[k]),
            np.array(GRADS[k]),
            nesterov=name == "nesterov",
            decoupled=decoupled,
        )
        np.testing.assert_allclose(got[k], want, rtol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam(name):
    got = run(Optimizer(name, weight_decay=0.01))
    for k in PARAMS:
        w, g = np.array(PARAMS[k], np.float64), np.array(GRADS[k], np.float64)
        m = v = 0.0
        for t in range(1, 4):
            h = g + 0.01 * w if name == "adam" else g
            m, v = 0.9 * m + 0.1 * h, 0.999 * v + 0.001 * h**2
            d = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            w = w - 0.1 * (d + (0.01 * w if name == "adamw" else 0))
        np.testing.assert_allclose(got[k], w, rtol=1e-5)


def test_the_kernel_mask_spares_biases():
    masked, plain = (
        run(Optimizer(decay="kernels", weight_decay=1.0)),
        run(Optimizer(weight_decay=0.0)),
    )
    np.testing.assert_array_equal(masked["bias"], plain["bias"])
    assert (masked["kernel"] != plain["kernel"]).all()


def test_the_convolution_mask_spares_dense_kernels_too():
    params = {"conv": jnp.ones((1, 1, 1, 1)), "dense": jnp.ones((1, 1)), "bias": jnp.ones(1)}
    tx = Optimizer(decay="convolutions", weight_decay=2e-4).transform()
    decay, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    assert {name: float(d.sum()) for name, d in decay.items()} == {
        "conv": pytest.approx(2e-4),  # Keras's l2(1e-4): 1e-4 w^2 in the loss
        "dense": 0.0,
        "bias": 0.0,
    }


@pytest.mark.parametrize(
    "options",
    [{"name": "vit-ti-4"}, {"name": "cnn", "head": "gsce", "feature_dim": 3}],
)
def test_what_is_no_kernel_does_not_count_as_one_whatever_its_shape(options):
    """A transformer's tokens and positions; a family's centers and precisions."""
    model = models.create(**options, num_classes=3)
    params = jax.eval_shape(
        lambda key: models.init(model, key, (8, 8, 1))["params"], jax.random.key(0)
    )
    leaves, chosen = jax.tree.leaves(params), jax.tree.leaves_with_path(kernels(params))
    named = {jax.tree_util.keystr(path[-1:]) for path, yes in chosen if yes}
    assert named == {"['kernel']"}
    assert any(w.ndim > 1 for w, (_, yes) in zip(leaves, chosen, strict=True) if not yes)


def test_clipping_bounds_the_first_step():
    got = run(Optimizer(weight_decay=0.0, clip=0.01), steps=1, rate=1.0)
    moved = np.sqrt(sum(float(jnp.sum((got[k] - PARAMS[k]) ** 2)) for k in PARAMS))
    np.testing.assert_allclose(moved, 0.01, rtol=1e-5)


def test_unknown_optimizers_are_refused():
    with pytest.raises(ValueError, match="name must be one of sgd, nesterov"):
        Optimizer("lion")
    with pytest.raises(ValueError, match="decay must be one of all, kernels, conv"):
        Optimizer(decay="biases")
    with pytest.raises(ValueError, match="momentum"):
        Optimizer(momentum=2.0)


@pytest.mark.parametrize("decoupled", [False, True])
def test_centralised_gradients_have_no_mean_in_any_output_channel(decoupled):
    """Momentum off, the direction is the gradient: coupled decay is centralised with it."""
    rng = np.random.default_rng(0)
    conv, dense = rng.normal(size=(3, 3, 2, 4)), rng.normal(size=(5, 4))
    params = {"conv": {"kernel": conv}, "dense": {"kernel": dense, "bias": 1.0}}
    params = jax.tree.map(jnp.float32, params)
    grads = jax.tree.map(lambda w: w**2, params)
    for which, centred in (("kernels", (4, 2)), ("convolutions", (4,))):
        optimizer = Optimizer(momentum=0, weight_decay=0.1, decoupled=decoupled, centralise=which)
        tx = optimizer.transform()
        got, _ = tx.update(grads, tx.init(params), params)
        for w, g, d in zip(*map(jax.tree.leaves, (params, grads, got)), strict=True):
            w, want = np.float64(w), np.float64(g)
            want = want if decoupled else want + 0.1 * w
            if want.ndim in centred:
                want -= want.reshape(-1, want.shape[-1]).mean(0)
            np.testing.assert_allclose(d, want + decoupled * 0.1 * w, atol=1e-5)


def test_an_unknown_centralisation_is_refused():
    with pytest.raises(ValueError, match="centralise must be one of none, kernels"):
        Optimizer(centralise="conv")
