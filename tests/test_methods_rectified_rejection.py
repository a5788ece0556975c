"""Rectified rejection: its second term by hand, what of it has a gradient, what it can wrap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, softmax, xlogy
from tiny import net_and_batch, on_one_device

from robustjax.attacks import PGD
from robustjax.threats import Linf
from robustjax.training import AWP, HE, PGDAT, TRADES, YOPO, AdaNet, Free, RectifiedRejection
from robustjax.training.methods.base import Crafted

INNER = PGDAT(PGD(Linf(0.05), steps=1))
LOGITS = np.random.default_rng(0).normal(0, 2, (20, 4)).astype(np.float32)
LABEL = np.arange(20) % 4
AUXILIARY = np.linspace(-4, 4, 20, dtype=np.float32)
RIGHT = LOGITS.argmax(-1) == LABEL


def test_the_term_is_the_cross_entropy_of_the_two_confidences():
    found = jax.vmap(RectifiedRejection(INNER).term)(LOGITS, AUXILIARY, LABEL)
    p = softmax(LOGITS.astype(float), -1)
    rectified, true = p.max(-1) * expit(AUXILIARY), p[np.arange(20), LABEL]
    expected = -xlogy(true, rectified) - xlogy(1 - true, 1 - rectified)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("stopped", ["right", "target", "all", "none"])
def test_what_has_a_gradient(stopped):
    """Central differences of the term, in which what is stopped is held."""
    method = RectifiedRejection(INNER, stopped=stopped)
    of_logits, of_head = jax.vmap(jax.grad(method.term, (0, 1)))(LOGITS, AUXILIARY, LABEL)
    z, label = (
        LOGITS.astype(float),
        np.arange(20),
    )
    label = LABEL
    held = {"right": RIGHT, "target": RIGHT & False, "all": RIGHT | True, "none": RIGHT & False}

    def term(moved, head):
        p, q = softmax(z, -1), softmax(moved, -1)
        confidence = np.where(held[stopped], p.max(-1), q.max(-1))
        true = (q if stopped == "none" else p)[np.arange(20), label]
        rectified = confidence * expit(head)
        return -xlogy(true, rectified) - xlogy(1 - true, 1 - rectified)

    for k in range(4):
        step = 1e-5 * np.eye(4)[k]
        slope = (term(z + step, AUXILIARY) - term(z - step, AUXILIARY)) / 2e-5
        np.testing.assert_allclose(of_logits[:, k], slope, atol=2e-4)
    head = AUXILIARY.astype(float)
    slope = (term(z, head + 1e-5) - term(z, head - 1e-5)) / 2e-5
    np.testing.assert_allclose(of_head, slope, atol=2e-4)


def loss_of(method):
    state, net, batch = net_and_batch(method)
    crafted = Crafted(jnp.clip(batch.image + 0.1, 0, 1), net.stats)
    return state, on_one_device(lambda: method.loss(net, state.params, batch, crafted))


def test_the_inner_loss_and_its_statistics_are_untouched():
    state, (plain, inner) = loss_of(TRADES())
    _, (none, _) = loss_of(RectifiedRejection(TRADES(), weight=0.0))
    whole_state, (whole, outer) = loss_of(RectifiedRejection(TRADES(), weight=2.0))
    np.testing.assert_allclose(none, plain, rtol=1e-6)
    np.testing.assert_allclose(whole, plain + 2 * outer.metrics["rejection"], rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, state.params["body"], whole_state.params["body"])
    for a, b in zip(
        jax.tree.leaves(inner.stats["batch_stats"]["body"]),
        jax.tree.leaves(outer.stats["batch_stats"]["body"]),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    before, after = (s["batch_stats"]["auxiliary"] for s in (whole_state.stats, outer.stats))
    assert not np.allclose(before["norm"]["mean"], after["norm"]["mean"])


def test_what_makes_its_own_gradients_cannot_be_wrapped():
    for inner in (AWP(INNER), YOPO(), Free(), AdaNet(AWP(INNER)), HE(Free())):
        with pytest.raises(ValueError, match=r"cannot wrap .*, which makes its own gradients"):
            RectifiedRejection(inner)
    for inner in (HE(INNER), AdaNet(TRADES())):
        assert RectifiedRejection(inner).model == inner.model | {"auxiliary": True}
    assert AWP(RectifiedRejection(INNER)).model["auxiliary"]
    with pytest.raises(ValueError, match="stopped must be one of right, all, target, none"):
        RectifiedRejection(INNER, stopped="wrong")
