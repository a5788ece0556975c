"""APGD's rules against the paper: checkpoints, when a step is halved, momentum, sparsity."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks._gradient.apgd_steps import APGDLook, Halving, Sparse
from robustjax.threats import L1, L2, Linf

X = jnp.full((2, 3, 1), 0.5)
BEST = X.at[0, 0, 0].add(0.07)


def run(losses, rule, threat, gradient):
    """The rule on given losses, from `X`; the size of each step, and the points."""
    step, best = jax.jit(functools.partial(rule.__call__)), -np.inf
    memory, z, steps = rule.init(X, X, threat, len(losses) - 1), X, len(losses) - 1
    sizes, points = [], [X]
    for number, loss in enumerate(losses):
        best = max(best, loss)
        look = APGDLook(jnp.int32(number), z, gradient, loss, BEST, -gradient, best)
        z, memory = step(memory, look, X, threat, steps)
        sizes.append(float(memory.size))
        points.append(z)
    return np.array(sizes), points


def halvings(losses, eps=0.125, **fields):
    sizes, _ = run(np.float32(losses), Halving(**fields), Linf(eps), jnp.ones_like(X))
    assert sizes[0] == 2 * eps
    ratio = sizes[1:] / sizes[:-1]
    assert set(ratio) <= {1.0, 0.5}
    return list(np.flatnonzero(ratio == 0.5) + 1)


def test_a_loss_that_never_rises_halves_at_the_papers_checkpoints():
    """N p_j with p = 0, 0.22, then distances shorter by 0.03 down to 0.06 (Croce & Hein 2020)."""
    assert halvings(-np.arange(101)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert halvings(-np.arange(51)) == [11, 21, 30, 38, 45]


def test_a_loss_that_always_rises_is_left_alone():
    assert halvings(np.arange(101)) == []


@pytest.mark.parametrize(("rises", "expected"), [(16, [22]), (17, [])])
def test_a_step_is_halved_where_at_most_three_quarters_rise(rises, expected):
    """The first step's rise counts too; 0.75 * 22 = 16.5."""
    up = np.r_[np.ones(rises), -0.01 * np.ones(22 - rises)]
    assert halvings(np.r_[0, np.cumsum(up)[:22], 1e3 + np.arange(78)])[:1] == expected


def test_a_best_loss_that_stays_halves_every_second_time():
    """From the second checkpoint on; not right after a halving by the same reason."""
    losses = np.r_[0, 1e3, np.arange(1, 100)]  # rises all the time, far below the best
    assert halvings(losses) == [41, 70, 87, 99]


def test_a_halved_step_starts_from_the_best_point_and_its_gradient():
    eps, losses = 0.2, -np.arange(101, dtype=np.float32)
    sizes, points = run(losses, Halving(alpha=1.0), L2(eps), jnp.ones_like(X))
    z = BEST - sizes[22] * jnp.ones_like(X) / np.sqrt(X.size)
    np.testing.assert_allclose(points[23], L2(eps).project(z, X), atol=1e-6)


def test_momentum_mixes_the_step_with_the_last_move():
    """x_2 = x_1 + 0.75 (z - x_1) + 0.25 (x_1 - x_0), inside the ball; the first step is plain."""
    rule, threat, gradient = Halving(), L2(0.1), jnp.zeros_like(X).at[1, 1, 0].set(3.0)
    memory = rule.init(X, X, threat, 100)._replace(size=jnp.float32(0.02))
    points = [X]
    for number in range(3):
        look = APGDLook(jnp.int32(number), points[-1], gradient, float(number), X, gradient, 0.0)
        z, memory = rule(memory, look, X, threat, 100)
        points.append(z)
    moves = np.diff([float(z[1, 1, 0]) for z in points])
    np.testing.assert_allclose(moves, [0.02, 0.75 * 0.02 + 0.25 * 0.02, 0.02], atol=1e-6)
    assert all((z == X).sum() >= 5 for z in points)


def test_sparse_steps_move_the_largest_components():
    rule, threat = Sparse(guided=False), L1(0.4)
    gradient = jnp.arange(1.0, 7).reshape(2, 3, 1) * jnp.asarray([1, -1, 1]).reshape(1, 3, 1)
    support = rule.init(X, X, threat, 100)._replace(moves=jnp.int32(2))
    look = APGDLook(jnp.int32(0), X, gradient, 0.0, X, gradient, 0.0)
    z, _ = rule(support, look, X, threat, 100)
    np.testing.assert_allclose((z - X)[..., 0], [[0, 0, 0], [0, -0.2, 0.2]], atol=1e-6)
    full = X.at[1, 2, 0].set(1.0)  # the largest cannot go on, and keeps its share
    z, _ = rule(support, look._replace(x_adv=full), full, threat, 100)
    np.testing.assert_allclose((z - full)[..., 0], [[0, 0, 0], [0, -0.2, 0]], atol=1e-6)


def test_sparsity_follows_the_best_point():
    """Fewer changed components restart the step; as many divide it by 1.5, down to eps / 10."""
    rule, threat = Sparse(guided=True), L1(0.3)
    start = jnp.clip(X + 0.01, 0, 1)
    support, sizes = rule.init(start, X, threat, 25), []
    assert support.changed == 6 and support.moves == 4
    for number in range(9):
        look = APGDLook(
            jnp.int32(number), start, jnp.ones_like(X), 0.0, BEST, jnp.ones_like(X), 0.0
        )
        z, support = rule(support, look, X, threat, 25)
        sizes.append(float(support.size) / 0.3)
        if number == 1:  # back at the best point, which had changed one component
            np.testing.assert_allclose(z - BEST, threat.project(BEST + 0.05, X) - BEST, atol=1e-6)
    assert support.changed == 1
    expected = [1, 1, *(1.5 ** -np.arange(1.0, 6)), 0.1, 0.1]
    np.testing.assert_allclose(sizes, expected, rtol=1e-5)
