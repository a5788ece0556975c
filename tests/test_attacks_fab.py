"""FAB's own choices: targets, restarts, bad input, and the host's engine."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks import FAB, MultiTargeted, perturb
from robustjax.attacks.targets import Prediction, Random, Ranked
from robustjax.threats import L1, L2, Linf

RNG = np.random.default_rng(0)
N, K = 16, 4
IMAGES = RNG.uniform(0.3, 0.7, (N, 3, 3, 1)).astype(np.float32)
W = RNG.normal(size=(9, K)).astype(np.float32)
BIAS = -(IMAGES.reshape(N, -1) @ W).mean(0)
LOGITS = IMAGES.reshape(N, -1) @ W + BIAS
LABELS = LOGITS.argmax(-1)
RANKED = np.argsort(-LOGITS, axis=-1)
MODEL = jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w[0] + w[1][None], (W, BIAS))


def planes(targets):
    """The exact L2 distance to the plane of each image's target class."""
    gap = LOGITS[np.arange(N), LABELS] - LOGITS[np.arange(N), targets]
    return gap / np.linalg.norm(W[:, LABELS] - W[:, targets], axis=0)


def distances(attack, **given):
    z = perturb(attack, MODEL, jax.random.key(0), IMAGES, LABELS, batch_size=N, **given)
    return np.linalg.norm((z - IMAGES).reshape(N, -1), axis=-1)


def test_a_ranked_class_is_what_it_walks_to():
    """Up to another class that wins first; ranks are data of one program."""
    attack = FAB(L2(float("inf")), target=Ranked())
    everything = np.min([planes(RANKED[:, r]) for r in range(1, K)], axis=0)
    for rank in (1, 2):
        far = distances(dataclasses.replace(attack, target=Ranked(rank)))
        aimed = planes(RANKED[:, rank])
        assert (far >= everything * (1 - 1e-4)).all()
        assert (far <= aimed * 1.01).all()
        given = distances(attack, targets=RANKED[:, rank])  # to be reached, not only met
        assert (given >= far * (1 - 1e-4)).all() and (given >= aimed * (1 - 1e-4)).all()


def test_the_best_of_all_targets_is_the_untargeted_distance():
    attack = FAB(L2(float("inf")))
    stages = MultiTargeted(attack).stages(K)
    best = np.min([distances(stage) for stage in stages], axis=0)
    np.testing.assert_allclose(best, distances(attack), rtol=0.01)


def test_a_random_start_needs_an_eps():
    FAB(L1(3.0), random_start=True)
    for threat in (Linf, L2, L1):
        with pytest.raises(ValueError, match="finite eps"):
            FAB(threat(float("inf")), random_start=True)


@pytest.mark.parametrize(
    "bad",
    [
        {"target": Prediction()},
        {"target": Random(with_label=True)},
        {"target": "x"},
        {"beta": 1.5},
        {"eta": 0.9},
        {"alpha_max": 2.0},
    ],
)
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        FAB(**bad)


def test_numbers_may_be_traced():
    def run(alpha_max, steps):
        attack = FAB(L2(jnp.inf), alpha_max=alpha_max, steps=steps)
        one = lambda x: MODEL(x[None])[0]  # noqa: E731
        return attack(one, jax.random.key(0), IMAGES[0], LABELS[0])

    traced = jax.jit(run)
    for steps in (1, 3):
        np.testing.assert_allclose(traced(0.1, steps), run(0.1, steps), atol=1e-5)
    np.testing.assert_array_equal(traced(0.1, 0), IMAGES[0])
