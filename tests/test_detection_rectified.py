"""The rectified confidence: its formula, what it needs, and that attacks see through it."""

import jax
import numpy as np
import pytest
from scipy.special import expit, softmax
from watched import IMAGES, LABELS, LOGITS, MODEL, OUTPUT

from robustjax.attacks import PGD, perturb
from robustjax.detection import Confidence, JointPGD, Rectified, scores, with_score
from robustjax.losses import margin
from robustjax.threats import Linf


def test_the_score_is_the_odds_of_the_product():
    fitted = Rectified().fit(MODEL, IMAGES, LABELS)
    rectified = softmax(LOGITS, -1).max(-1) * expit(OUTPUT["auxiliary"].astype(float))
    assert OUTPUT["auxiliary"].std() > 0.1
    found = scores(fitted, IMAGES)
    np.testing.assert_allclose(jax.nn.sigmoid(found), rectified, atol=1e-5)
    assert (found < scores(Confidence().fit(MODEL, IMAGES, LABELS), IMAGES)).all()


def test_joint_pgd_raises_it_where_it_fools():
    watched = with_score(Rectified().fit(MODEL, IMAGES, LABELS))
    few, key = IMAGES[:12], jax.random.key(0)
    results = {}
    threat, steps = Linf(0.2), 20
    pgd = PGD(threat, steps, loss=margin)
    for name, attack in (("oblivious", pgd), ("joint", JointPGD(threat, steps))):
        results[name] = jax.jit(watched)(perturb(attack, watched, key, few, LABELS[:12]))
    fooled = [out["logits"].argmax(-1) != LABELS[:12] for out in results.values()]
    both = fooled[0] & fooled[1]
    assert both.sum() >= 4
    rise = results["joint"]["score"] - results["oblivious"]["score"]
    assert rise[both].mean() > 0


def test_a_model_without_the_head_is_told_what_to_do():
    fitted = Rectified().fit(lambda images: MODEL(images)["logits"], IMAGES, LABELS)
    with pytest.raises(ValueError, match="no auxiliary head; train one by the method rr"):
        scores(fitted, IMAGES)
