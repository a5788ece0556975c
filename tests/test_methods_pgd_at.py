"""PGD-AT: the focal loss, its refusals, the guard, and the methods that it is by its attack."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import crafted, cross_entropies, flat_net, keys, linear

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.attacks.stops import Misclassified, Stationary
from robustjax.threats import Linf
from robustjax.training import METHODS, PGDAT, Natural


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_the_focal_loss_weighs_by_the_probability_of_the_example_s_own_label(gamma):
    loss, _, moved, label = linear(PGDAT(focal=gamma))
    ce = cross_entropies(moved, label)
    assert loss == pytest.approx(((1 - np.exp(-ce)) ** gamma * ce).mean(), rel=1e-5)


@pytest.mark.parametrize("commits", [("clean",), ("adversarial",) * 2, ("clean", "clean")])
def test_a_list_of_commits_has_the_adversarial_forward_once(commits):
    with pytest.raises(ValueError, match="commits must name the adversarial forward once"):
        PGDAT(commits=commits)


@pytest.mark.parametrize("loss", [losses.kl, losses.squared_error, losses.targeted_dlr])
def test_pgd_at_refuses_a_loss_without_the_label(loss):
    with pytest.raises(ValueError, match=f"the loss {loss.__name__} needs a target"):
        PGDAT(PGD(loss=loss))


BALL = Linf(0.05)


def test_fast_at_is_one_step_of_five_quarters_eps_from_a_random_point():
    fast = METHODS["fast-at"]
    given = params, net, batch = flat_net(fast)
    method = dataclasses.replace(fast, attack=dataclasses.replace(fast.attack, threat=BALL))
    starts = jax.vmap(lambda key, x: BALL.sample(jax.random.split(key)[0], x))(keys(), batch.image)

    def ce(x):
        log = jax.nn.log_softmax(net.logits(params, x))
        return -jnp.take_along_axis(log, batch.label[:, None], 1).sum()

    moved = starts + 1.25 * BALL.eps * jnp.sign(jax.grad(ce)(starts))
    want = jax.vmap(BALL.project)(moved, batch.image)
    np.testing.assert_allclose(crafted(method, given).x_adv, want, atol=1e-6)


def test_the_guard_stops_after_a_fall_in_one_epoch():
    guarded = METHODS["fast-at"]
    assert guarded.guard == 0.2
    assert guarded.control([])[1] == guarded.control([0.4])[1] == "continue"
    assert guarded.control([0.4, 0.25, 0.1])[1] == "continue"
    assert guarded.control([0.4, 0.1]) == (guarded, "stop")
    assert PGDAT().control([1.0, 0.0])[1] == Natural().control([1.0, 0.0])[1] == "continue"


@pytest.mark.parametrize(
    ("name", "times", "taus"),
    [
        ("fat", (50 / 120, 51 / 120, 90 / 120, 91 / 120), (0, 1, 1, 2)),
        ("fat-trades", (30 / 85, 31 / 85, 51 / 85, 71 / 85), (0, 1, 2, 3)),
        ("fat-mart", (20 / 90, 21 / 90, 61 / 90, 81 / 90), (0, 1, 3, 4)),
    ],
)
def test_friendly_training_follows_its_paper_s_epochs(name, times, taus):
    attack = METHODS[name].attack
    assert [attack.at(jnp.float32(t)).stop.tau for t in times] == list(taus)


def test_crafting_takes_the_stop_rule_of_its_time():
    """Early in training friendly images are hardly wrong, late they are PGD's; so is dynamic AT's
    threshold there.
    """
    params, net, batch = flat_net(PGDAT())
    attack = PGD(BALL, steps=6)

    def at(progress, stop):
        method = PGDAT(dataclasses.replace(attack, stop=stop))
        given = params, net.replace(progress=jnp.float32(progress)), batch
        return np.asarray(crafted(method, given).x_adv)

    plain = crafted(PGDAT(attack), (params, net, batch)).x_adv
    friendly = Misclassified(0, (0.5,) * 6)
    assert (at(0.4, friendly) != plain).any()
    np.testing.assert_array_equal(at(0.6, friendly), plain)
    dynamic = Stationary(1e3, 0.5)
    assert (at(0.4, dynamic) != plain).any()
    np.testing.assert_allclose(at(0.6, dynamic), plain, atol=1e-6)
