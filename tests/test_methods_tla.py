"""TLA: what it mines, and its triplets against the paper's formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from tiny import SIZE, Flat, flat_net, on_one_device

from robustjax.attacks import PGD
from robustjax.threats import Linf
from robustjax.training import TLA
from robustjax.training.methods.tla import negative_and_positive


class Featured(Flat):
    """The linear model; its logits are its features too."""

    def features(self, x, bn):
        return self(x, bn)

    def both(self, x, bn):
        return self(x, bn), self(x, bn)


@pytest.fixture(scope="module")
def crafted():
    """(method, params, net, batch, crafted), two images of a class of their own."""
    method = TLA(PGD(Linf(0.05), steps=2), weight=1.5, margin=0.2, norm=0.01)
    params, net, batch = flat_net(method)
    net = net.replace(module=Featured())
    batch = batch.replace(label=batch.label.at[5].set(7).at[9].set(8))
    keys = jax.random.split(jax.random.key(3), SIZE)
    return (
        method,
        params,
        net,
        batch,
        on_one_device(lambda: method.perturb(net, params, batch, keys)),
    )


def cosines(a, b):
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_mined_images_are_the_hardest_of_another_class_and_another_of_the_same(crafted):
    _, params, net, batch, found = crafted
    label, x = np.asarray(batch.label), np.asarray(batch.image)
    noisy, negative, positive = map(np.asarray, found.extra)
    z, anchor = (np.asarray(net.logits(params, i)) for i in (batch.image, found.x_adv))
    similar = np.where(label[:, None] == label, -2, cosines(anchor[:, None], z[None]))
    np.testing.assert_array_equal(negative, x[similar.argmax(-1)])
    places = np.array([[(p == image).all() for image in x].index(True) for p in positive])
    np.testing.assert_array_equal(label[places], label)
    alone = np.isin(np.arange(SIZE), (5, 9))
    np.testing.assert_array_equal(places == np.arange(SIZE), alone)
    assert len(np.unique(places)) > SIZE / 3
    far = np.abs(noisy - x).max((1, 2, 3))
    assert (far <= 0.05 + 1e-6).all() and (far > 0.04).all()


def test_positives_are_drawn_alike():
    labels = jnp.array([0, 1, 0, 0, 1])

    def positive(key):
        return negative_and_positive(key, 2, jnp.ones(2), jnp.int32(0), labels, jnp.ones((5, 2)))[1]

    drawn = np.asarray(jax.vmap(positive)(jax.random.split(jax.random.key(0), 400)))
    counts = np.bincount(drawn, minlength=5)
    assert counts[[0, 3]].sum() == 400 and abs(counts[0] - 200) < 50


def test_opposite_features_are_as_near_as_equal_ones():
    anchor, across, opposite = jnp.array([[[1.0, 0.0]], [[0.0, 3.0]], [[-2.0, 0.0]]])
    method = TLA(margin=0.2, norm=0.0)
    np.testing.assert_allclose(method.triplet(anchor, across, opposite), 1.2, rtol=1e-6)
    np.testing.assert_allclose(method.triplet(anchor, opposite, across), 0.0)


def test_the_loss_is_its_formula(crafted):
    method, params, net, batch, found = crafted
    loss, _ = on_one_device(lambda: method.loss(net, params, batch, found))
    images = (found.x_adv, *found.extra)
    a, own, n, p = (np.asarray(net.logits(params, i), np.float64) for i in images)

    def triplet(p):
        apart = np.abs(cosines(a, n)) - np.abs(cosines(a, p)) + 0.2
        return np.maximum(apart, 0).mean() + 0.01 * (a**2 + p**2 + n**2).mean()

    ce = -(np.asarray(batch.target) * log_softmax(a, -1)).sum(-1).mean()
    assert float(loss) == pytest.approx(ce + 1.5 * (triplet(own) + triplet(p)), rel=1e-4)


@pytest.mark.parametrize("field", ["weight", "margin", "norm"])
def test_bad_numbers_are_refused(field):
    with pytest.raises(ValueError, match=field):
        TLA(**{field: -1.0})
