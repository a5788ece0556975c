"""TRADES: its limits, its commits, what it moves away from and by which consistency."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import flat_net, loss_of, net_and_batch, on_one_device

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.attacks.starts import Gaussian
from robustjax.threats import L2
from robustjax.training import PGDAT, TRADES, Natural
from robustjax.training.methods.base import Crafted


def test_trades_without_beta_is_natural_training():
    np.testing.assert_allclose(
        loss_of(TRADES(beta=0.0))[0], loss_of(Natural(), shift=0.0)[0], rtol=1e-6
    )


def test_trades_on_clean_images_is_cross_entropy():
    np.testing.assert_allclose(
        loss_of(TRADES(), shift=0.0)[0], loss_of(Natural(), shift=0.0)[0], rtol=1e-5
    )


@pytest.mark.parametrize("commits", ["both", "adversarial"])
def test_trades_commits_clean_then_adversarial_or_the_latter_alone(commits):
    state, net, batch = net_and_batch(TRADES())
    x_adv = jnp.clip(batch.image + 0.1, 0, 1)

    def by_hand():
        _, stats = net.train(state.params, batch.image)
        return net.train(state.params, x_adv, stats if commits == "both" else net.stats)[1]

    def loss(method):
        crafted = Crafted(x_adv, net.stats)
        return on_one_device(lambda: method.loss(net, state.params, batch, crafted))

    value, aux = loss(TRADES(commits=commits))
    for a, b in zip(*map(jax.tree.leaves, (on_one_device(by_hand), aux.stats)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert value == loss(TRADES())[0]


def test_leaving_a_one_hot_target_is_the_attack_of_adversarial_training():
    params, net, batch = flat_net(TRADES())
    attack = PGD(L2(0.3), steps=2, start=Gaussian())

    def perturb(method):
        keys = jax.random.split(jax.random.key(0), len(batch.label))
        return on_one_device(lambda: method.perturb(net, params, batch, keys)).x_adv

    label = perturb(PGDAT(attack))
    np.testing.assert_allclose(perturb(TRADES(attack=attack, away_from="target")), label, atol=1e-5)
    assert np.abs(perturb(TRADES(attack=attack)) - label).max() > 1e-2


@pytest.mark.parametrize(
    ("field", "value"), [("bn", "frozen"), ("commits", "clean"), ("away_from", "label")]
)
def test_trades_options_are_checked(field, value):
    with pytest.raises(ValueError, match=f"{field} must be one of .*, got '{value}'"):
        TRADES(**{field: value})


def test_a_consistency_compares_two_outputs():
    with pytest.raises(ValueError, match="squared_error or a function of your own; brier"):
        TRADES(consistency=losses.brier)
    assert TRADES(consistency=losses.squared_error).consistency is losses.squared_error
