"""GradAlign: the angle between two gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import crafted, flat_net, on_one_device

from robustjax.attacks import PGD
from robustjax.attacks.starts import Zero
from robustjax.threats import Linf
from robustjax.training import PGDAT, GradAlign
from robustjax.training.methods.grad_align import misalignment


def test_grad_align_on_a_constant_gradient_is_fgsm_training():
    """Two gradients of a saturated softmax agree, so nothing is added to the cross-entropy."""
    given = params, net, batch = flat_net(GradAlign(), scale=200.0)
    method = GradAlign(PGD(Linf(1e-3), steps=1, start=Zero()), "running", weight=10.0)
    found = crafted(method, given)

    def loss(method):
        return on_one_device(lambda: method.loss(net, params, batch, found))

    value, aux = loss(method)
    assert float(value) == pytest.approx(float(loss(PGDAT())[0]), rel=1e-3)
    assert abs(float(aux.metrics["misalignment"])) < 1e-3


def test_grad_align_is_the_mean_angle_over_images_with_a_gradient():
    params, net, batch = flat_net(GradAlign())
    batch = batch.replace(target=batch.target.at[:5].set(0.0))  # these have no loss at all
    method = GradAlign(PGD(Linf(0.5), steps=1, start=Zero()), "running")
    found = crafted(method, (params, net, batch))

    def gradients(x):
        p = jax.nn.softmax(net.logits(params, x))
        residual = np.asarray(p * batch.target.sum(-1, keepdims=True) - batch.target, np.float64)
        return residual @ np.asarray(params["kernel"], np.float64).T

    g, h = gradients(batch.image)[5:], gradients(found.extra)[5:]
    cos = (g * h).sum(-1) / np.linalg.norm(g, axis=-1) / np.linalg.norm(h, axis=-1)
    assert cos.min() < 0.99

    def loss(weight):
        method = GradAlign(weight=weight)
        return float(on_one_device(lambda: method.loss(net, params, batch, found)[0]))

    assert loss(2.0) - loss(0.0) == pytest.approx(2 * (1 - cos).mean(), rel=1e-3)


def test_grad_align_turns_the_gradient_near_the_image_towards_that_at_it():
    """And not the other way: the one at the image carries no gradient."""
    params, net, batch = flat_net(GradAlign())
    found = crafted(
        GradAlign(PGD(Linf(0.5), steps=1, start=Zero()), "running"), (params, net, batch)
    )

    def term(method):
        return on_one_device(lambda: method.grads(net, params, batch, found).grads["kernel"])

    def misaligned(p, fixed):
        def gradients(p, x):
            residual = jax.nn.softmax(net.logits(p, x)) - batch.target
            return residual @ p["kernel"].T

        g, h = gradients(fixed, batch.image), gradients(p, found.extra)
        lengths = jnp.linalg.norm(g, axis=-1) * jnp.linalg.norm(h, axis=-1)
        return (1 - (g * h).sum(-1) / lengths).mean()

    want = jax.grad(misaligned)(params, params)["kernel"]
    got = jax.jit(lambda: term(GradAlign(weight=1.0)) - term(GradAlign(weight=0.0)))()
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert np.abs(want).max() > 1e-3


def test_no_gradient_is_no_angle_and_no_nan():
    zero, one = jnp.zeros((2, 2, 1)), jnp.ones((2, 2, 1))
    for pair in ((zero, one), (one, zero), (zero, zero)):
        assert misalignment(*pair) == (0, False)
        assert jnp.isfinite(jax.grad(lambda h, g=pair[0]: misalignment(g, h)[0])(pair[1])).all()
