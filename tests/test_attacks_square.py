"""Square: known optima, counted queries, the published schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks import Square, perturb
from robustjax.attacks._core.iterative import Example
from robustjax.losses import cross_entropy, targeted_margin
from robustjax.threats import L0, L1, L2, Linf
from robustjax.typing import Cost

N, SHAPE = 24, (6, 5, 2)
RNG = np.random.default_rng(0)
IMAGES = np.clip(RNG.uniform(-0.2, 1.2, (N, *SHAPE)), 0, 1).astype(np.float32)
W = {k: RNG.normal(size=(60, k)).astype(np.float32) for k in (2, 3)}


def linear(w, x):
    return (x - 0.5).reshape(len(x), -1) @ w


def gaps(w, x, y):
    z = linear(w, x)
    return (
        np.stack([z[np.arange(N), (y + s) % w.shape[1]] for s in range(1, w.shape[1])], -1)
        - (z[np.arange(N), y][:, None])
    )


@pytest.mark.parametrize("classes", W)
def test_robust_exactly_where_the_closed_form_says_in_linf(classes):
    w, eps = W[classes], 0.06
    y = linear(w, IMAGES).argmax(-1)
    best = np.full(N, -np.inf)
    for s in range(1, classes):
        g = (w[:, (y + s) % classes] - w[:, y]).T.reshape(IMAGES.shape)
        corner = np.clip(IMAGES + eps * np.sign(g), 0, 1)
        best = np.maximum(best, gaps(w, corner, y)[:, s - 1])
    assert 4 < (best > 0).sum() < N - 4
    z = perturb(
        Square(Linf(eps), 3000), jax.tree_util.Partial(linear, w), jax.random.key(0), IMAGES, y
    )
    np.testing.assert_array_equal(gaps(w, z, y).max(-1) > 0, best > 0)


@pytest.mark.parametrize("threat", [L2(0.4), L1(1.5)])
def test_stays_in_the_ball_and_beats_its_start(threat):
    w = W[3]
    y = linear(w, IMAGES).argmax(-1)

    def run(queries):
        attack = Square(threat, queries, success=never)
        z = perturb(attack, jax.tree_util.Partial(linear, w), jax.random.key(0), IMAGES, y)
        return gaps(w, z, y).max(-1)

    clean, start, end = gaps(w, IMAGES, y).max(-1), run(1), run(400)
    assert (start > clean).any() and (end >= start).all()
    assert np.median(end - clean) > 2 * np.median(np.maximum(start - clean, 0))


def never(output, y):
    return jnp.asarray(False)


def states(attack, logits_fn, example, n):
    step = jax.jit(lambda state: attack.step(logits_fn, example, state))
    state = attack.begin(logits_fn, example)
    for _ in range(n):
        state = step(state)
        yield state


def test_queries_are_counted_and_none_follows_success():
    """The example is fooled as soon as one pixel is brighter by eps, which the start may be."""
    calls, x = [], jnp.asarray(np.full(SHAPE, 0.5, np.float32))
    example = Example(jax.random.key(3), x, jnp.int32(0))

    def logits_fn(x):
        calls.append(x)
        return jnp.stack([jnp.asarray(59.5), jnp.sum(x > 0.55).astype(jnp.float32)])

    attack = Square(Linf(0.1), 3000)
    run = []
    for state in states(attack, logits_fn, example, 3000):
        run.append(state)
        if attack.done(state):
            break
    assert 1 < len(run) < 3000 and state.won
    assert attack.spent(state) == Cost(len(run), 0)
    assert len(calls) == 1  # traced once: one call in a step
    assert (attack.result(example, state) > 0.55).all()
    z, again = attack(logits_fn, *example), attack.result(example, state)
    np.testing.assert_array_equal(z, again)
    assert attack.done(attack.begin(logits_fn, example)._replace(queries=jnp.int32(3000)))


def test_the_best_loss_never_falls():
    example = Example(jax.random.key(3), jnp.asarray(IMAGES[0]), jnp.int32(0))
    attack = Square(L2(0.4), loss=cross_entropy, success=never)
    run = list(states(attack, lambda x: x.reshape(-1) @ W[3], example, 50))
    losses = [float(s.value_best) for s in run]
    assert losses == sorted(losses) and losses[0] < losses[-1]
    again = [float(cross_entropy(s.x_best.reshape(-1) @ W[3], 0)) for s in run]
    np.testing.assert_allclose(again, losses, rtol=1e-5)


def test_p_shrinks_as_published():
    """Halved after 10, 50, 200, ... proposals; AutoAttack does not rescale to its 5000 queries."""
    numbers = np.array([0, 10, 11, 50, 51, 200, 201, 501, 1001, 2001, 4001, 6001, 8001])
    halvings = [0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9]
    part = [float(Square(queries=5000)._part(n)) for n in numbers]
    np.testing.assert_allclose(part, 0.8 * 0.5 ** np.array(halvings))
    part = [float(Square(queries=5000, rescale=True)._part(n)) for n in numbers[:-3]]
    np.testing.assert_allclose(part, 0.8 * 0.5 ** np.array([0, 1, 1, 2, 2, 3, 3, 5, 6, 7]))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="not L0"):
        Square(L0(3))
    with pytest.raises(ValueError, match="p must lie in"):
        Square(p=1.5)
    example = Example(jax.random.key(0), IMAGES[0], 0)
    with pytest.raises(ValueError, match="needs a target"):
        Square(loss=targeted_margin).begin(None, example)
