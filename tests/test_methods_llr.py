"""Local linearity regularisation against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from tiny import (
    CLASSES,
    SIZE,
    Smooth,
    crafted,
    cross_entropies,
    divergences,
    flat_net,
    linear,
    net_and_batch,
    on_one_device,
)

from robustjax.attacks import PGD
from robustjax.models.layers import BN
from robustjax.threats import Linf
from robustjax.training import LLR, TRADES
from robustjax.training.methods.base import Crafted
from robustjax.training.methods.llr import gap, tangent


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


def test_llr_s_gap_is_that_of_one_network_where_there_is_dropout():
    """At the image itself it is 0, and not the distance between a network with and without it."""
    state, net, batch = net_and_batch(LLR())
    keys = jax.random.split(jax.random.key(0), SIZE)
    net = net.replace(module=net.module.clone(dropout=0.5), draws=keys)
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
