"""Adversarial logit pairing and the mixture against their formulas."""

import jax.numpy as jnp
import pytest
from tiny import cross_entropies, flat_net, linear, on_one_device

from robustjax.training import ALP, PGDAT, Natural
from robustjax.training.methods.base import Crafted


def test_alp_is_its_formula():
    loss, clean, moved, label = linear(ALP(clean=0.3, weight=0.7))
    ces = 0.3 * cross_entropies(clean, label) + 0.7 * cross_entropies(moved, label)
    assert loss == pytest.approx(ces.mean() + 0.7 * ((clean - moved) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize(("clean", "same"), [(1.0, Natural()), (0.0, PGDAT())])
def test_a_mixture_of_one_is_natural_or_adversarial_training(clean, same):
    params, net, batch = flat_net(same)
    x_adv = jnp.clip(batch.image + 0.1, 0, 1)

    def loss(method, x):
        return on_one_device(lambda: method.loss(net, params, batch, Crafted(x, {}))[0])

    alone = loss(same, batch.image if clean else x_adv)
    assert float(loss(ALP(clean=clean, weight=0.0), x_adv)) == pytest.approx(float(alone), rel=1e-6)
