"""HopSkipJump on linear classifiers that say a class and nothing else; distances are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import counting

from robustjax.attacks import HopSkipJump, perturb
from robustjax.attacks._core.iterative import Example
from robustjax.attacks._core.success import fooled
from robustjax.attacks._engine.craft import craft
from robustjax.attacks._engine.examples import check_examples
from robustjax.attacks._engine.ledger import Ledger
from robustjax.attacks._engine.model import check_model
from robustjax.attacks._engine.setting import Setting
from robustjax.threats import L1, L2, Linf

N, SHAPE, K = 24, (6, 6, 1), 3
RNG = np.random.default_rng(0)
X = RNG.uniform(0.3, 0.7, (N, *SHAPE)).astype(np.float32)
W = RNG.normal(size=(36, K)).astype(np.float32)
BIAS = -(X.reshape(N, -1) @ W).mean(0)
KEY = jax.random.key(1)
TRACES = []


def decide(w, x):
    """The hard label: no score to read, no gradient to follow."""
    TRACES.append(x.shape)
    return jax.nn.one_hot(jnp.argmax(x.reshape(len(x), -1) @ w + jnp.asarray(BIAS)[None], -1), K)


MODEL = jax.tree_util.Partial(decide, W)
Z = X.reshape(N, -1) @ W + BIAS
Y = Z.argmax(-1)
THREATS = {"l2": L2(float("inf")), "linf": Linf(float("inf"))}
DUAL = {"l2": 2, "linf": 1}


def exact(norm):
    """The distance to the nearest of the K - 1 other classes."""
    rows, others = np.arange(N), (Y[None] + np.arange(1, K)[:, None]) % K
    slopes = np.linalg.norm(W[:, Y][:, None] - W[:, others], DUAL[norm], axis=0)
    return ((Z[rows, Y] - Z[rows, others]) / slopes).min(0)


@functools.cache
def run(norm, queries, batch_size=N):
    attack = HopSkipJump(THREATS[norm], queries=queries)
    return perturb(attack, MODEL, KEY, X, Y, batch_size=batch_size)


def distances(norm, images):
    flat = (images - X).reshape(N, -1).astype(np.float64)
    return np.linalg.norm(flat, {"l2": 2, "linf": np.inf}[norm], axis=1)


@pytest.mark.parametrize("norm", THREATS)
def test_more_queries_come_closer_to_the_closed_form(norm):
    """Median over the closed form; of three classes some walks end at the second nearest."""
    last = np.inf
    for queries, factor in ((100, 7.0), (300, 1.8), (1000, 1.2), (3000, 1.04)):
        images = run(norm, queries)
        far = distances(norm, images)
        assert (np.asarray(decide(W, images)).argmax(-1) != Y).all()
        assert (far >= exact(norm) * (1 - 1e-5)).all()
        assert (far <= last).all(), "more queries led further away"
        assert np.median(far / exact(norm)) < factor
        last = far


@pytest.mark.parametrize("norm", THREATS)
def test_budgets_compile_once(norm):
    run(norm, 100)
    before = len(TRACES)
    perturb(HopSkipJump(THREATS[norm], queries=50, samples=10, gamma=2.0), MODEL, KEY, X, Y)
    assert len(TRACES) == before


def test_same_bits_for_any_order_and_batch_size():
    attack, order = HopSkipJump(queries=300), np.random.default_rng(1).permutation(N)
    shuffled = perturb(attack, MODEL, KEY, X[order], Y[order], indices=order)
    np.testing.assert_array_equal(shuffled, run("l2", 300)[order])
    np.testing.assert_array_equal(run("l2", 300, batch_size=8), run("l2", 300))


def one(x):
    return decide(W, x[None])[0]


run_counted = counting(one)


@pytest.mark.parametrize("norm", THREATS)
def test_queries_are_counted_and_stay_in_the_box(norm):
    """The best of all that was asked comes back, whatever phase the budget ends in."""
    threat = THREATS[norm]
    for queries in (1, 2, 17, 200, 431):
        attack = HopSkipJump(threat, queries=queries)
        image, state, asked = run_counted(attack, KEY, X[0], Y[0])
        cost = attack.spent(state)
        assert (int(cost.forwards), cost.backwards) == (len(asked), 0) == (queries, 0)
        assert asked.min() >= 0 and asked.max() <= 1
        won = np.asarray(decide(W, asked)).argmax(-1) != Y[0]
        far = np.asarray(jax.vmap(threat.distance, (0, None))(asked, X[0]))
        if won.any():
            np.testing.assert_array_equal(image, asked[won][far[won].argmin()])
            assert float(state.distance) == far[won].min()
        else:
            np.testing.assert_array_equal(image, X[0])
            assert np.isinf(state.distance)


def test_phases_take_the_papers_numbers_of_queries():
    """B_t = 100 sqrt(t) queries around x_t; 1.5 log2(36) = 7.8 halvings of the way there."""
    _, _, asked = run_counted(HopSkipJump(queries=900), KEY, X[0], Y[0])
    won = np.asarray(decide(W, asked)).argmax(-1) != Y[0]
    first = 1 + int(won[1:].argmax())  # the first adversarial image; then 8 halvings
    estimate = asked[first + 9 : first + 109]
    np.testing.assert_array_less(
        np.linalg.norm((estimate - estimate.mean(0)).reshape(100, -1), axis=1), 0.15
    )
    jump = asked[first + 109]
    assert np.linalg.norm(jump - estimate.mean(0)) > 0.2


def test_a_misclassified_image_is_its_own_and_costs_one_query():
    y = (Y + 1) % K
    images = perturb(HopSkipJump(), MODEL, KEY, X, y)
    np.testing.assert_array_equal(images, X)
    _, state, asked = run_counted(HopSkipJump(), KEY, X[0], y[0])
    assert len(asked) == 1 and float(state.distance) == 0


def test_a_constant_model_is_given_up():
    """No random image succeeds: the clean image, after 1 + 100 queries, and no endless loop."""
    attack = HopSkipJump()
    run_constant = counting(lambda x: jnp.array([1.0, 0.0]))
    image, state, asked = run_constant(attack, KEY, X[0], np.int32(0))
    np.testing.assert_array_equal(image, X[0])
    assert len(asked) == int(attack.spent(state).forwards) == 101 and bool(attack.done(state))


def test_a_jump_that_never_succeeds_is_given_up():
    """One adversarial image alone: every jump fails, and the budget still ends the search."""
    corner = counting(lambda x: jnp.stack([jnp.asarray(0.5), jnp.all(x == 0).astype(x.dtype)]))
    attack = HopSkipJump(queries=2000)
    image, state, asked = corner(attack, KEY, np.full((1, 1, 1), 0.25, np.float32), np.int32(0))
    np.testing.assert_array_equal(image, 0)
    assert len(asked) == 2000 and int(state.turn) > 5


def towards_two(output, y):
    return jnp.argmax(output) == 2


def test_a_targeted_success():
    images = perturb(HopSkipJump(queries=1000, success=towards_two), MODEL, KEY, X, Y)
    assert (np.asarray(decide(W, images)).argmax(-1) == 2).all()
    np.testing.assert_array_equal(images[Y == 2], X[Y == 2])


def test_what_lies_within_eps_counts():
    """The search is the same for every radius; the threat's eps only judges what it found."""
    radius, examples = float(np.median(exact("l2"))), check_examples(X, Y)
    setting = Setting(check_model(MODEL, examples), KEY, fooled, N, Ledger())
    verdict = craft(HopSkipJump(L2(radius), queries=1000), setting, examples)
    np.testing.assert_array_equal(verdict.image, run("l2", 1000))
    within = distances("l2", verdict.image) <= radius
    np.testing.assert_array_equal(verdict.stage >= 0, within)
    assert 0.2 <= within.mean() <= 0.5


def test_normals_are_estimated_in_large_images():
    """gamma / d of a short way is below a float32's resolution of pixels near 1."""
    attack, shape = HopSkipJump(), (224, 224, 3)
    state = attack.begin(lambda x: jnp.array([1.0, 0.0]), Example(KEY, jnp.ones(shape), 0))
    state = state._replace(turn=jnp.int32(2), high=jnp.float32(0.01))
    delta = float(attack._delta(state)) / np.prod(shape) ** 0.5
    assert abs(np.float32(1 - delta) - (1 - delta)) < 0.05 * delta


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HopSkipJump(L1(1.0)), "supports L2 and Linf"),
        (lambda: HopSkipJump(queries=0), "queries must lie in"),
        (lambda: HopSkipJump(samples=0), "samples must lie in"),
        (lambda: HopSkipJump(gamma=-1.0), "gamma must lie in"),
    ],
)
def test_bad_fields_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
