"""Local linearity regularisation against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from tiny import (
    CLASSES,
    SIZE,
    Noted,
    Smooth,
    crafted,
    cross_entropies,
    divergences,
    flat_net,
    keys,
    linear,
    net_and_batch,
    on_one_device,
)

from robustjax.attacks import PGD
from robustjax.models.nets.layers import BN
from robustjax.threats import Linf
from robustjax.training import LLR, TRADES, card
from robustjax.training.methods.base import Crafted
from robustjax.training.methods.llr import gap, still_gap, tangent


@pytest.mark.parametrize("scale", [0.1, 100.0])
def test_llr_s_gap_on_linear_logits_is_the_kl(scale):
    """g(d) = KL(p(x) || p(x + d)) exactly; it vanishes where the softmax is saturated: l linear."""
    params, net, batch = flat_net(LLR(), scale)
    x_adv = batch.image + 1e-3 * jnp.sin(1e3 * batch.image)
    (plane, _), z = on_one_device(lambda: tangent(net, params, batch)), net.logits(params, x_adv)
    clean = np.asarray(net.logits(params, batch.image), np.float64)
    found = jax.vmap(gap)((z, x_adv), plane)
    np.testing.assert_allclose(found, divergences(clean, np.asarray(z, np.float64)), atol=1e-3)
    if scale > 1:
        assert np.median(found) < 1e-3
        assert np.abs(np.asarray(plane[3])).max() > 1.0


def test_llr_is_its_formula():
    method = LLR(natural=1.5, weight=3.0, slope=0.25)
    loss, clean, moved, label = linear(method)
    p, hot = softmax(clean, -1), np.eye(CLASSES)[label]
    slope = np.abs(((moved - clean) * (p - hot)).sum(-1))
    want = 1.5 * cross_entropies(clean, label) + 3 * (divergences(clean, moved) + 0.25 * slope)
    assert loss == pytest.approx(want.mean(), rel=1e-4)


def test_the_released_attack_takes_the_plane_s_share_of_the_gradient_away():
    """On linear logits by hand: s (grad l(x + d) - grad l(x)), and without it s grad l(x + d)."""
    params, net, batch = flat_net(LLR())
    x_adv = batch.image + 0.05 * jnp.sin(1e3 * batch.image)
    plane, _ = on_one_device(lambda: tangent(net, params, batch))
    kernel, hot = np.asarray(params["kernel"], np.float64), np.asarray(batch.target)

    def slope(images):
        return (softmax(np.asarray(net.logits(params, images)), -1) - hot) @ kernel.T

    def gradient(loss):
        def total(x):
            return jax.vmap(loss)((net.logits(params, x), x), plane).sum()

        return np.asarray(jax.grad(total)(x_adv)).reshape(SIZE, -1)

    # The cross-entropy of linear logits is convex: it lies above its tangent planes, and s = 1.
    want = slope(x_adv)
    np.testing.assert_allclose(gradient(still_gap), want, atol=1e-5)
    np.testing.assert_allclose(gradient(gap), want - slope(batch.image), atol=1e-5)


def test_the_authors_card_crafts_with_the_plane_still():
    assert LLR().plane_moves and not card("llr", "repo").method.plane_moves
    for method, loss in ((LLR(), gap), (card("llr", "repo").method, still_gap)):
        params, net, batch = flat_net(method)
        watched = Noted(net.stats, net.progress, net.module)
        on_one_device(lambda m=method, n=watched, p=params, b=batch: m.perturb(n, p, b, keys()))
        ((attack, _),) = watched.asked
        assert attack.loss is loss


def test_llr_s_gap_is_that_of_one_network_where_there_is_dropout():
    """At the image itself it is 0, and not the distance between a network with and without it."""
    state, net, batch = net_and_batch(LLR())
    draws = jax.random.split(jax.random.key(0), SIZE)
    net = net.replace(module=net.module.clone(dropout=0.5), draws=draws)
    given = Crafted(batch.image, net.stats)
    _, aux = on_one_device(lambda: LLR().loss(net, state.params, batch, given))
    assert float(aux.metrics["gap"]) < 1e-5


def test_llr_climbs_what_the_clean_batch_s_statistics_say():
    """Running ones play no part, and images go where the loss is less linear than at random."""
    _, net, batch = net_and_batch(TRADES())
    variables = Smooth().init(jax.random.key(1), batch.image, BN())
    params = {"params": variables.pop("params")}["params"]
    method = LLR(attack=PGD(Linf(0.1), steps=2))

    @jax.jit
    def perturbed(stats):
        given = net.replace(module=Smooth(), stats=stats)
        return crafted(method, (params, given, batch)).x_adv

    other = jax.tree.map(lambda a: 3 * a + 1, variables)
    np.testing.assert_array_equal(perturbed(variables), perturbed(other))


def test_llr_sees_the_neighbourhood_by_the_clean_batch_s_statistics():
    """At the image itself there is no gap, although BatchNorm normalises by the batch there."""
    state, net, batch = net_and_batch(LLR())
    crafted = Crafted(batch.image, net.stats)
    _, aux = on_one_device(lambda: LLR().loss(net, state.params, batch, crafted))
    assert aux.metrics["gap"] < 1e-5
    assert aux.metrics["accuracy"] == aux.metrics["robust_accuracy"]
