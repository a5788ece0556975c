"""Feature scattering: the transport plan, the step along its gradient, the smoothed label."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import flat_net, keys, on_one_device

from robustjax.threats import Linf
from robustjax.training import FeatureScattering
from robustjax.training.methods.base import Crafted
from robustjax.training.methods.feature_scattering import scattering, sinkhorn

BALL = Linf(0.05)


@pytest.fixture(scope="module")
def cost():
    a, b = jax.random.normal(jax.random.key(0), (2, 8, 3))
    return scattering(a, b)


def test_the_plan_has_uniform_marginals(cost):
    plan = sinkhorn(cost, 0.1, 200)
    np.testing.assert_allclose(plan.sum(0), 1 / 8, rtol=1e-5)
    np.testing.assert_allclose(plan.sum(1), 1 / 8, rtol=1e-3)
    assert (plan > 0).all()


def test_permuting_the_batch_permutes_the_plan(cost):
    order = np.random.default_rng(0).permutation(8)
    plan = sinkhorn(cost, 0.1, 100)
    np.testing.assert_allclose(sinkhorn(cost[order], 0.1, 100), plan[order], rtol=1e-4)
    np.testing.assert_allclose(sinkhorn(cost[:, order], 0.1, 100), plan[:, order], rtol=1e-4)


def test_a_cold_plan_is_the_cheapest_assignment():
    a = jax.random.normal(jax.random.key(0), (6, 4))
    order = np.random.default_rng(0).permutation(6)
    plan = sinkhorn(scattering(a, a[order]), 0.01, 100)
    np.testing.assert_allclose(plan, np.eye(6)[:, order] / 6, atol=1e-4)


def test_scattering_moves_outputs_further_than_chance_and_reads_no_label():
    params, net, batch = flat_net(FeatureScattering())
    method = FeatureScattering(BALL)

    def found(batch):
        return on_one_device(lambda: method.perturb(net, params, batch, keys())).x_adv

    x_adv = found(batch)
    np.testing.assert_array_equal(x_adv, found(batch.replace(label=(batch.label + 1) % 4)))
    start = jax.vmap(BALL.sample)(keys(), batch.image)

    def far(images):
        clean, moved = (net.logits(params, x) for x in (batch.image, images))
        transport = scattering(clean, moved)
        return float((sinkhorn(transport, 0.01, 100) * transport).sum())

    assert far(x_adv) > 3 * far(start)


def test_scattering_is_one_step_along_the_gradient_of_the_transport_plan_included():
    params, net, batch = flat_net(FeatureScattering())
    method = FeatureScattering(BALL, regularisation=0.5, iterations=20)
    start = jax.vmap(BALL.sample)(keys(), batch.image)

    def distance(images):
        cost = scattering(*(net.logits(params, x) for x in (batch.image, images)))
        return (sinkhorn(cost, 0.5, 20) * cost).sum()

    @jax.jit
    def both():
        found = on_one_device(lambda: method.perturb(net, params, batch, keys())).x_adv
        moved = start + BALL.eps * jnp.sign(jax.grad(distance)(start))
        return found, jax.vmap(BALL.project)(moved, batch.image)

    found, want = both()
    assert np.mean(np.abs(found - want) < 1e-6) > 0.999


def test_half_the_label_is_smoothed_away_whatever_the_recipe_says():
    params, net, batch = flat_net(FeatureScattering())
    found = Crafted(batch.image, net.stats)
    loss, _ = on_one_device(lambda: FeatureScattering().loss(net, params, batch, found))
    target = np.where(np.asarray(batch.target) == 1, 0.5, 0.5 / 3)
    want = -(target * np.asarray(jax.nn.log_softmax(net.logits(params, batch.image)))).sum(-1)
    assert float(loss) == pytest.approx(want.mean(), rel=1e-5)
