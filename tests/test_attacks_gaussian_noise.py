"""Gaussian noise, and what it shares with every list of candidates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import counting

from robustjax.attacks import GaussianNoise, perturb
from robustjax.evaluation import evaluate

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(6, 8, 8, 1)).astype(np.float32)
KEY = jax.random.key(0)


def brightness(x):
    """Class 1 where the mean exceeds that of X[0]; the noise decides."""
    lift = jnp.mean(x, (-3, -2, -1)) - X[0].mean()
    return jnp.stack([-lift, lift], -1)


run_counted = counting(brightness)


MODEL = jax.tree_util.Partial(lambda x: brightness(x))


def never(output, y):
    return jnp.asarray(False)


def test_one_draw_is_the_corruption():
    x = np.full((64, 32, 32, 1), 0.5, np.float32)
    z = perturb(GaussianNoise(0.05, success=never), MODEL, KEY, x, np.zeros(64, int))
    noise = (z - x).ravel()
    assert abs(noise.mean()) < 1e-3 and abs(noise.std() - 0.05) < 1e-3
    assert abs((noise**4).mean() / noise.var() ** 2 - 3) < 0.1  # a Gaussian's kurtosis
    assert len(np.unique(z.reshape(64, -1), axis=0)) == 64


def test_it_is_clipped_to_the_box():
    z = perturb(GaussianNoise(2.0), MODEL, KEY, X, np.zeros(6, int))
    assert z.min() == 0 and z.max() == 1


def test_it_stops_at_the_first_success():
    lost = 0
    for seed in range(8):
        image, state, asked = run_counted(
            GaussianNoise(0.05, 20), jax.random.key(seed), X[0], np.int32(0)
        )
        won = np.asarray(brightness(asked)).argmax(-1) == 1
        assert won[-1] and not won[:-1].any() and bool(state.won)
        np.testing.assert_array_equal(image, asked[-1])
        lost += len(asked) - 1
    assert lost > 0


def test_the_worst_draw_where_none_succeeds():
    attack = GaussianNoise(0.1, 12, success=never)
    image, state, asked = run_counted(attack, KEY, X[0], np.int32(0))
    assert len(asked) == 12 == int(attack.spent(state).forwards)
    np.testing.assert_array_equal(image, asked[asked.mean((1, 2, 3)).argmax()])


def test_more_draws_find_more_and_compile_once():
    y = np.asarray(brightness(X)).argmax(-1)
    wrong = [
        (np.asarray(brightness(perturb(GaussianNoise(0.2, n), MODEL, KEY, X, y))).argmax(-1) != y)
        for n in (1, 4, 16)
    ]
    assert (wrong[0] <= wrong[1]).all() and (wrong[1] <= wrong[2]).all()
    assert wrong[0].sum() < wrong[2].sum()


def test_an_evaluation_has_no_distance():
    report = evaluate(
        MODEL, X, np.asarray(brightness(X)).argmax(-1), {"noise": GaussianNoise()}, KEY
    )
    assert 0 <= report.robust["noise"] <= report.clean == 1


@pytest.mark.parametrize("fields", [{"sigma": -0.1}, {"draws": 0}])
def test_bad_fields_are_refused(fields):
    with pytest.raises(ValueError, match="must lie in"):
        GaussianNoise(**fields)
