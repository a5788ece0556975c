"""Attacks on a distance head, where features are linear in the pixels and the truth is known.

The centers have one norm, so h_k - h_y is linear in the image and the robust accuracy one line.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_attacks_apgd import gap, optimum

from robustjax import centers, config, losses
from robustjax.attacks import (
    BIM,
    PGD,
    Adaptive,
    AutoAttack,
    distance_head_attacks,
    mmc_paper_attacks,
    parse,
    perturb,
)
from robustjax.attacks._core.ensemble import leaves
from robustjax.attacks._core.iterative import Example
from robustjax.attacks._ensembles.adaptive import OBJECTIVES
from robustjax.attacks.targets import Prediction, Random, Ranked, goal_of
from robustjax.evaluation import evaluate
from robustjax.losses import TemperedCrossEntropy, cross_entropy, margin, mmc
from robustjax.threats import Linf

N, K, DIM, THREAT = 30, 10, 12, Linf(0.089)
RNG = np.random.default_rng(0)
CENTERS = centers.max_mahalanobis(K, DIM, 10.0)
ROTATION = np.linalg.qr(RNG.normal(size=(DIM, DIM)))[0].astype(np.float32)
LABELS = np.arange(N) % K
TRACES = []


def distances(z):
    """Features (D,) -> the logits of the head."""
    return -jnp.sum((z[None] - CENTERS) ** 2, -1) / 2


def apply(weights, x):
    TRACES.append(x.shape)
    return jax.vmap(distances)((x - 0.5).reshape(len(x), -1) @ weights)


def subject(scale):
    """A model whose features turn `scale` times as fast as the pixels, and images at the centers.

    Every third image lies at its class's center exactly, the others around 1 to 1.3 times as far.
    """
    z = CENTERS[LABELS] * RNG.uniform(1, 1.3, (N, 1)) + 0.3 * RNG.normal(size=(N, DIM))
    z[::3] = CENTERS[LABELS][::3]
    images = (0.5 + z @ ROTATION.T / scale).astype(np.float32).reshape(N, 2, 3, 2)
    assert images.min() >= 0 and images.max() <= 1
    return jax.tree_util.Partial(apply, scale * ROTATION), images


MODEL, IMAGES = subject(30.0)
SLOPES = 30 * ROTATION @ CENTERS.T  # of the logits but for the common -||z||^2 / 2
FALLS = optimum(THREAT, SLOPES, IMAGES, LABELS) > 0


def report(attacks, **more):
    return evaluate(MODEL, IMAGES, LABELS, attacks, jax.random.key(0), **more)


# ---- the objectives


def by_hand(name, z, y, t):
    """The gradient in the features, written out."""
    away = CENTERS - z
    wrong = np.where(np.arange(K) == y, np.inf, np.linalg.norm(away, axis=1))
    k = wrong.argmin()
    if name in ("pgd", "ce-t10", "ce-t100"):
        h = np.asarray(distances(z), np.float64) / {"pgd": 1, "ce-t10": 10, "ce-t100": 100}[name]
        p = np.exp(h - h.max()) / np.exp(h - h.max()).sum()
        return p @ (CENTERS - CENTERS[y]) * (h[y] / float(distances(z)[y]))
    return {
        "margin-un": CENTERS[k] - CENTERS[y],
        "pgd-mt": CENTERS[t] - CENTERS[y],
        "own-un1": away[k],
        "own-tar": away[t],
        "own-un": -away[y],
    }[name]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_are_those_written_out(name):
    for attack in leaves(OBJECTIVES[name](THREAT, steps=1), K)[::4]:
        for y in (0, 3):
            z = RNG.normal(size=DIM).astype(np.float32)
            key, example = jax.random.key(0), Example(jax.random.key(1), jnp.asarray(z), y)
            goal = goal_of(attack, distances, key, example)
            ranks = np.argsort(np.where(np.arange(K) == y, np.inf, -np.asarray(distances(z))))
            want = by_hand(name, z, y, ranks[getattr(attack.target, "rank", 1) - 1])
            got = attack.gradient(distances, jnp.asarray(z), goal)
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_at_a_center_the_cross_entropy_has_no_gradient_and_the_margin_a_large_one():
    """One of constant size wherever one wrong center is the nearest, at a center their mean."""
    apart, z = 10 * np.sqrt(2 * K / (K - 1)), jnp.asarray(CENTERS)

    def gradients(loss, z):
        return np.asarray(jax.vmap(jax.grad(lambda z, y: loss(distances(z), y)))(z, jnp.arange(K)))

    assert not gradients(cross_entropy, z).any() and not gradients(mmc, z).any()
    assert gradients(TemperedCrossEntropy(100.0), z).any(-1).all()
    sizes = np.linalg.norm(gradients(margin, z), axis=-1)
    assert (sizes > 10 * K / (K - 1) * 0.999).all() and (sizes < apart * 1.001).all()
    beside = z + RNG.normal(size=z.shape).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(gradients(margin, beside), axis=-1), apart, rtol=1e-5)


@pytest.mark.parametrize(("at", "same"), [(0.9, True), (-0.5, True), (1.1, False)])
def test_with_two_classes_own_un_moves_as_the_cross_entropy_does_up_to_the_center(at, same):
    """Beyond it, away from everything."""
    mu = jnp.asarray(centers.max_mahalanobis(2, 1, 4.0))

    def step(loss):
        ascent = jax.grad(lambda z: loss(-jnp.sum((z[None] - mu) ** 2, -1) / 2, 0))
        return jnp.sign(ascent(at * mu[0]))

    assert (step(mmc) == step(cross_entropy)).all() == same


# ---- the attacks


@pytest.fixture(scope="module")
def found():
    attacks = {"ce": BIM(THREAT), "adaptive": Adaptive(THREAT, steps=10, restarts=1)}
    with pytest.warns(UserWarning, match="gradient is exactly zero") as caught:
        result = report(attacks)
    assert [str(warning.message) for warning in caught] == result.warnings
    return result


def test_the_cross_entropy_sees_nothing_and_is_told_so(found):
    """It moves no pixel, and what it reports as robust is not."""
    np.testing.assert_array_equal(found.adversarial["ce"], IMAGES)
    assert found.clean == found.robust["ce"] == found.zero_gradient["ce"] == 1
    (flag,) = found.warnings
    assert flag.startswith("ce: ") and "at 100.0% of" in flag and "try a margin loss" in flag


def test_the_adaptive_attack_finds_the_truth(found):
    """Some of its objectives are blind, all of them together are not: no flag."""
    assert 3 < FALLS.sum() < N - 3
    np.testing.assert_array_equal(found.examples["adaptive"]["fooled"], FALLS)
    assert found.worst_case == pytest.approx(1 - FALLS.mean())
    assert found.zero_gradient["adaptive"] == 0
    stages = found.stages["adaptive"]
    assert {row["path"][0] for row in stages} == set(range(len(OBJECTIVES)))
    assert stages[-1]["accuracy"] == pytest.approx(1 - FALLS.mean())


def test_every_objective_by_its_name():
    """None finds what is not there; the one that is linear, class by class, finds all there is.

    The best of the margins is not: which class is the best changes on the way.
    """
    alone = report(distance_head_attacks(THREAT, steps=10, restarts=1), diagnose=False)
    wins = {name: alone.examples[name]["fooled"] for name in OBJECTIVES}
    for name in OBJECTIVES:
        assert not (wins[name] & ~FALLS).any()
    np.testing.assert_array_equal(wins["pgd-mt"], FALLS)
    assert wins["own-un"].sum() < wins["margin-un"].sum() < FALLS.sum()


def test_autoattack_is_not_fooled_by_such_logits():
    attack = AutoAttack(THREAT, steps=20, queries=20)
    z = perturb(attack, MODEL, jax.random.key(1), IMAGES, LABELS)
    np.testing.assert_array_equal(gap(SLOPES, z, LABELS) > 0, FALLS)


def test_names_are_those_of_the_command_line():
    policy = distance_head_attacks(THREAT)
    for name, attack in policy.items():
        assert parse(f"{name}-100x5", THREAT) == attack
    assert parse("adaptive", THREAT) == Adaptive(THREAT)
    assert parse("adaptive-20", THREAT).attacks == tuple(distance_head_attacks(THREAT, 20).values())
    with pytest.raises(ValueError, match="restarts must be at least 1, got 0"):
        distance_head_attacks(THREAT, restarts=0)


def test_few_classes_have_few_targets():
    """Five restarts of two objectives towards all of K - 1 classes and of six others."""
    assert [len(Adaptive(THREAT).attacks)] == [8]
    for classes, targets in ((3, 2), (10, 9), (100, 9)):
        parts = leaves(Adaptive(THREAT), classes)
        assert sum(isinstance(part.target, Ranked) for part in parts) == 5 * 2 * targets
        assert all(part.steps == 100 for part in parts)


def test_an_objective_survives_json():
    functions = losses.NAMED
    for make in OBJECTIVES.values():
        for attack in leaves(make(THREAT, steps=3), K):
            written = json.loads(json.dumps(config.encode(attack)))
            assert config.decode(written, functions) == attack


def test_a_temperature_made_anew_compiles_nothing():
    def craft():
        attack = PGD(THREAT, steps=1, loss=TemperedCrossEntropy(10.0))
        return perturb(attack, MODEL, jax.random.key(0), IMAGES, LABELS)

    first, traced = craft(), len(TRACES)
    np.testing.assert_array_equal(craft(), first)
    assert len(TRACES) == traced


# ---- the table of Pang et al. 2020


def test_the_table_s_steps_do_not_follow_eps():
    for eps in (8 / 256, 16 / 256):
        attacks = mmc_paper_attacks(eps)
        assert list(attacks) == ["pgd-10-tar", "pgd-10-un", "pgd-50-tar", "pgd-50-un"]
        assert all(float(attack.size) == pytest.approx(2 / 256) for attack in attacks.values())
        assert {attack.threat for attack in attacks.values()} == {Linf(eps)}
        assert [a.target for a in attacks.values()] == [Random(), Prediction()] * 2
        assert {attack.loss for attack in attacks.values()} == {mmc}
        softmax = mmc_paper_attacks(eps, cross_entropy)
        assert {attack.loss for attack in softmax.values()} == {cross_entropy}
    start = RNG.uniform(-16, 16, 10**5)  # 10 steps of 2 to the face at 16
    assert (start >= 16 - 10 * 2).mean() == pytest.approx(0.62, abs=0.01)


def test_the_table_s_targets_are_fixed_per_image():
    """Features so fast that every target is reached: one wrong class in every column."""
    model, images = subject(200.0)
    columns = []
    for eps in (8 / 256, 12 / 256):
        for name, attack in mmc_paper_attacks(eps).items():
            if name.endswith("tar"):
                z = perturb(attack, model, jax.random.key(0), images, LABELS)
                columns.append(np.asarray(model(z)).argmax(-1))
    for column in columns:
        np.testing.assert_array_equal(column, columns[0])
    assert (columns[0] != LABELS).all() and len(set(columns[0] - LABELS)) > 5
