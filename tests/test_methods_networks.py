"""The methods with a network more, LBGAT and HAT, against their formulas; AdaNet's wish."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.special import log_softmax, rel_entr, softmax
from tiny import CLASSES, SHAPE, SIZE, Flat, flat_net, helper_run, net_and_batch, on_one_device

from robustjax import models
from robustjax.attacks import BIM, PGD
from robustjax.attacks.starts import Gaussian
from robustjax.threats import Linf
from robustjax.training import HAT, HE, LBGAT, TRADES, AdaNet, Free
from robustjax.training.methods.base import Crafted, Method
from robustjax.training.net import Net

NEAR = PGD(Linf(0.05), steps=2, start=Gaussian())


class Pair(Flat):
    """The linear model, and a teacher of other weights."""

    @nn.compact
    def taught(self, x, bn):
        kernel = self.param("teacher", nn.initializers.normal(), (x[0].size, CLASSES))
        return x.reshape(len(x), -1) @ kernel


class Halted(Net):
    """A net through whose teacher no gradient flows."""

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        return jax.lax.stop_gradient(out) if kwargs.get("method") == "taught" else out


def given(method):
    """(params of both, net, batch, images that moved)."""
    params, net, batch = flat_net(TRADES())
    teacher = 0.1 * jax.random.normal(jax.random.key(6), params["kernel"].shape)
    params, net = params | {"teacher": teacher}, net.replace(module=Pair())
    return params, net, batch, Crafted(jnp.clip(batch.image + 0.1, 0, 1), {})


def logits(params, x):
    return np.asarray(x, np.float64).reshape(SIZE, -1) @ np.asarray(params, np.float64)


def cross_entropies(z, hot):
    return -(hot * log_softmax(z, -1)).sum(-1)


def divergences(reference, z):
    return rel_entr(softmax(reference, -1), softmax(z, -1)).sum(-1)


@pytest.mark.parametrize("beta", [0.0, 3.0])
def test_lbgat_is_its_formula(beta):
    method = LBGAT(beta=beta)
    params, net, batch, found = given(method)
    loss, aux = on_one_device(lambda: method.loss(net, params, batch, found))
    clean, moved = (logits(params["kernel"], x) for x in (batch.image, found.x_adv))
    guide = logits(params["teacher"], batch.image)
    ce = cross_entropies(guide, np.asarray(batch.target))
    want = ((moved - guide) ** 2).mean() + (ce + beta * divergences(clean, moved)).mean()
    assert float(loss) == pytest.approx(want, rel=1e-5)
    right = (guide.argmax(-1) == np.asarray(batch.label)).mean()
    assert float(aux.metrics["teacher_accuracy"]) == pytest.approx(right)


@pytest.mark.parametrize("method", [LBGAT(), HAT(helper_run())])
def test_statistics_are_committed_in_the_authors_order(method):
    """LBGAT: adversarial, clean, the teacher's own; HAT: clean, adversarial, beyond."""
    state, net, batch = net_and_batch(method)
    x_adv = jnp.clip(batch.image + 0.1, 0, 1)
    found = Crafted(x_adv, net.stats, batch.label)

    def by_hand():
        if isinstance(method, LBGAT):
            passes = [(x_adv, "__call__"), (batch.image, "__call__"), (batch.image, "taught")]
        else:
            beyond = batch.image + 2 * (x_adv - batch.image)
            passes = [(x, "__call__") for x in (batch.image, x_adv, beyond)]
        stats = net.stats
        for x, which in passes:
            _, stats = net.forward(state.params, x, "commit", stats, method=which)
        return stats

    @jax.jit
    def both():
        loss = on_one_device(lambda: method.loss(net, state.params, batch, found)[1].stats)
        return loss, on_one_device(by_hand)

    for a, b in zip(*map(jax.tree.leaves, both()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_halted_teacher_changes_the_teacher_s_gradient_alone():
    method = LBGAT(beta=3.0)
    params, net, batch, found = given(method)

    def gradient(net):
        return on_one_device(lambda: method.grads(net, params, batch, found).grads)

    free = gradient(net)
    halted = gradient(Halted(net.stats, net.progress, net.module))
    np.testing.assert_array_equal(free["kernel"], halted["kernel"])
    assert np.abs(free["teacher"] - halted["teacher"]).max() > 1e-3
    assert not halted["teacher"].any()


def test_the_attack_of_lbgat_and_hat_is_that_of_trades():
    params, net, batch, _ = given(LBGAT())
    net = net.replace(frozen=lambda x: x.reshape(SIZE, -1)[:, :CLASSES])

    def crafted(method):
        keys = jax.random.split(jax.random.key(3), SIZE)
        return on_one_device(lambda: method.perturb(net, params, batch, keys))

    want = crafted(TRADES(attack=NEAR)).x_adv
    np.testing.assert_array_equal(crafted(LBGAT(attack=NEAR)).x_adv, want)
    found = crafted(HAT("run", attack=NEAR))
    np.testing.assert_array_equal(found.x_adv, want)
    np.testing.assert_array_equal(found.extra, want.reshape(SIZE, -1)[:, :CLASSES].argmax(-1))


def test_hat_is_its_formula():
    method = HAT("run", beta=2.0, gamma=0.7, reach=3.0)
    params, net, batch = flat_net(TRADES())
    label = (batch.label + 1) % CLASSES
    found = Crafted(jnp.clip(batch.image + 0.3, 0, 1), {}, label)
    loss, _ = on_one_device(lambda: method.loss(net, params, batch, found))
    beyond = batch.image + 3 * (found.x_adv - batch.image)
    assert beyond.max() > 1
    clean, moved, far = (logits(params["kernel"], x) for x in (batch.image, found.x_adv, beyond))
    each = cross_entropies(clean, np.asarray(batch.target)) + 2 * divergences(clean, moved)
    each += 0.7 * cross_entropies(far, np.eye(CLASSES)[np.asarray(label)])
    assert float(loss) == pytest.approx(each.mean(), rel=1e-5)


def test_hat_without_its_term_is_trades():
    params, net, batch = flat_net(TRADES())
    found = Crafted(jnp.clip(batch.image + 0.1, 0, 1), {}, batch.label)

    def loss(method):
        return float(on_one_device(lambda: method.loss(net, params, batch, found))[0])

    assert loss(HAT("run", beta=6.0, gamma=0.0)) == pytest.approx(loss(TRADES()), rel=1e-6)


def test_the_helper_is_the_run_s_network():
    helper = HAT(helper_run()).init_frozen(SHAPE, CLASSES)
    x = jax.random.uniform(jax.random.key(0), (2, *SHAPE))
    np.testing.assert_array_equal(helper(x), models.load(helper_run())[0](x))
    assert Method.init_frozen(TRADES(), SHAPE, CLASSES) == ()
    wrapped = HE(HAT(helper_run())).init_frozen(SHAPE, CLASSES)
    np.testing.assert_array_equal(helper(x), wrapped(x))


@pytest.mark.parametrize(
    ("helper", "classes", "message"),
    [("", CLASSES, "HAT needs a helper"), (None, 7, "not 7 of .* train one on the same data")],
)
def test_a_helper_that_is_none_or_another_s_is_refused(helper, classes, message):
    method = HAT(helper_run() if helper is None else helper)
    with pytest.raises(ValueError, match=message):
        method.init_frozen(SHAPE, classes)


@pytest.mark.parametrize("inner", [TRADES(), Free(), LBGAT("cnn")])
def test_adanet_asks_for_adaptive_normalisation_and_nothing_else(inner):
    method = AdaNet(inner)
    assert method.model == inner.model | {"adaptive_norm": True}
    assert method.craft_cost == inner.craft_cost and method.loss_cost == inner.loss_cost


@pytest.mark.parametrize("method", [LBGAT, HAT])
def test_bad_settings_are_refused(method):
    with pytest.raises(ValueError, match="beta"):
        method(beta=-1.0)
    with pytest.raises(ValueError, match="no gradient at the clean image"):
        method(attack=BIM())


@pytest.mark.parametrize("field", ["gamma", "reach"])
def test_bad_numbers_of_hat_are_refused(field):
    with pytest.raises(ValueError, match=field):
        HAT(**{field: -1.0})
