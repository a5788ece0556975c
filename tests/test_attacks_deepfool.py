"""DeepFool's own choices; its laws are in test_attacks_boundary."""

import jax
import numpy as np
import pytest

from robustjax.attacks import DeepFool
from robustjax.threats import L0, L1, L2, Linf

W = np.array([[2.0, 0.0, 1.5], [0.0, 1.0, 1.0]], np.float32)
X = np.full((1, 2, 1), 0.5, np.float32)
BIAS = np.array([0.6, 0.7, 0.05], np.float32)


def logits_fn(x):
    return x.reshape(-1) @ W + BIAS


@pytest.mark.parametrize(("threat", "dual"), [(L2(), 2), (Linf(), 1)])
def test_one_step_crosses_the_nearest_of_the_candidates(threat, dual):
    """Class 2 is the likelier; with one candidate its plane is the only one."""
    z = logits_fn(X)
    gaps = {k: float(z[0] - z[k]) / np.linalg.norm(W[:, k] - W[:, 0], dual) for k in (1, 2)}
    assert z[1] < z[2] < z[0] and gaps[1] < gaps[2]
    for candidates, best in ((1, gaps[2]), (2, min(gaps.values()))):
        attack = DeepFool(threat, candidates=candidates)
        adv = attack(logits_fn, jax.random.key(0), X, 0)
        np.testing.assert_allclose(threat.distance(adv, X), 1.02 * (best + 1e-5), rtol=1e-4)


@pytest.mark.parametrize("threat", [L1(), L0()])
def test_other_norms_are_refused(threat):
    with pytest.raises(ValueError, match="Linf and L2"):
        DeepFool(threat)


@pytest.mark.parametrize("bad", [{"steps": -1}, {"overshoot": -0.1}, {"candidates": 0}])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        DeepFool(**bad)
