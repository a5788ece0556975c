"""Softmax losses against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax

from robustjax import losses

Z = np.array([1.5, -0.3, 2.2, 0.1], np.float32)
R = np.array([0.2, 0.9, -1.0, 3.0], np.float32)
EXTREME = [np.zeros(4), [1e4, -1e4, 0, 3], [1e30, 0, 0, -1e30], [-1e30] * 4]


@pytest.mark.parametrize("label", range(4))
def test_cross_entropy_of_a_label(label):
    expected = -log_softmax(Z)[label]
    assert float(losses.cross_entropy(Z, jnp.int32(label))) == pytest.approx(expected, rel=1e-6)


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


def test_squared_error():
    assert float(losses.squared_error(Z, R)) == pytest.approx(((Z - R) ** 2).sum(), rel=1e-6)


@pytest.mark.parametrize("logits", EXTREME)
def test_values_and_gradients_are_finite_for_extreme_logits(logits):
    logits = jnp.array(logits, jnp.float32)
    for loss, target in ((losses.cross_entropy, jnp.int32(1)), (losses.kl, jnp.asarray(Z))):
        value, gradient = jax.value_and_grad(loss)(logits, target)
        assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("over", "expected"), [("wrong", [0.1, 0.7, 0.1, 0.1]), ("all", [0.075, 0.775, 0.075, 0.075])]
)
def test_smoothing_conventions(over, expected):
    np.testing.assert_allclose(losses.smooth(1, 4, 0.3, over), expected, rtol=1e-6)


def test_smoothing_refuses_an_unknown_convention():
    with pytest.raises(ValueError, match="'wrong' or 'all'"):
        losses.smooth(1, 4, 0.3, "some")


def test_the_list_of_names_holds_losses_only():
    assert "smooth" not in losses.__all__
    assert all(callable(getattr(losses, name)) for name in losses.__all__)
