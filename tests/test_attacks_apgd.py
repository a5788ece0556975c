"""APGD: closed-form optima, phases, costs, randomised models, and what it refuses."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks import (
    APGD,
    MultiTargeted,
    Randomized,
    perturb,
)
from robustjax.attacks._core.iterative import Example
from robustjax.attacks.targets import Random, Ranked
from robustjax.losses import dlr, kl, margin, targeted_dlr
from robustjax.threats import L0, L1, L2, Linf
from robustjax.typing import Cost

N, SIZE = 32, 12
RNG = np.random.default_rng(0)
IMAGES = np.clip(RNG.uniform(-0.2, 1.2, (N, 2, 3, 2)), 0, 1).astype(np.float32)
W = {k: RNG.normal(size=(SIZE, k)).astype(np.float32) for k in (2, 4)}
THREATS = {"linf": Linf(0.07), "l2": L2(0.2), "l1": L1(0.4)}
EXAMPLE = Example(jax.random.key(0), jnp.asarray(IMAGES[0]), jnp.int32(0))


def linear(w, x):
    return (x - 0.5).reshape(len(x), -1) @ w


def gap(w, x, y):
    """How far the best wrong class is ahead."""
    z = (np.asarray(x, np.float64) - 0.5).reshape(len(x), -1) @ w
    ours = z[np.arange(len(z)), y]
    z[np.arange(len(z)), y] = -np.inf
    return z.max(-1) - ours


def optimum(threat, w, x, y):
    """The largest gap in the ball and the box: over vertices in Linf and L1, by bisection in L2."""
    best = np.full(len(x), -np.inf)
    for i, t in itertools.product(range(len(x)), range(w.shape[1])):
        if t == y[i]:
            continue
        g, flat = (w[:, t] - w[:, y[i]]).astype(np.float64), x[i].ravel().astype(np.float64)
        room, size = np.where(g > 0, 1 - flat, flat), np.abs(g)
        if isinstance(threat, Linf):
            d = np.minimum(room, threat.eps)
        elif isinstance(threat, L1):
            order = np.argsort(-size)
            before = np.cumsum(room[order]) - room[order]
            d = np.zeros(SIZE)
            d[order] = np.clip(threat.eps - before, 0, room[order])
        else:
            low, high = 0.0, 1e3
            for _ in range(60):
                s = (low + high) / 2
                inside = np.linalg.norm(np.minimum(s * size, room)) <= threat.eps
                low, high = (s, high) if inside else (low, s)
            d = np.minimum(low * size, room)
        best[i] = max(best[i], (flat - 0.5) @ g + d @ size)
    return best


@pytest.mark.parametrize(("norm", "classes"), [("linf", 4), ("l2", 2), ("l1", 2)])
def test_robust_exactly_where_the_closed_form_says(norm, classes):
    """Towards every class, the box included; up to points within 0.1 % of the boundary."""
    w, threat = W[classes], THREATS[norm]
    y = linear(w, IMAGES).argmax(-1)
    best, clean = optimum(threat, w, IMAGES, y), gap(w, IMAGES, y)
    attack = MultiTargeted(APGD(threat, loss=targeted_dlr, larger_radii=norm == "l1"))
    z = perturb(attack, jax.tree_util.Partial(linear, w), jax.random.key(1), IMAGES, y)
    reached = gap(w, z, y)
    decided = np.abs(best) > 1e-3 * (best - clean)
    assert decided.sum() >= N - 2 and 3 < (best > 0).sum() < N - 3
    np.testing.assert_array_equal((reached > 0)[decided], (best > 0)[decided])
    assert (reached <= best + 1e-5).all()


def test_dlr_of_two_classes_ends_at_the_closed_form():
    w, threat = W[2], THREATS["linf"]
    y = linear(w, IMAGES).argmax(-1)
    best = optimum(threat, w, IMAGES, y)
    attack = APGD(threat, steps=20, loss=dlr)
    z = perturb(attack, jax.tree_util.Partial(linear, w), jax.random.key(1), IMAGES, y)
    np.testing.assert_array_equal(gap(w, z, y) > 0, best > 0)
    np.testing.assert_allclose(gap(w, z, y)[best < 0], best[best < 0], atol=1e-4)


def states(attack, logits_fn, example, n):
    """The first n states after `begin`."""
    step = jax.jit(lambda example, state: attack.step(logits_fn, example, state))
    state = jax.jit(lambda example: attack.begin(logits_fn, example))(example)
    for _ in range(n):
        state = step(example, state)
        yield state


def never(output, y):
    return jnp.asarray(False)


def test_cost_is_what_the_model_was_asked():
    calls = []

    def counted(x):
        calls.append(x)
        return x.reshape(-1) @ W[4]

    attack = APGD(Linf(0.1), steps=3, target=Ranked(), success=never)
    *_, last = states(attack, counted, EXAMPLE, 4)
    assert attack.done(last) and len(calls) == 2  # traced once in `begin` and once in a step
    assert attack.spent(last) == Cost(1 + 4, 4)
    *_, last = states(APGD(Linf(0.1), steps=3, eot=7, success=never), counted, EXAMPLE, 2)
    assert last.cost == Cost(2, 2)  # no randomness, no draws


def test_larger_radii_shrink_to_eps_and_only_eps_counts():
    """10 steps: 3 at 3 eps, 3 at 2 eps, 4 at eps, and a look at each phase's start."""
    threat, x = L1(0.3), EXAMPLE.x
    attack = APGD(threat, steps=10, larger_radii=True, loss=margin, success=lambda o, y: o[0] < 1e9)

    def logits_fn(x):
        return x.reshape(-1) @ W[4]

    run = list(states(attack, logits_fn, EXAMPLE, 13))
    far = np.array([threat.distance(s.x_adv, x) for s in run[:-1]])
    for phase, radius in ((far[:3], 0.9), (far[3:7], 0.6), (far[7:], 0.3)):
        assert phase.max() <= radius + 1e-6
    assert far[:3].max() > 0.3 and far[7:].max() > 0.29
    assert [bool(s.won) for s in run] == [False] * 8 + [True] * 5
    assert not any(attack.done(s) for s in run[:8])
    for s in run:
        assert threat.distance(attack.result(EXAMPLE, s), x) <= 0.3 + 1e-6
    unsuccessful = APGD(threat, steps=10, larger_radii=True, success=never)
    run = list(states(unsuccessful, logits_fn, EXAMPLE, 13))
    assert [bool(unsuccessful.done(s)) for s in run] == [False] * 12 + [True]


