"""The ascent loop against hand-written loops; starts, rules."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from robustjax.attacks import (
    BIM,
    FGSM,
    ILCM,
    MIFGSM,
    NIFGSM,
    PGD,
    RFGSM,
)
from robustjax.attacks.starts import (
    Corner,
    Gaussian,
    OutputDiversified,
    UnclippedUniform,
    Uniform,
    Zero,
)
from robustjax.attacks.steps import Adam, Nesterov
from robustjax.attacks.targets import Goal, Prediction, Random, TrueLabel
from robustjax.losses import cross_entropy, kl, multi_target
from robustjax.threats import L0, L2, Linf

SHAPE, K = (3, 3, 1), 4
RNG = np.random.default_rng(0)
X = RNG.uniform(0.2, 0.8, SHAPE).astype(np.float32)
W = RNG.normal(size=(9, K)).astype(np.float32)
Y = 2


def logits(x):
    return jnp.tanh(x.reshape(-1) @ W)


def run(attack, y=Y, seed=0, **extra):
    return np.asarray(jax.jit(lambda key: attack(logits, key, X, y, **extra))(jax.random.key(seed)))


def gradient(x, y=Y):
    return np.asarray(jax.grad(lambda x: cross_entropy(logits(x), y))(jnp.asarray(x)))


def clip(z, eps):
    return np.clip(np.clip(z, X - eps, X + eps), 0, 1)


def test_fgsm_is_one_sign_step():
    expected = clip(X + 0.1 * np.sign(gradient(X)), 0.1)
    np.testing.assert_allclose(run(FGSM(Linf(0.1))), expected, atol=1e-6)


def test_bim_repeats_sign_steps_of_eps_over_steps():
    z = X
    for _ in range(4):
        z = clip(z + 0.025 * np.sign(gradient(z)), 0.1)
    np.testing.assert_allclose(run(BIM(Linf(0.1), 4)), z, atol=1e-6)


def test_mi_fgsm_divides_by_the_l1_norm_before_it_accumulates():
    z, g = X, 0
    for _ in range(5):
        step = gradient(z)
        g = 0.7 * g + step / np.abs(step).sum()
        z = clip(z + 0.02 * np.sign(g), 0.1)
    np.testing.assert_allclose(run(MIFGSM(Linf(0.1), 5, decay=0.7)), z, atol=1e-6)


def test_ni_fgsm_takes_the_gradient_where_the_momentum_leads():
    """In Linf with the gradients in units of their mean size, as in the authors' code."""
    z, g = X, 0
    for _ in range(5):
        step = gradient(z + 0.7 * 0.02 * g)
        g = 0.7 * g + step / np.abs(step).mean()
        z = clip(z + 0.02 * np.sign(g), 0.1)
    attack = NIFGSM(Linf(0.1), 5, decay=0.7)
    np.testing.assert_allclose(run(attack), z, atol=1e-6)
    assert np.abs(run(MIFGSM(Linf(0.1), 5, decay=0.7)) - z).max() > 0.01


def test_ni_fgsm_looks_one_step_ahead_in_l2():
    """Of a gradient whose components are all of one size it is ahead by decay x step size."""
    flat = np.ones(SHAPE, np.float32) / 9
    ahead = Nesterov(0.7).probe(flat, jnp.asarray(X), L2(0.5), 0.2)
    np.testing.assert_allclose(ahead - X, 0.7 * 0.2 * np.ones(SHAPE) / 3, atol=1e-6)


def test_ilcm_descends_towards_the_least_likely_class():
    target = int(logits(X).argmin())
    z = X
    for _ in range(3):
        z = clip(z - (0.1 / 3) * np.sign(gradient(z, target)), 0.1)
    np.testing.assert_allclose(run(ILCM(Linf(0.1), 3)), z, atol=1e-6)


