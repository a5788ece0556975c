"""Ensembles: one example's `__call__` equals the stages that the host runs on survivors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks import (
    FAB,
    FGSM,
    PGD,
    MultiTargeted,
    MultiTargetedPGD,
    Restarts,
    WorstOf,
    perturb,
    with_eps,
)
from robustjax.attacks._core.ensemble import leaves
from robustjax.attacks._core.success import fooled
from robustjax.attacks.starts import OutputDiversified, Uniform, Zero
from robustjax.attacks.targets import Ranked
from robustjax.config import config
from robustjax.threats import L2, Linf

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(24, 3, 3, 1)).astype(np.float32)
W = RNG.normal(size=(9, 3)).astype(np.float32)
LABELS = (IMAGES.reshape(24, -1) @ W).argmax(-1)
WEAK = PGD(Linf(0.08), steps=1, rel_step=0.7)
ENSEMBLES = {
    "restarts": Restarts(WEAK, 4),
    "worst-of": WorstOf((FGSM(Linf(0.03)), WEAK)),
    "nested": WorstOf((FGSM(Linf(0.03)), Restarts(WEAK, 3))),
}


def batch(w, x):
    return x.reshape(len(x), -1) @ w


MODEL = jax.tree_util.Partial(batch, W)


def one(x):
    return x.reshape(-1) @ W


@pytest.mark.parametrize("name", ENSEMBLES)
def test_call_equals_the_host_stages(name):
    key, attack = jax.random.key(3), ENSEMBLES[name]

    def example(i, x, y):
        return attack(one, jax.random.fold_in(key, i), x, y)

    direct = jax.jit(jax.vmap(example))(np.arange(24), IMAGES, LABELS)
    staged = perturb(attack, MODEL, key, IMAGES, LABELS, batch_size=8)
    np.testing.assert_allclose(direct, staged, atol=1e-6)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_worst_is_the_union_over_stages(name):
    attack = ENSEMBLES[name]
    union = np.zeros(24, bool)
    key = jax.random.key(3)

    def collect(attack, path):
        nonlocal union
        if leaves(attack, 3) != (attack,):
            for i, stage in enumerate(attack.stages(3)):
                collect(stage, (*path, i))
            return

        def example(i, x, y):
            k = jax.random.fold_in(key, i)
            for p in path:
                k = jax.random.fold_in(k, p)
            return fooled(one(attack(one, k, x, y)), y)

        union |= np.asarray(jax.jit(jax.vmap(example))(np.arange(24), IMAGES, LABELS))

    collect(attack, ())
    staged = perturb(attack, MODEL, key, IMAGES, LABELS)
    success = np.asarray(batch(W, staged)).argmax(-1) != LABELS
    np.testing.assert_array_equal(success, union)
    assert 0 < union.sum() < 24


def test_the_first_success_is_returned_else_the_last_try():
    @config
    class AddKeyBit:
        """Adds 0.5 to the first pixel; only when told so does it also change the prediction."""

        amount: float

        def __call__(self, logits_fn, key, x, y, target=None):
            return x.at[0, 0, 0].add(self.amount)

    x = jnp.zeros((2, 2, 1))

    def model(x):
        return jnp.array([0.4, 0.0]) + x[0, 0, 0] * jnp.array([0.0, 1.0])

    pick = lambda *amounts: float(  # noqa: E731
        WorstOf(tuple(map(AddKeyBit, amounts)))(model, jax.random.key(0), x, 0)[0, 0, 0]
    )
    assert pick(0.1, 0.5, 0.9) == pytest.approx(0.5)
    assert pick(0.9, 0.5, 0.1) == pytest.approx(0.9)
    assert pick(0.1, 0.3, 0.2) == pytest.approx(0.2)


@pytest.mark.parametrize("eps", [1e-4, 0.05])
def test_restarts_of_a_minimum_norm_attack_stay_in_the_ball(eps):
    """It finds images far outside; whether inside a `WorstOf` or not, they are none of its."""
    restarts = Restarts(FAB(Linf(eps), steps=5, random_start=True), 2)
    for attack in (restarts, WorstOf((restarts,))):
        direct = jax.jit(jax.vmap(lambda x, y: attack(one, jax.random.key(0), x, y)))  # noqa: B023
        assert np.abs(direct(IMAGES, LABELS) - IMAGES).max() <= eps + 1e-6


def test_nan_logits_are_fooled_here_and_on_the_host():
    """Both return the first stage that breaks the model, though the last would fool it too."""
    attack = WorstOf((FGSM(Linf(0.01)), PGD(Linf(0.5), start=Zero())))

    def broken(w, x):
        """NaN as soon as a pixel has moved."""
        moved = jnp.abs(x - 0.5).max((1, 2, 3), keepdims=True)[..., 0, 0]
        return batch(w, x) + jnp.where(moved > 0, jnp.nan, 0)

    images, y = np.full((4, 3, 3, 1), 0.5, np.float32), np.zeros(4, int)
    key = jax.random.key(0)
    staged = perturb(attack, jax.tree_util.Partial(broken, W), key, images, y)
    one_broken = lambda x: broken(W, x[None])[0]  # noqa: E731
    direct = [attack(one_broken, jax.random.fold_in(key, i), x, y[i]) for i, x in enumerate(images)]
    np.testing.assert_allclose(direct, staged, atol=1e-6)
    assert np.abs(staged - 0.5).max() == pytest.approx(0.01, rel=1e-4)


def test_with_eps_reaches_every_threat_and_nothing_else():
    attack = WorstOf((FGSM(Linf(0.1)), Restarts(PGD(L2(0.2), steps=7), 2)))
    changed = with_eps(attack, 0.5)
    assert [leaf.threat for leaf in leaves(changed, 3)] == [Linf(0.5), L2(0.5)]
    assert with_eps(changed, 0.1).stages(3)[0] == FGSM(Linf(0.1))
    assert leaves(changed, 3)[1].steps == 7


def test_empty_ensembles_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Restarts(WEAK, 0)
    with pytest.raises(ValueError, match="at least one"):
        WorstOf(())


@pytest.mark.parametrize("start", [Uniform(), OutputDiversified()], ids=["uniform", "odi"])
def test_multi_targeted_pgd_is_exact_on_a_linear_model(start):
    """Away from the box class t is reached iff the gap is at most eps ||w_t - w_y||_1."""
    images = RNG.uniform(0.3, 0.7, (60, 3, 3, 1)).astype(np.float32)
    w = RNG.normal(size=(9, 5)).astype(np.float32)
    z = images.reshape(60, -1) @ w
    y = z.argmax(-1)
    with np.errstate(invalid="ignore"):
        far = (z[np.arange(60), y, None] - z) / np.abs(w[:, y, None] - w[:, None]).sum(0)
    distance = np.where(np.arange(5) == y[:, None], np.inf, far).min(1)
    eps = float(np.median(distance))
    attack = MultiTargetedPGD(Linf(eps), 10, n=9)
    attack = dataclasses.replace(attack, attack=dataclasses.replace(attack.attack, start=start))
    model = jax.tree_util.Partial(batch, w)
    z = perturb(attack, model, jax.random.key(0), images, y)
    decided = np.abs(distance - eps) > 1e-3 * eps
    won = (z.reshape(60, -1) @ w).argmax(-1) != y
    np.testing.assert_array_equal(won[decided], (distance < eps)[decided])
    assert decided.sum() > 50


def test_multi_targeted_goes_through_the_classes_by_rank():
    stages = MultiTargetedPGD(Linf(0.1), steps=7, n=9).stages(5)
    assert [stage.target for stage in stages] == [Ranked(r) for r in (1, 2, 3, 4)]
    assert all(stage.steps == 7 and stage.threat == Linf(0.1) for stage in stages)
    assert len(MultiTargeted(PGD(), 2).stages(10)) == 2
    with pytest.raises(ValueError, match="at least 1"):
        MultiTargetedPGD(n=0)
