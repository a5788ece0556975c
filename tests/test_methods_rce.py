"""Reverse cross-entropy as a method: its sign, its equivalence to the paper's form, its card."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax

from robustjax import cli, data, models
from robustjax.data import Augment
from robustjax.training import METHODS, RCE, Optimizer, card


def trained(method, lr, folder):
    """Test logits, and labels, of a small network trained on digits."""
    out = folder / method
    flags = ["--width", "4", "--epochs", "6", "--batch-size", "64", "--schedule", "one-cycle"]
    cli.main(["train", method, "--data", "digits", "--lr", lr, "--out", str(out), *flags])
    logits_fn = models.load(out)[0]
    test = data.load("digits", "test")
    return np.asarray(logits_fn(data.to_float(test.images)), np.float64), test.labels


@pytest.fixture(scope="module")
def logits(tmp_path_factory):
    """Method -> (logits, labels)."""
    folder = tmp_path_factory.mktemp("runs")
    return {name: trained(name, lr, folder) for name, lr in (("rce", "1.0"), ("natural", "0.1"))}


def wrong_class_entropy(logits):
    """Of the probabilities of all classes but the predicted one (non-ME), at most log(K - 1)."""
    wrong = np.arange(logits.shape[1]) != logits.argmax(-1)[:, None]
    log = log_softmax(logits[wrong].reshape(len(logits), -1), -1)
    return -(np.exp(log) * log).sum(-1)


def test_the_largest_logit_is_the_class_and_with_the_sign_forgotten_it_never_is(logits):
    h, labels = logits["rce"]
    assert (h.argmax(-1) == labels).mean() > 0.9
    assert (h.argmin(-1) == labels).mean() < 0.01


def test_the_wrong_classes_are_nearly_equally_likely_as_they_are_not_under_cross_entropy(logits):
    reverse, plain = (wrong_class_entropy(logits[name][0]) for name in ("rce", "natural"))
    assert np.log(9) - np.median(reverse) < 0.02
    assert np.log(9) - np.median(plain) > 0.5
    assert (logits["natural"][0].argmax(-1) == logits["natural"][1]).mean() > 0.9


def test_a_linear_layer_of_test_logits_is_the_paper_s_negated_layer():
    """Trained on softmax(Z) and negated for testing, or as here: the same weights but the sign."""
    rng = np.random.default_rng(0)
    z, label = jnp.asarray(rng.normal(size=(20, 6))), jnp.arange(20) % 4
    method, tx = RCE(), Optimizer(weight_decay=2e-2).transform()

    def paper(w):
        log = jax.nn.log_softmax(z @ w)
        wrong = jnp.arange(4)[None] != label[:, None]
        return -jnp.sum(jnp.where(wrong, log, 0)) / 3 / len(z)

    def ours(w):
        return jax.vmap(method.criterion)(z @ w, label).mean()

    @jax.jit
    def descend(w, state, which):
        grads = jax.lax.cond(which, jax.grad(paper), jax.grad(ours), w)
        step, state = tx.update(grads, state, w)
        return optax.apply_updates(w, jax.tree.map(lambda s: -0.5 * s, step)), state

    start = jnp.asarray(rng.normal(size=(6, 4)))
    weights = {True: start, False: -start}
    for which, w in weights.items():
        state = tx.init(w)
        for _ in range(30):
            w, state = descend(w, state, which)
        weights[which] = w
    np.testing.assert_allclose(weights[True], -weights[False], atol=1e-5)
    assert float(jnp.abs(weights[True] - start).max()) > 0.1


def test_it_is_a_member_with_a_linear_head_on_the_pooled_features():
    assert METHODS["rce"].model == {"head": "linear", "feature_dim": None}
    assert METHODS["rce"].on_clean and not RCE("untargeted").on_clean


def test_its_card():
    """90,000 steps of 128 CIFAR images; decay of every kernel and nothing else."""
    recipe = card("rce", "repo").recipe
    assert card("rce").recipe is recipe
    assert recipe.epochs * (50_000 // recipe.batch_size) == pytest.approx(90_000, rel=2e-3)
    steps = [2e-4, 39_999, 40_001, 60_001, 80_001, 90_000]
    rates = [recipe.lr * recipe.schedule(jnp.float32(s / 90_000)) for s in steps]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.001, 0.0001, 0.0001], rtol=1e-5)
    assert recipe.augment == Augment(pad=2, mode="zero", flip=True)
    params = {
        "conv": {"kernel": jnp.ones((3, 3, 1, 1))},
        "fc": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    }
    tx = recipe.optimizer.transform()
    decay, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    for layer in decay.values():
        assert (layer["kernel"] == np.float32(2e-4)).all()
    assert not decay["fc"]["bias"].any()
