"""FMN's own choices; its laws are in test_attacks_boundary."""

import jax
import numpy as np
import pytest

from robustjax.attacks import FMN
from robustjax.attacks._core.iterative import Example
from robustjax.threats import L0, L2

W = np.array([[1.0, -1.0], [2.0, 0.0], [0.0, 1.0]], np.float32)
X = np.full((1, 3, 1), 0.5, np.float32)


def logits_fn(x):
    return x.reshape(-1) @ W


def test_the_first_radius_lies_just_beyond_the_linear_boundary():
    attack, example = FMN(L2(), gamma=0.05), Example(jax.random.key(0), X, 0)
    state = attack.step(logits_fn, example, attack.begin(logits_fn, example))
    gap, normal = float(np.diff(logits_fn(X))[0]), W[:, 1] - W[:, 0]
    boundary = -gap / np.linalg.norm(normal)
    np.testing.assert_allclose(state.memory, 1.05 * boundary, rtol=1e-5)
    np.testing.assert_allclose(attack.threat.distance(state.point, X), 1.05 * boundary, rtol=1e-5)
    assert float(np.diff(logits_fn(state.point))[0]) > 0


def test_l0_counts_pixels_and_not_components():
    """Both channels of one pixel together turn the class; that is one change."""
    x = np.full((1, 2, 2), 0.5, np.float32)
    w = np.zeros((4, 2), np.float32)
    w[:2, 1] = 1.0  # both channels of the first pixel
    attack = FMN(L0(), steps=20)
    adv = attack(
        lambda z: z.reshape(-1) @ w + np.array([1.8, 0], np.float32), jax.random.key(0), x, 0
    )
    assert float(attack.threat.distance(adv, x)) == 1
    assert (np.asarray(adv) != x).sum() == 2


@pytest.mark.parametrize("bad", [{"steps": -1}, {"gamma": 2.0}, {"target": "x"}])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        FMN(**bad)
