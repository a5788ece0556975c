"""Margin losses against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.losses import best_wrong, dlr, margin, targeted_dlr

RNG = np.random.default_rng(0)
LOGITS = {k: RNG.normal(size=k).astype(np.float32) for k in (2, 3, 4, 10)}


def plain_margin(z, y):
    return np.delete(z, y).max() - z[y]


def plain_dlr(z, y):
    top = np.sort(z)[::-1]
    return plain_margin(z, y) / (top[0] - top[2])


def plain_targeted(z, y, t):
    top = np.sort(z)[::-1]
    last = top[3] if len(z) > 3 else top[2]
    return (z[t] - z[y]) / (top[0] - (top[2] + last) / 2)


@pytest.mark.parametrize("k", LOGITS)
def test_best_wrong(k):
    for y in range(k):
        assert float(best_wrong(LOGITS[k], y)) == np.delete(LOGITS[k], y).max()


@pytest.mark.parametrize("k", LOGITS)
def test_margin(k):
    for y in range(k):
        assert float(margin(LOGITS[k], y)) == pytest.approx(plain_margin(LOGITS[k], y), rel=1e-6)


@pytest.mark.parametrize("k", [3, 4, 10])
def test_dlr(k):
    for y in range(k):
        assert float(dlr(LOGITS[k], y)) == pytest.approx(plain_dlr(LOGITS[k], y), rel=1e-5)


@pytest.mark.parametrize("k", [3, 4, 10])
def test_targeted_dlr(k):
    for y in range(k):
        t = (y + 1) % k
        expected = plain_targeted(LOGITS[k], y, t)
        assert float(targeted_dlr(LOGITS[k], (y, t))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_masked_classes_do_not_count(k):
    """The values and gradients of the k logits, whatever number of -inf stands beside them."""
    masked = np.insert(LOGITS[k], [1, 1, k], -np.inf)
    for loss, of in ((dlr, (0, 0)), (targeted_dlr, ((0, 1), (0, 3)))):
        plain = jax.value_and_grad(loss)(jnp.asarray(LOGITS[k], jnp.float32), of[0])
        value, slope = jax.value_and_grad(loss)(jnp.asarray(masked, jnp.float32), of[1])
        assert float(value) == pytest.approx(float(plain[0]), rel=1e-6)
        np.testing.assert_allclose(slope[np.isfinite(masked)], plain[1], rtol=1e-5)


def test_two_classes_fall_back_to_the_margin():
    z = LOGITS[2]
    assert float(dlr(z, 0)) == pytest.approx(z[1] - z[0])
    assert float(targeted_dlr(z, (0, 1))) == pytest.approx(z[1] - z[0])
    assert np.abs(jax.grad(dlr)(jnp.asarray(z), 0)).min() > 0


@pytest.mark.parametrize("k", [3, 4, 10])
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_dlr_does_not_change_under_scale_and_shift(k, scale):
    z = LOGITS[k]
    moved = scale * (z + 2)
    assert float(dlr(moved, 1)) == pytest.approx(float(dlr(z, 1)), rel=1e-3)
    changed = float(targeted_dlr(moved, (1, 2)))
    assert changed == pytest.approx(float(targeted_dlr(z, (1, 2))), rel=1e-3)


def test_the_ratio_falls_as_a_wrong_logit_rises_where_the_label_is_not_among_three():
    """What the docstring of MarginBlend warns of."""
    order = np.argsort(-LOGITS[10])
    rises = [float(jax.grad(dlr)(jnp.asarray(LOGITS[10]), y)[order[0]]) > 0 for y in order[1:]]
    assert rises[0] and not any(rises[2:])


@pytest.mark.parametrize("k", LOGITS)
def test_negative_exactly_while_the_label_wins(k):
    winner = int(LOGITS[k].argmax())
    for y in range(k):
        assert (float(margin(LOGITS[k], y)) < 0) == (float(dlr(LOGITS[k], y)) < 0) == (y == winner)


@pytest.mark.parametrize(
    "logits", [np.zeros(4), [1e4, -1e4, 0, 3], [1e30, 0, 0, -1e30], [5, 5, 5, 0], [1, 0, 0, 0]]
)
def test_values_and_gradients_are_finite_for_ties_and_extreme_logits(logits):
    logits = jnp.array(logits, jnp.float32)
    for loss, target in ((margin, 3), (dlr, 3), (targeted_dlr, (0, 3))):
        value, gradient = jax.value_and_grad(loss)(logits, target)
        assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("logits", [np.zeros(4), [5, 5, 5, 0], [1, 1 - 1e-6, 1 - 1e-6, -3]])
def test_a_least_divisor_bounds_the_ratio_s_gradient_where_logits_tie(logits):
    logits = jnp.array(logits, jnp.float32)
    value, gradient = jax.value_and_grad(lambda z: dlr(z, 3, least=0.1))(logits)
    assert value == pytest.approx(float(margin(logits, 3)) / 0.1, rel=1e-5)
    assert np.abs(gradient).sum() == pytest.approx(20, rel=1e-5)


def test_a_least_divisor_changes_nothing_where_the_spread_is_larger():
    assert dlr(LOGITS[10], 1, least=0.1) == dlr(LOGITS[10], 1)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_logits_of_few_bits_make_a_loss_of_many(dtype):
    """Of equal logits the ratio is 0 / 0, and 256 + 1 is 256 in bfloat16."""
    assert dlr(jnp.zeros(4, dtype), 0) == 0
    assert margin(jnp.array([-256.0, 1.0], dtype), 0) == 257