def test_r_fgsm_steps_half_way_at_random_and_half_way_up():
    z = run(RFGSM(Linf(0.1)))
    half = np.sign(gradient(X)) * 0.05
    moved = (z - X - half) / 0.05
    np.testing.assert_allclose(np.abs(moved), 1, atol=1e-4)
    assert {-1, 1} == set(np.round(moved).ravel())


def test_adam_drops_its_step_after_half_of_the_steps():
    m = v = np.zeros(SHAPE)
    z = X
    for k in range(1, 5):
        g = gradient(z)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        direction = (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-9)
        z = clip(z + (0.02 if k <= 2 else 0.002) * direction, 0.1).astype(np.float32)
    attack = PGD(Linf(0.1), steps=4, step_size=0.02, start=Zero(), rule=Adam())
    np.testing.assert_allclose(run(attack), z, atol=1e-6)


def test_l2_steps_are_normalised():
    g = gradient(X)
    attack = PGD(L2(0.3), steps=1, step_size=0.2, start=Zero())
    expected = X + 0.2 * g / np.linalg.norm(g)
    np.testing.assert_allclose(run(attack), expected, atol=1e-6)


def test_a_given_class_is_gone_to_and_a_reference_is_left():
    attack = PGD(Linf(0.1), steps=1, start=Zero(), rel_step=1.0)
    slope = 0.1 * np.sign(gradient(X, 1))
    np.testing.assert_allclose(run(attack, target=1), clip(X - slope, 0.1), atol=1e-6)
    model = lambda state, x: (logits(x), state)  # noqa: E731
    left = attack.ascend(model, (), jax.random.key(0), X, Y, reference=1)[0]
    np.testing.assert_allclose(left, clip(X + slope, 0.1), atol=1e-6)


def test_a_redrawn_class_is_another_one_at_every_step():
    """Away from the label where it is drawn itself; against the same steps one by one."""
    target = Random(redraw=True, with_label=True)
    attack = PGD(Linf(0.1), 9, step_size=0.02, start=Zero(), loss=multi_target, target=target)
    key_target = jax.random.split(jax.random.key(3))[1]
    z, seen = X, []
    for k in range(9):
        aim = int(jax.random.randint(jax.random.fold_in(key_target, k), (), 0, K))
        z = clip(z + (1 if aim == Y else -1) * 0.02 * np.sign(gradient(z, aim)), 0.1)
        seen.append(aim)
    assert Y in seen and len(set(seen)) > 2
    np.testing.assert_allclose(run(attack, seed=3), z, atol=1e-6)
    given = PGD(Linf(0.1), 6, start=Zero(), target=target)  # a target that is given stays
    once = replace(given, target=TrueLabel())
    np.testing.assert_array_equal(run(given, target=1), run(once, target=1))


def test_the_predicted_label_leaks_nothing():
    """Away from the prediction the true label has no influence."""
    attack = PGD(Linf(0.1), target=Prediction())
    np.testing.assert_array_equal(run(attack, y=0), run(attack, y=3))


def test_starts():
    keys, threat = jax.random.split(jax.random.key(0), 4), Linf(0.1)
    np.testing.assert_array_equal(Zero()(keys[0], X, threat), X)
    assert 0.1 < float(threat.distance(Uniform(2.0)(keys[1], X, threat), X)) <= 0.2 + 1e-6
    assert 0 < float(threat.distance(Gaussian(1e-3)(keys[2], X, threat), X)) < 5e-3
    np.testing.assert_allclose(np.abs(Corner(0.5)(keys[3], X, threat) - X), 0.05, atol=1e-6)


EDGE = np.where(RNG.uniform(size=SHAPE) < 0.5, 0, 1).astype(np.float32)
"""An image like MNIST's: every uniform start leaves the box in about half of the pixels."""


