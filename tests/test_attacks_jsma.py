"""JSMA: the right components in the right order, and the map of the paper in NumPy."""

import jax
import numpy as np
import pytest

from robustjax.attacks import JSMA, perturb
from robustjax.attacks.targets import TrueLabel
from robustjax.losses import margin
from robustjax.threats import L0

RNG = np.random.default_rng(0)
SHAPE, SIZE, N, K = (4, 3, 2), 24, 8, 4
IMAGES = RNG.uniform(0.2, 0.8, (N, *SHAPE)).astype(np.float32)
HIDDEN = RNG.normal(size=(SIZE, 16)).astype(np.float32)
HEAD = RNG.normal(size=(16, K)).astype(np.float32)
W = RNG.normal(size=(SIZE, 2)).astype(np.float32)


def net(weights, x):
    hidden, head = weights
    return jax.numpy.tanh(x.reshape(len(x), -1) @ hidden) @ head


def linear(w, x):
    return x.reshape(len(x), -1) @ w


MODEL = jax.tree_util.Partial(net, (HIDDEN, HEAD))


def never(output, y):
    return jax.numpy.asarray(False)


def run(attack, model=MODEL, labels=None, **rest):
    labels = np.asarray(model(IMAGES)).argmax(-1) if labels is None else labels
    return perturb(attack, model, jax.random.key(0), IMAGES, labels, **rest)


def changed(z):
    return (z != IMAGES).reshape(N, -1)


@pytest.mark.parametrize("theta", [1.0, -1.0])
def test_components_change_in_the_order_of_their_gain(theta):
    """On a linear model of two classes: the largest gains towards class 1, and no others."""
    model, last = jax.tree_util.Partial(linear, W), np.zeros((N, SIZE), bool)
    gain = np.sign(theta) * (W[:, 1] - W[:, 0])
    order = np.argsort(-gain)[: (gain > 0).sum()]
    assert len(order) > 8
    for n in range(1, 6):
        attack = JSMA(L0(np.inf), theta=theta, gamma=n / SIZE, success=never)
        z = run(attack, model, labels=np.zeros(N, np.int32), targets=np.ones(N, np.int32))
        assert (changed(z).sum(1) == n).all() and changed(z)[:, order[:n]].all()
        assert (last <= changed(z)).all()
        last = changed(z)
    attack = JSMA(L0(np.inf), theta=theta, gamma=1.0, success=never)
    z = run(attack, model, labels=np.zeros(N, np.int32), targets=np.ones(N, np.int32))
    assert (changed(z) == (gain > 0)[None]).all()  # then it is stuck: nothing else helps


def saliency(image, target):
    """dt and do of the softmax in float64, one row per component."""
    hidden, head = HIDDEN.astype(np.float64), HEAD.astype(np.float64)
    h = np.tanh(image.ravel().astype(np.float64) @ hidden)
    p = np.exp(h @ head - (h @ head).max())
    p /= p.sum()
    logits = (hidden * (1 - h**2)) @ head
    jacobian = p * (logits - (logits @ p)[:, None])
    dt = jacobian[:, target]
    return dt, jacobian.sum(1) - dt


@pytest.mark.parametrize("pair", [False, True])
def test_it_is_the_map_of_the_paper(pair):
    """Candidates dt > 0 > do, score dt |do|, one by one or by pairs, written out."""
    labels = np.asarray(MODEL(IMAGES)).argmax(-1)
    targets = np.asarray(MODEL(IMAGES)).argmin(-1)
    z = run(JSMA(L0(np.inf), gamma=3 / SIZE, pair=pair, success=never), labels=labels)
    for x, t, got in zip(IMAGES, targets, z, strict=True):
        image = x.ravel().copy()
        for _ in range(3):
            dt, do = saliency(image, t)
            free = image < 1
            if pair:
                pairs = [(i, j) for i in range(SIZE) for j in range(i) if free[i] and free[j]]
                scores = [
                    (dt[i] + dt[j]) * abs(do[i] + do[j]) if dt[i] + dt[j] > 0 else 0
                    for i, j in pairs
                ]
                image[list(pairs[int(np.argmax(scores))])] = 1
            else:
                image[np.argmax(np.where(free & (dt > 0) & (do < 0), dt * abs(do), 0))] = 1
        np.testing.assert_array_equal(got.ravel(), image)


@pytest.mark.parametrize("pair", [False, True])
def test_it_stays_in_the_ball_and_stops_at_success(pair):
    labels = np.asarray(MODEL(IMAGES)).argmax(-1)
    labels[0] = (labels[0] + 1) % K
    z = run(JSMA(L0(2.0), theta=0.3, gamma=1.0, pair=pair), labels=labels)
    pixels = (z != IMAGES).any(-1).sum((1, 2))
    assert pixels.max() == 2 and pixels[0] == 0  # wrong already: nothing to do


def test_a_confident_softmax_does_not_hide_the_map():
    """F_t is zero in float32; the order of its gradients is not."""
    sharp = jax.tree_util.Partial(net, (HIDDEN, 1e3 * HEAD))
    attack = JSMA(L0(np.inf), gamma=1.0)
    labels = np.asarray(sharp(IMAGES)).argmax(-1)
    won = np.asarray(sharp(run(attack, sharp, labels))).argmax(-1) != labels
    assert won.mean() > 0.7


def test_any_loss_and_any_aim():
    labels = np.asarray(MODEL(IMAGES)).argmax(-1)
    z = run(JSMA(L0(np.inf), gamma=1.0, loss=margin, target=TrueLabel()))
    won = np.asarray(MODEL(z)).argmax(-1) != labels
    assert won.mean() > 0.7
    assert changed(z)[won].sum() <= changed(run(JSMA(L0(np.inf), gamma=1.0)))[won].sum()


def test_any_order_and_batch_size_give_the_same_bits():
    labels, order = np.asarray(MODEL(IMAGES)).argmax(-1), RNG.permutation(N)
    attack, key = JSMA(gamma=1.0, theta=0.3), jax.random.key(0)
    part = perturb(attack, MODEL, key, IMAGES[order], labels[order], indices=order, batch_size=4)
    np.testing.assert_array_equal(part, run(attack)[order])


def test_zero_gradients_change_nothing():
    constant = jax.tree_util.Partial(linear, np.zeros((SIZE, 3), np.float32))
    np.testing.assert_array_equal(run(JSMA(gamma=1.0), constant, np.zeros(N, np.int32)), IMAGES)


@pytest.mark.parametrize("bad", [{"theta": 2.0}, {"gamma": -0.1}, {"target": "best"}])
def test_bad_input_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        JSMA(**bad)
