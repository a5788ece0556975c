"""Hypersphere embedding as a wrapper: where its margin is, and where it is not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax
from tiny import CLASSES, SIZE, flat_net, on_one_device

from robustjax.attacks import PGD
from robustjax.attacks.starts import Gaussian
from robustjax.threats import Linf
from robustjax.training import ALP, AWP, HE, LGM, METHODS, MMC, MMLDA, PGDAT, TRADES, Free
from robustjax.training.methods.base import Crafted


def measured(method):
    """(loss, logits, logits of moved images, one-hot labels), the logits in float64."""
    params, net, batch = flat_net(method.inner)
    x_adv = jnp.clip(batch.image + 0.1, 0, 1)
    loss, _ = on_one_device(lambda: method.loss(net, params, batch, Crafted(x_adv, net.stats)))
    z = [np.asarray(net.logits(params, x), np.float64) for x in (batch.image, x_adv)]
    return float(loss), *z, np.eye(CLASSES)[np.asarray(batch.label)]


def cross_entropy(z, hot):
    return -(hot * log_softmax(z, -1)).sum(-1)


def test_the_margin_is_taken_from_the_label_s_logit():
    loss, _, moved, hot = measured(HE(PGDAT(), scale=5.0, margin=0.3))
    assert loss == pytest.approx(cross_entropy(moved - 1.5 * hot, hot).mean(), rel=1e-5)


def test_the_kl_of_trades_has_no_margin():
    loss, clean, moved, hot = measured(HE(TRADES(beta=2.0), scale=5.0, margin=0.3))
    kl = rel_entr(softmax(clean, -1), softmax(moved, -1)).sum(-1)
    want = cross_entropy(clean - 1.5 * hot, hot) + 2 * kl
    assert loss == pytest.approx(want.mean(), rel=1e-5)


def test_the_pairing_is_that_of_the_cosines():
    """ALP's square is of the scaled logits, so its published weight is over the scale's square."""
    method = METHODS["alp-he"]
    loss, clean, moved, hot = measured(method)
    shift = method.scale * method.margin * hot
    want = 0.5 * cross_entropy(clean - shift, hot) + 0.5 * cross_entropy(moved - shift, hot)
    pairing = 0.5 * ((clean / 20 - moved / 20) ** 2).mean()
    assert method.scale == 20 and loss == pytest.approx(want.mean() + pairing, rel=1e-5)


def test_without_a_margin_it_is_the_inner_method_and_attacks_never_see_one():
    params, net, batch = flat_net(PGDAT())
    attack = PGD(Linf(0.05), steps=2, start=Gaussian())

    def crafted(method):
        keys = jax.random.split(jax.random.key(3), SIZE)
        return on_one_device(lambda: method.perturb(net, params, batch, keys))

    plain = crafted(PGDAT(attack))
    np.testing.assert_array_equal(crafted(HE(PGDAT(attack), margin=0.5)).x_adv, plain.x_adv)

    def gradient(method):
        return on_one_device(lambda: method.grads(net, params, batch, plain).grads)["kernel"]

    np.testing.assert_array_equal(gradient(HE(PGDAT(), margin=0.0)), gradient(PGDAT()))
    assert np.abs(gradient(HE(PGDAT())) - gradient(PGDAT())).max() > 1e-3


@pytest.mark.parametrize("wrap", [lambda m: AWP(HE(m)), lambda m: HE(AWP(m))])
def test_wrappers_may_be_stacked_either_way(wrap):
    method = wrap(TRADES(attack=PGD(Linf(0.05), steps=2, start=Gaussian())))
    assert method.model == {"head": "cosine", "scale": 15.0}
    params, net, batch = flat_net(TRADES())
    found = Crafted(jnp.clip(batch.image + 0.1, 0, 1), net.stats)
    g = on_one_device(lambda: method.grads(net, params, batch, found))
    moved = g.anchor["kernel"] - params["kernel"]
    assert jnp.linalg.norm(moved) == pytest.approx(
        5e-3 * float(jnp.linalg.norm(params["kernel"])), rel=1e-3
    )
    expected = on_one_device(
        lambda: HE(TRADES()).grads(net, g.anchor, batch, found).grads["kernel"]
    )
    np.testing.assert_allclose(g.grads["kernel"], expected, rtol=1e-5, atol=1e-7)


def test_what_has_its_own_update_is_refused_by_awp_inside_he_too():
    with pytest.raises(ValueError, match="AWP cannot wrap Free"):
        AWP(HE(Free())).update(None, None, None, None, None)


@pytest.mark.parametrize("field", ["scale", "margin"])
def test_bad_numbers_are_refused(field):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(HE(), **{field: -1.0})
    with pytest.raises(ValueError, match="inner must be a Method"):
        HE(PGD())


@pytest.mark.parametrize("inner", [MMC(), MMLDA(), AWP(LGM()), HE()])
def test_a_method_with_a_head_of_its_own_is_refused(inner):
    with pytest.raises(ValueError, match=f"{type(inner).__name__} needs a head of its own, '"):
        HE(inner)


def test_alp_is_half_and_half():
    assert METHODS["mixture"] == ALP(weight=0.0) and ALP().clean == 0.5