def test_an_unclipped_start_leaves_the_box_and_a_clip_makes_it_the_uniform_one():
    threat = Linf(0.3)
    outside = np.asarray(UnclippedUniform()(jax.random.key(1), EDGE, threat))
    assert ((outside < 0) | (outside > 1)).any()
    assert 0.1 < np.abs(outside - EDGE).max() <= 0.3 + 1e-6
    inside = Uniform()(jax.random.key(1), EDGE, threat)
    np.testing.assert_array_equal(np.clip(outside, 0, 1), inside)
    outside = np.asarray(UnclippedUniform()(jax.random.key(1), EDGE, L2(0.3)))
    assert (outside < 0).any() and np.linalg.norm(outside - EDGE) <= 0.3 + 1e-6


def test_the_gradient_is_taken_outside_the_box_and_the_step_leads_into_it():
    """As Wong et al.'s code for MNIST: clip(x + clip(d + 1.25 eps sign(g(x + d)), eps), 0, 1)."""
    attack = PGD(Linf(0.3), steps=1, rel_step=1.25, start=UnclippedUniform())
    key = jax.random.split(jax.random.key(5))[0]
    d = UnclippedUniform()(key, EDGE, attack.threat) - EDGE
    d = np.clip(d + 0.375 * np.sign(gradient(EDGE + d)), -0.3, 0.3)
    found = np.asarray(attack(logits, jax.random.key(5), EDGE, Y))
    np.testing.assert_allclose(found, np.clip(EDGE + d, 0, 1), atol=1e-6)


def test_no_result_of_an_unclipped_start_is_outside_the_box():
    """Not even where no step is taken."""
    stays = PGD(Linf(0.3), steps=0, start=UnclippedUniform())
    found = np.asarray(stays(logits, jax.random.key(1), EDGE, Y))
    assert (found != EDGE).any() and found.min() >= 0 and found.max() <= 1
    with pytest.raises(ValueError, match="needs a ball that is bounded without its box"):
        replace(stays, threat=L0(2))(logits, jax.random.key(1), EDGE, Y)


def test_output_diversified_starts_spread_over_the_corners_of_a_linear_model():
    """Two steps of eps along <w, logits> end in the corner that w chooses, whatever came before."""
    threat, logits_fn = Linf(0.1), lambda x: x.reshape(-1) @ W
    draw = jax.jit(jax.vmap(lambda key: OutputDiversified()(key, X, threat, logits_fn)))
    moved = (np.asarray(draw(jax.random.split(jax.random.key(0), 20))) - X).reshape(20, -1)
    np.testing.assert_allclose(np.abs(moved), 0.1, atol=1e-6)
    for corner in np.sign(moved):  # sign(W w) for some w in [-1, 1]^K
        feasible = scipy.optimize.linprog(
            np.zeros(K), A_ub=-corner[:, None] * W, b_ub=-1e-6 * np.ones(9), bounds=(-1, 1)
        )
        assert feasible.success
    assert len({tuple(corner) for corner in np.sign(moved)}) > 10


def test_an_output_diversified_start_reads_the_logits_of_any_output_and_costs_its_steps():
    attack = PGD(Linf(0.1), steps=0, start=OutputDiversified(steps=3, fraction=0.1))
    key = jax.random.key(0)
    rich = attack(lambda x: {"logits": logits(x), "score": x.sum()}, key, X, Y)
    np.testing.assert_array_equal(rich, attack(logits, jax.random.clone(key), X, Y))
    assert tuple(attack.cost) == (3, 3)
    assert tuple(PGD(steps=7, start=OutputDiversified(), target=Prediction()).cost) == (10, 9)
    with pytest.raises(ValueError, match="needs the model"):
        OutputDiversified()(jax.random.key(1), X, Linf(0.1))


def test_a_loss_with_zero_gradient_at_x_needs_the_random_start():
    """KL to the clean output is flat at x; from TRADES' Gaussian start it is climbed."""
    attack = PGD(Linf(0.1), start=Gaussian(), loss=kl)
    flat = attack.gradient(logits, jnp.asarray(X), Goal(logits(X), kl))
    np.testing.assert_allclose(flat, np.zeros(SHAPE), atol=1e-6)
    moved = run(attack, target=logits(X))
    assert float(kl(logits(moved), logits(X))) > 1e-3