def test_a_randomised_model_is_asked_eot_times_a_step_to_the_end():
    """Every draw is fooled from the start, and that ends nothing."""

    def first(key, x):
        return jnp.stack([x.sum() * 0 - 9, jax.random.normal(key, ())])

    attack = APGD(Linf(0.1), steps=9, eot=5)
    run = list(states(attack, Randomized(first), EXAMPLE, 10))
    assert [bool(attack.done(s)) for s in run] == [False] * 9 + [True]
    assert attack.spent(run[-1]) == Cost(50, 50)


def test_a_loss_of_few_bits_is_kept_in_those_of_the_image():
    """The loop of one example's call carries what it began with."""
    attack = APGD(Linf(0.1), steps=3, loss=lambda output, y: -output[y])
    z = attack(lambda x: (x.reshape(-1) @ W[4]).astype(jnp.bfloat16), *EXAMPLE[:3])
    assert z.dtype == jnp.float32 and np.abs(z - EXAMPLE.x).max() <= 0.1 + 1e-6


def test_late_gain_is_the_part_of_the_last_quarter():
    attack = APGD(Linf(0.3), steps=20, loss=margin, success=never)
    w = jnp.asarray(W[2])
    run = list(states(attack, lambda x: x.reshape(-1) @ w, EXAMPLE, 21))
    assert attack.late_gain(run[-1]) == 0  # a linear loss has reached its plateau
    assert run[0].loss_late < run[15].loss_late == run[15].loss_best  # after 15 of 20 steps
    late = run[-1]._replace(loss_best=2 * run[-1].loss_late - run[-1].loss_first)
    assert attack.late_gain(late) == pytest.approx(0.5)
    assert attack.late_gain(run[0]) == 0


def test_steps_may_be_traced():
    def run(steps, eps):
        return APGD(L2(eps), steps=steps)(
            lambda x: (x - 0.5).reshape(-1) @ W[4], EXAMPLE.key, EXAMPLE.x, EXAMPLE.y
        )

    traced = jax.jit(run)
    for steps in (1, 5, 30):
        np.testing.assert_allclose(traced(steps, 0.2), run(steps, 0.2), atol=1e-5)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="in L0 use PGD"):
        APGD(L0(3))
    with pytest.raises(ValueError, match="target must be a Target"):
        APGD(target="wrong")
    with pytest.raises(ValueError, match="APGD chooses its target once"):
        APGD(target=Random(redraw=True))
    for loss in (kl, targeted_dlr):
        with pytest.raises(ValueError, match="needs a target"):
            APGD(loss=loss).begin(lambda x: x.reshape(-1) @ W[4], EXAMPLE)
    with pytest.raises(ValueError, match="steps must lie in"):
        APGD(steps=-1)
