"""LID against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from watched import FEATURES, IMAGES, LABELS, MODEL

from robustjax.detection import LID
from robustjax.detection.detector import over_images
from robustjax.detection.intrinsic_dimension import LARGEST, lid

RNG = np.random.default_rng(0)


def by_layer(fitted, images=IMAGES):
    return over_images(lambda fitted, x: fitted.statistics(x), fitted, images, 16)


def test_lid_is_the_formula_in_every_layer():
    detector = LID(k=5, references=12, minibatches=2, seed=4)
    drawn = np.random.default_rng(4).permutation(60)[:24].reshape(2, 12)
    found = by_layer(detector.fit(MODEL, IMAGES, LABELS))
    for i, layer in enumerate(FEATURES):
        a = layer.reshape(60, -1).astype(np.float64)
        for n in range(60):
            values = []
            for minibatch in drawn:
                others = a[[m for m in minibatch if m != n]]
                r = np.sort(np.linalg.norm(others - a[n], axis=-1))[:5]
                values.append(-1 / np.mean(np.log(r / r[-1])))
            assert found[n, i] == pytest.approx(-np.mean(values), rel=1e-3)


@pytest.mark.parametrize("dimension", [1, 2, 8])
def test_lid_of_known_ratios(dimension):
    """Distances (i / n)^(1 / d) have log-ratios log(k / i) / d, so the LID is d over their mean."""
    ranks = np.arange(1, 51)
    squares = jnp.asarray((ranks / 50) ** (2 / dimension), jnp.float32)
    expected = dimension / np.mean(np.log(20 / ranks[:20]))
    assert lid(squares[::-1], 20) == pytest.approx(expected, rel=1e-4)
    assert lid(9 * squares, 20) == pytest.approx(expected, rel=1e-4)
    twin = jnp.concatenate([jnp.zeros(1), squares])
    assert lid(twin, 20) == pytest.approx(expected, rel=1e-4)


def test_lid_of_points_in_a_ball_is_its_dimension():
    directions = RNG.normal(size=(5000, 3))
    radii = RNG.random((5000, 1)) ** (1 / 3)
    points = radii * directions / np.linalg.norm(directions, axis=1)[:, None]
    squares = jnp.asarray((points**2).sum(1), jnp.float32)
    assert lid(squares, 500) == pytest.approx(3, rel=4 / np.sqrt(500))


@pytest.mark.parametrize("squares", [[0.0] * 4, [1.0] * 4, [0, 0, 0, 2.0], [0, 1e-30, 1e30, 1e30]])
def test_lid_of_zero_and_equal_distances_is_finite(squares):
    value, gradient = jax.value_and_grad(lid)(jnp.asarray(squares), 3)
    assert 0 < value <= LARGEST * (1 + 1e-6) and np.isfinite(gradient).all()


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="100 reference images, got 60"):
        LID().fit(MODEL, IMAGES, LABELS)
    with pytest.raises(ValueError, match="more than 20"):
        LID(references=20)
