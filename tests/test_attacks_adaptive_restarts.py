"""Adaptive restarts: who gets how many ascents, where they go, and what they do not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_attacks_apgd import IMAGES, THREATS, W, gap, linear, optimum
from test_evaluation_diagnostics import IMAGES as OTHERS
from test_evaluation_diagnostics import THREAT, flags
from test_evaluation_diagnostics import linear as model

from robustjax.attacks import (
    AdaptiveRestarts,
    FastAutoAttack,
    PatientSquare,
    Randomized,
    perturb,
)
from robustjax.attacks._core.effort import effort
from robustjax.attacks._core.iterative import Example
from robustjax.attacks._gradient.adaptive_restarts import CLASS, kind_of
from robustjax.evaluation import diagnostics
from robustjax.threats import L1, Linf

X = jnp.full((2, 2, 1), 0.5)
KEY = jax.random.key(0)


def resisted(gain):
    """Three classes; the margin of 0 is -1 at X, and the ball of 0.1 adds `gain` to it."""

    def logits_fn(x):
        up = gain * jnp.sum(x - X) / 0.4
        return jnp.stack([1.0 - up, jnp.zeros(()), jnp.float32(-9.0)])

    return logits_fn


@jax.jit
def step(attack, gain, target, state):
    """One program for all of these runs: numbers are data."""
    return attack.step(resisted(gain), Example(KEY, X, 0, target), state)


def states(attack, gain, target=None):
    """The states of a run, one a step."""
    state, found = attack.begin(resisted(gain), Example(KEY, X, 0, target)), []
    while not attack.done(state):
        state = step(attack, gain, target, state)
        found.append(state)
    return found


@pytest.mark.parametrize(("gain", "ascents"), [(0.0, 2), (0.5, 3), (0.95, 9)])
def test_an_image_near_the_boundary_has_more_ascents(gain, ascents):
    """Of ten at most: 2 + 8 (1 - h)^4, rounded up."""
    attack = AdaptiveRestarts(Linf(0.1), steps=5, runs=10)
    run = states(attack, gain)
    assert run[-1].runs == ascents and not run[-1].won
    assert attack.spent(run[-1]) == (5 * ascents, 5 * ascents) == (run[-1].looks,) * 2


def test_it_ends_at_the_first_success():
    run = states(AdaptiveRestarts(Linf(0.1), steps=5), 2.0)
    assert run[-1].won and run[-1].looks == 2


def test_every_class_has_its_turn_and_the_nearest_comes_first():
    """Class 1 is nearer than 2, and neither is left out while the other comes again."""
    run = states(AdaptiveRestarts(Linf(0.1), steps=4, runs=6, patience=0), 0.5)
    aims = [int(s.memory.aim) for s in run if s.looks % 4 == 1 and kind_of(s.runs) == CLASS]
    assert aims == [1, 2, 1, 2]
    assert run[-1].memory.counts.tolist() == [0, 2, 2]


def test_a_given_class_is_the_only_aim():
    """Class 1 is within reach and class 2 is not: to be 1 is no success where 2 is asked for."""
    attack = AdaptiveRestarts(Linf(0.1), steps=4, runs=6, patience=0)
    run = states(attack, 2.0, target=jnp.int32(2))
    assert not run[-1].won and run[-1].runs == 6
    assert {int(s.memory.aim) for s in run if s.runs > 0} == {2}
    assert states(attack, 2.0, target=jnp.int32(1))[-1].won


def test_nan_costs_no_more_than_the_least_budget():
    attack = AdaptiveRestarts(Linf(0.1), steps=4, runs=6, success=lambda output, y: False)
    run = states(attack, jnp.nan)
    assert run[-1].runs == 2 and run[-1].broken
    np.testing.assert_array_equal(attack.result(Example(KEY, X, 0), run[-1]), X)


def test_the_effort_is_between_its_bounds():
    clean = jnp.float32([-4, -4, -4, -4, 1, jnp.nan])
    best = jnp.float32([-8, -4, -2, 1, 2, -1])
    assert effort(2, 10, best, clean, 3).tolist() == [2, 2, 3, 10, 10, 2]


@pytest.mark.parametrize("make", [AdaptiveRestarts, PatientSquare])
def test_the_result_does_not_depend_on_the_others(make):
    """The same bits in any order, in tiles of any size, and beside fewer images."""
    w, attack = W[4], make(Linf(0.1))
    y = linear(w, IMAGES).argmax(-1)
    model = jax.tree_util.Partial(linear, w)
    z = perturb(attack, model, KEY, IMAGES, y, batch_size=16)
    rows = np.random.default_rng(0).permutation(len(y))[: len(y) - 5]
    some = perturb(attack, model, KEY, IMAGES[rows], y[rows], indices=rows, batch_size=16)
    np.testing.assert_array_equal(some, z[rows])


def test_robust_exactly_where_the_closed_form_says():
    w, threat = W[4], THREATS["linf"]
    y = linear(w, IMAGES).argmax(-1)
    best, clean = optimum(threat, w, IMAGES, y), gap(w, IMAGES, y)
    z = perturb(AdaptiveRestarts(threat), jax.tree_util.Partial(linear, w), KEY, IMAGES, y)
    decided = np.abs(best) > 1e-3 * (best - clean)
    assert decided.sum() >= len(y) - 2 and 3 < (best > 0).sum() < len(y) - 3
    np.testing.assert_array_equal((gap(w, z, y) > 0)[decided], (best > 0)[decided])


def test_patient_square_gives_up_where_nothing_is_gained():
    attack, example = (
        PatientSquare(Linf(0.1), queries=200, least=20, patience=4),
        Example(KEY, X, 0),
    )

    @jax.jit
    def queries(gain):
        logits_fn = resisted(gain)
        state = attack.begin(logits_fn, example)
        state = jax.lax.while_loop(
            lambda state: ~attack.done(state),
            lambda state: attack.step(logits_fn, example, state),
            state,
        )
        return attack.spent(state).forwards

    assert queries(0.0) == 21 and 21 < queries(0.6) < queries(0.9) < 201


def test_a_lucky_draw_ends_nothing_and_every_draw_costs():
    attack, example = AdaptiveRestarts(Linf(0.1), eot=2), Example(KEY, X + 0.1, 0)
    drawn = Randomized(lambda key, x: resisted(20.0)(x))
    state = jax.jit(lambda state: attack.step(drawn, example, state))(attack.begin(drawn, example))
    assert state.margin_best > 0 and not state.won
    assert attack.spent(state) == (2, 2)


def test_flags_know_masked_gradients_and_draws():
    """As with AutoAttack, the stage without gradients wins where they are masked."""

    def quantised(x):
        return model(jnp.round(x * 64) / 64)

    fast = {"fast": FastAutoAttack(THREAT, runs=2, queries=30)}
    found = flags(quantised, fast, np.asarray(quantised(OTHERS)).argmax(-1))
    assert any("gradient is exactly zero at 100.0%" in flag for flag in found)
    assert any("fast: PatientSquare, which sees no gradient, broke" in flag for flag in found)
    assert isinstance(AdaptiveRestarts(), diagnostics.Draws)
    assert not isinstance(PatientSquare(), diagnostics.Draws)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="not L1"):
        AdaptiveRestarts(L1(3.0))
    with pytest.raises(ValueError, match="a target is an integer"):
        AdaptiveRestarts()(resisted(0.0), KEY, X, 0, jnp.zeros(3))