def test_no_gradient_flows_back():
    attack = BIM(Linf(0.1), 2)
    key = jax.random.key(0)
    through = jax.grad(lambda w: attack(lambda x: x.reshape(-1) @ w, key, X, Y).sum())(W)
    np.testing.assert_array_equal(through, np.zeros_like(W))


def test_eps_per_example_by_vmap_over_the_config():
    eps = jnp.array([0.02, 0.1])
    keys = jax.random.split(jax.random.key(0), 2)
    z = jax.vmap(lambda e, k: PGD(Linf(e))(logits, k, X, Y))(eps, keys)
    reached = jnp.abs(z - X[None]).max((1, 2, 3))
    np.testing.assert_allclose(reached, eps, rtol=1e-4)


@pytest.mark.parametrize(
    ("attack", "reach"),
    [
        (PGD(Linf(0.1), steps=40), 2.5),
        (PGD(Linf(0.1), steps=4, step_size=0.01, start=Zero()), 0.4),
        (PGD(Linf(0.1), steps=4, step_size=0.01, start=Uniform(0.5)), 0.4),
        (PGD(Linf(0.1), steps=4, step_size=0.01, start=Gaussian(0.02)), 0.4),
        (BIM(L2(0.7), 7), 1),
        (RFGSM(Linf(0.1)), 0.5),
    ],
)
def test_reach_is_the_travel_of_all_steps_in_units_of_eps(attack, reach):
    assert float(attack.reach) == pytest.approx(reach)


def test_the_state_rides_in_the_loop():
    """BatchNorm in batch mode under vmap equals the plain batch gradient, and commits each step."""
    batch = RNG.uniform(0.2, 0.8, (6, *SHAPE)).astype(np.float32)
    y = RNG.integers(0, K, 6)

    def normalised(x, mean, scale):
        return (x - mean) / scale

    def model(state, x):
        mean = jax.lax.pmean(x, "example")
        scale = jnp.sqrt(jax.lax.pmean((x - mean) ** 2, "example") + 1e-3)
        mean_of = 0.9 * state["mean"] + 0.1 * mean
        return normalised(x, mean, scale).reshape(-1) @ W, {"mean": mean_of, "n": state["n"] + 1}

    def batch_loss(x):
        mean = x.mean(0, keepdims=True)
        scale = jnp.sqrt(((x - mean) ** 2).mean(0, keepdims=True) + 1e-3)
        z = normalised(x, mean, scale).reshape(6, -1) @ W
        return jax.vmap(cross_entropy)(z, y).sum()

    attack = PGD(L2(0.4), steps=3, step_size=0.15, start=Zero())
    state = {"mean": jnp.zeros(SHAPE), "n": jnp.int32(0)}
    ascend = jax.jit(
        jax.vmap(
            lambda state, k, x, y: attack.ascend(model, state, k, x, y),
            in_axes=(None, 0, 0, 0),
            out_axes=(0, None),
            axis_name="example",
        )
    )
    x_adv, state = ascend(state, jax.random.split(jax.random.key(0), 6), batch, y)
    z, mean = batch, np.zeros(SHAPE)
    for _ in range(3):
        mean = 0.9 * mean + 0.1 * z.mean(0)
        g = np.asarray(jax.grad(batch_loss)(jnp.asarray(z)))
        z = z + 0.15 * g / np.sqrt((g**2).sum((1, 2, 3), keepdims=True))
        d = z - batch
        d *= np.minimum(1, 0.4 / np.sqrt((d**2).sum((1, 2, 3), keepdims=True)))
        z = batch + d
    assert z.min() > 0 and z.max() < 1  # the box plays no part, so the ball is a scaling
    np.testing.assert_allclose(x_adv, z, atol=1e-5)
    np.testing.assert_allclose(state["mean"], mean, atol=1e-6)
    assert int(state["n"]) == 3
