"""The memetic attack: its pool, its children, and how many ascents an image has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from test_attacks_adaptive_restarts import KEY, resisted
from test_attacks_adaptive_restarts import X as GREY

from robustjax import evaluation
from robustjax.attacks import AdaptiveRestarts, Memetic, Randomized
from robustjax.attacks._core.iterative import Example
from robustjax.threats import L1, Linf

EPS, X = 0.125, jnp.full((3, 4, 1), 0.5)
SHORT = Memetic(Linf(EPS), ascents=24, steps=5, population=8, patience=0)


def resisting(gain, x):
    return resisted(gain)(x)


def resists(gain):
    """The model that `resisted` makes, with its gain as data."""
    return Partial(resisting, jnp.float32(gain))


def rugged(x):
    """A ReLU network with 2^12 local maxima, one of which has a positive margin.

    Away from the middle every pixel gains 1 upwards and half of that downwards, and 11.75 is asked.
    """
    d = (x - X) / EPS
    gain = jnp.sum(jax.nn.relu(d) + 0.5 * jax.nn.relu(-d)) - 11.75
    return jnp.stack([-gain, jnp.zeros(())])


def states(attack, logits_fn, x, key=KEY, target=None):
    """The states of a run, one an ascent."""
    example = Example(key, x, 0, target)
    state, found = begin(attack, logits_fn, example), []
    while not attack.done(state):
        state = ascent(attack, logits_fn, example, state)
        found.append(state)
    return found


@jax.jit
def begin(attack, logits_fn, example):
    return attack.begin(logits_fn, example)


@jax.jit
def ascent(attack, logits_fn, example, state):
    """One program for all runs of a model: numbers are data."""
    step = lambda _, s: attack.step(logits_fn, example, s)  # noqa: E731
    return jax.lax.fori_loop(0, attack.steps, step, state)


def test_children_reach_what_no_single_ascent_does():
    """All twelve pixels must go up, as one random start in 4,096 does; 160 ascents each."""
    model = Partial(lambda images: jax.vmap(rugged)(images))
    images, y = np.asarray(jnp.stack([X] * 8)), np.zeros(8, int)
    attacks = {
        "memetic": Memetic(Linf(EPS), ascents=160, steps=5, patience=0),
        "restarts": AdaptiveRestarts(Linf(EPS), steps=5, runs=160, patience=0),
    }
    found = evaluation.evaluate(model, images, y, attacks, KEY, diagnose=False)
    assert found.robust["memetic"] <= 0.25 and found.robust["restarts"] >= 0.75


def test_no_member_of_the_pool_gets_worse():
    run = states(SHORT, Partial(rugged), X)
    margins = np.stack([s.memory.margins for s in run])
    assert (margins[1:] >= margins[:-1]).all()
    assert np.isfinite(margins[7]).all() and not np.isfinite(margins[6]).all()
    assert (margins[-1] > margins[7]).any()


@pytest.mark.parametrize(("gain", "ascents"), [(0.0, 3), (0.5, 5), (0.95, 10)])
def test_an_image_near_the_boundary_has_more_ascents(gain, ascents):
    """Of ten at most: 3 + 7 (1 - h)^2, rounded up."""
    attack = Memetic(Linf(0.1), ascents=10, steps=5, population=3)
    run = states(attack, resists(gain), GREY)
    assert len(run) == ascents and not run[-1].won
    assert attack.spent(run[-1]) == (5 * ascents, 5 * ascents)


def test_it_ends_at_the_first_success():
    attack = Memetic(Linf(0.1), ascents=10, steps=2, population=3)
    run = states(attack, resists(2.0), GREY)
    assert run[-1].won and run[-1].looks == 2


def test_nan_costs_no_more_than_the_first_pool():
    attack = Memetic(Linf(0.1), ascents=6, steps=4, population=2, success=lambda output, y: False)
    run = states(attack, resists(jnp.nan), GREY)
    assert len(run) == 2 and run[-1].broken
    np.testing.assert_array_equal(attack.result(Example(KEY, GREY, 0), run[-1]), GREY)


def test_a_lucky_draw_ends_nothing_and_every_draw_costs():
    attack, example = Memetic(Linf(0.1), eot=2), Example(KEY, GREY + 0.1, 0)
    drawn = Randomized(lambda key, x: resisted(20.0)(x))
    state = jax.jit(lambda s: attack.step(drawn, example, s))(attack.begin(drawn, example))
    assert state.margin_best > 0 and not state.won
    assert attack.spent(state) == (2, 2)


def test_a_given_class_is_the_only_success():
    """Class 1 is within reach and class 2 is not."""
    attack = Memetic(Linf(0.1), ascents=3, steps=5, population=2)
    assert not states(attack, resists(2.0), GREY, target=jnp.int32(2))[-1].won
    assert states(attack, resists(2.0), GREY, target=jnp.int32(1))[-1].won


def test_other_norms_are_refused():
    with pytest.raises(ValueError, match="not L1"):
        Memetic(L1(3.0))
