"""Softmax losses against SciPy."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, rel_entr, softmax

from robustjax import losses

Z = np.array([1.5, -0.3, 2.2, 0.1], np.float32)
R = np.array([0.2, 0.9, -1.0, 3.0], np.float32)
EXTREME = [np.zeros(4), [1e4, -1e4, 0, 3], [1e30, 0, 0, -1e30], [-1e30] * 4]


@pytest.mark.parametrize("label", range(4))
def test_cross_entropy_of_a_label(label):
    expected = -log_softmax(Z)[label]
    assert float(losses.cross_entropy(Z, jnp.int32(label))) == pytest.approx(expected, rel=1e-6)


def test_towards_a_class_or_away_from_the_label():
    for label, aim in ((0, 2), (3, 0), (1, 1)):
        expected = log_softmax(Z)[aim] * (-1 if aim == label else 1)
        found = losses.multi_target(Z, (jnp.int32(label), jnp.int32(aim)))
        assert float(found) == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_of_a_distribution():
    target = softmax(R)
    expected = -(target * log_softmax(Z)).sum()
    assert float(losses.cross_entropy(Z, target)) == pytest.approx(expected, rel=1e-6)


def test_a_label_equals_its_one_hot_distribution():
    soft = losses.cross_entropy(Z, jax.nn.one_hot(2, 4))
    assert float(soft) == pytest.approx(float(losses.cross_entropy(Z, jnp.int32(2))), rel=1e-6)


def test_a_temperature_divides_the_logits():
    for temperature in (1.0, 10.0):
        loss = losses.TemperedCrossEntropy(temperature)
        expected = -log_softmax(Z / temperature)[1]
        assert float(loss({"logits": Z}, jnp.int32(1))) == pytest.approx(expected, rel=1e-6)
        assert loss == losses.TemperedCrossEntropy(temperature)
    with pytest.raises(ValueError, match="temperature must lie in"):
        losses.TemperedCrossEntropy(0.0)


def test_kl_is_from_the_reference_to_the_logits():
    expected = rel_entr(softmax(R), softmax(Z)).sum()
    assert float(losses.kl(Z, R)) == pytest.approx(expected, rel=1e-5)
    assert float(losses.kl(Z, R)) != pytest.approx(float(losses.kl(R, Z)), rel=1e-2)


def test_kl_and_its_gradient_vanish_at_the_reference():
    assert float(losses.kl(Z, Z)) == 0
    np.testing.assert_allclose(jax.grad(losses.kl)(Z, Z), 0, atol=1e-7)


# The reverse cross-entropy, of test logits h = -Z.


@pytest.mark.parametrize("label", range(4))
def test_rce_is_the_mean_surprise_of_the_wrong_classes_under_negated_logits(label):
    expected = -np.delete(log_softmax(-Z), label).mean()
    assert float(losses.rce(Z, jnp.int32(label))) == pytest.approx(expected, rel=1e-6)
    assert float(losses.rce({"logits": Z}, jax.nn.one_hot(label, 4))) == pytest.approx(expected)


def test_rce_of_a_distribution_is_the_cross_entropy_to_its_reverse():
    target = softmax(R)
    expected = -((1 - target) / 3 * log_softmax(-Z)).sum()
    assert float(losses.rce(Z, target)) == pytest.approx(expected, rel=1e-6)


@hypothesis.given(
    arrays(np.float32, st.sampled_from((2, 3, 9)), elements=st.floats(-30, 30, width=32))
)
@hypothesis.settings(deadline=None)  # each shape compiles
def test_rce_is_at_least_log_of_the_wrong_classes_number(h):
    assert float(losses.rce(h, jnp.int32(1))) >= np.log(len(h) - 1) - 1e-5


def test_rce_is_least_where_the_label_leads_and_the_rest_are_equal():
    h = jnp.zeros(10).at[3].set(40.0)
    value, gradient = jax.value_and_grad(losses.rce)(h, jnp.int32(3))
    assert float(value) == pytest.approx(np.log(9), rel=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-7)
    assert float(losses.rce(-h, jnp.int32(3))) == 40  # the sign: of Z, not of h


def test_the_gradient_of_rce_in_z_is_the_softmax_minus_its_reverse_label():
    reverse = (1 - np.eye(4)[2]) / 3
    gradient = jax.grad(lambda z: losses.rce(-z, jnp.int32(2)))(Z)
    np.testing.assert_allclose(gradient, softmax(Z) - reverse, atol=1e-6)
    np.testing.assert_allclose(
        jax.grad(losses.rce)(Z, jnp.int32(2)), reverse - softmax(-Z), atol=1e-6
    )


def test_squared_error():
    assert float(losses.squared_error(Z, R)) == pytest.approx(((Z - R) ** 2).sum(), rel=1e-6)


@pytest.mark.parametrize("logits", EXTREME)
def test_values_and_gradients_are_finite_for_extreme_logits(logits):
    logits = jnp.array(logits, jnp.float32)
    label = jnp.int32(1)
    for loss, target in (
        (losses.cross_entropy, label),
        (losses.rce, label),
        (losses.kl, jnp.asarray(Z)),
    ):
        value, gradient = jax.value_and_grad(loss)(logits, target)
        assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("over", "expected"), [("wrong", [0.1, 0.7, 0.1, 0.1]), ("all", [0.075, 0.775, 0.075, 0.075])]
)
def test_smoothing_conventions(over, expected):
    np.testing.assert_allclose(losses.smooth(1, 4, 0.3, over), expected, rtol=1e-6)


def test_a_distribution_is_smoothed_class_by_class():
    soft = np.array([0.25, 0.75, 0.0, 0.0], np.float32)
    for over in ("wrong", "all"):
        parts = [losses.smooth(k, 4, 0.3, over) for k in (0, 1)]
        want = 0.25 * parts[0] + 0.75 * parts[1]
        np.testing.assert_allclose(losses.smooth(soft, 4, 0.3, over), want, rtol=1e-6)


def test_smoothing_refuses_an_unknown_convention():
    with pytest.raises(ValueError, match="over must be one of wrong, all"):
        losses.smooth(1, 4, 0.3, "some")


def test_the_list_of_names_holds_losses_only():
    assert "smooth" not in losses.NAMED
    assert all(callable(loss) for loss in losses.NAMED.values())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_focal_loss_and_the_gradient_of_a_certain_prediction(gamma):
    ce = -log_softmax(Z.astype(float))
    found = jax.vmap(losses.focal, (0, None))(ce.astype(np.float32), gamma)
    np.testing.assert_allclose(found, (1 - np.exp(-ce)) ** gamma * ce, rtol=1e-5)
    certain = jnp.array([200.0, 0, 0, 0])

    def loss(z):
        return losses.focal(losses.cross_entropy(z, 0), gamma)

    value, slope = jax.jit(jax.value_and_grad(loss))(certain)
    assert value == 0 and not slope.any()


def against_one_hot(logits, label):
    return losses.kl(logits, 1e6 * jax.nn.one_hot(label, logits.size))


@pytest.mark.parametrize("scale", [1e3, 1e6])
@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.brier, against_one_hot])
def test_a_saturated_softmax_is_one_hot_though_the_model_ends_in_a_product(scale, loss):
    """Fused into `z - max(z)` the product is rounded once less than in the maximum."""
    rng = np.random.default_rng(0)
    w, x = (rng.normal(size=shape).astype(np.float32) for shape in ((48, 10), (64, 48)))
    z = scale * x.astype(float) @ w
    sure = np.diff(np.sort(z), axis=1)[:, -1] > 110  # exp(-104) is 0 in float32
    slope = jax.grad(lambda x, y: loss(scale * (x @ w), y))
    found = jax.jit(jax.vmap(slope))(x[sure], z[sure].argmax(1))
    assert sure.sum() > 50 and not np.asarray(found).any()
