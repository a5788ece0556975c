"""DDN's own choices; its laws are in test_attacks_boundary."""

import jax
import numpy as np
import pytest

from robustjax.attacks import DDN
from robustjax.attacks._core.iterative import Example

W = np.array([[1.0, -1.0], [2.0, 0.0], [0.0, 1.0]], np.float32)
X = np.full((1, 3, 1), 0.5, np.float32)


def logits_fn(x):
    return x.reshape(-1) @ W


def test_the_radius_follows_the_success():
    """From 0.1 it grows by half until it passes the boundary at 0.5, and then halves."""
    attack, example = DDN(init_eps=0.1, gamma=0.5), Example(jax.random.key(0), X, 0)
    state, radii = attack.begin(logits_fn, example), []
    for _ in range(5):
        state = attack.step(logits_fn, example, state)
        radii.append(float(attack.threat.distance(state.point, X)))
    gap, normal = float(np.diff(logits_fn(X))[0]), W[:, 1] - W[:, 0]
    np.testing.assert_allclose(-gap / np.linalg.norm(normal), 0.5, rtol=1e-6)
    np.testing.assert_allclose(radii, [0.15, 0.225, 0.3375, 0.50625, 0.253125], rtol=1e-4)
    np.testing.assert_allclose(attack.threat.distance(state.nearest, X), 0.50625, rtol=1e-4)


@pytest.mark.parametrize(
    "bad", [{"steps": -1}, {"init_eps": -1.0}, {"gamma": 2.0}, {"target": "x"}]
)
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        DDN(**bad)
