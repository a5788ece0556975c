"""Neighbours of an image, and how they agree with it."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax
from watched import IMAGES, LABELS, MODEL

from robustjax.detection import Neighbors, scores
from robustjax.detection.neighbors import cosine


def test_neighbors_are_near_and_in_the_box():
    x = jnp.asarray(IMAGES[0])
    moved = neighbors(Neighbors(count=20, shift=1, contrast=0.0, noise=0.0), x)
    wide = np.pad(IMAGES[0], ((1, 1), (1, 1), (0, 0)), mode="edge")
    views = [wide[i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    for image in np.asarray(moved):
        assert any(np.allclose(image, view, atol=1e-6) for view in views)
    found = neighbors(Neighbors(count=20, shift=1, contrast=1.0, noise=1.0), x)
    assert found.min() == 0 and found.max() == 1


@jax.jit
def neighbors(detector, x):
    return detector.neighbors(x)


def test_the_score_is_the_mean_probability_and_the_mean_cosine():
    detector, x = Neighbors(count=20, shift=1), IMAGES[:1]
    found = scores(detector.fit(MODEL, IMAGES, LABELS), x)
    own, near = MODEL(x), MODEL(np.asarray(neighbors(detector, jnp.asarray(x[0]))))
    p = softmax(np.asarray(near["logits"], float), -1)[:, own["logits"][0].argmax()]
    a, b = (np.asarray(output["features"][-1], float) for output in (own, near))
    angle = (b @ a[0]) / np.linalg.norm(a[0]) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(found, p.mean() + angle.mean(), rtol=1e-4)


def test_the_cosine_with_nothing_is_zero():
    assert float(cosine(jnp.zeros(3), jnp.ones(3))) == 0
