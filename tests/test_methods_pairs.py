"""The methods that measure clean and adversarial images together, on a model linear in the pixels.

MART, ALP and the mixture, SCORE, UAT, AVmixup and LLR: each against its paper's formula.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from scipy.special import log_softmax, logsumexp, rel_entr, softmax
from tiny import CLASSES, SIZE, flat_net, net_and_batch, on_one_device

from robustjax import losses
from robustjax.attacks import BIM, PGD
from robustjax.attacks.starts import Gaussian, Zero
from robustjax.models.layers import BN, BatchNorm, Conv
from robustjax.threats import Linf
from robustjax.training import (
    ALP,
    LLR,
    MART,
    PGDAT,
    SCORE,
    TRADES,
    UAT,
    AVmixup,
    MarginBlend,
    Natural,
)
from robustjax.training.methods.base import Crafted
from robustjax.training.methods.llr import gap, tangent
from robustjax.training.methods.mart import boost


class Smooth(nn.Module):
    """A layer, BatchNorm, tanh, a layer: weights move the statistics, and nothing has a kink."""

    @nn.compact
    def __call__(self, x, bn):
        h = Conv(6, 1)(x)
        h = nn.tanh(BatchNorm()(h, bn))
        kernel = self.param("kernel", nn.initializers.normal(0.1), (h[0].size, CLASSES))
        return h.reshape(len(x), -1) @ kernel


def linear(method, shift=0.1, scale=0.1):
    """(loss, logits, logits of moved images, labels), the logits in float64."""
    params, net, batch = flat_net(method, scale)
    x_adv = jnp.clip(batch.image + shift * jnp.sign(jnp.sin(1e3 * batch.image)), 0, 1)
    loss, _ = on_one_device(lambda: method.loss(net, params, batch, Crafted(x_adv, net.stats)))
    z = [np.asarray(net.logits(params, x), np.float64) for x in (batch.image, x_adv)]
    return float(loss), *z, np.asarray(batch.label)


def cross_entropies(z, label):
    return -log_softmax(z, -1)[np.arange(SIZE), label]


def divergences(reference, z):
    return rel_entr(softmax(reference, -1), softmax(z, -1)).sum(-1)


def boosted(z, label):
    p = softmax(z, -1)
    p[np.arange(SIZE), label] = 0
    return cross_entropies(z, label) - np.log(1 - p.max(-1))


@pytest.mark.parametrize("beta", [0.0, 5.0])
def test_mart_is_its_formula_and_without_beta_the_boosted_cross_entropy(beta):
    loss, clean, moved, label = linear(MART(beta=beta))
    doubt = 1 - softmax(clean, -1)[np.arange(SIZE), label]
    want = boosted(moved, label) + beta * divergences(clean, moved) * doubt
    assert loss == pytest.approx(want.mean(), rel=1e-5)


def test_mart_forgets_examples_it_is_sure_of():
    """Where p_y(x) = 1 the KL weighs nothing; here it does for every example."""
    clean = jnp.full((CLASSES,), -50.0).at[1].set(50.0)
    assert 1 - jnp.exp(-losses.cross_entropy(clean, jnp.int32(1))) < 1e-6


def test_mart_s_logarithm_is_exact_where_the_runner_up_is_certain():
    z = jnp.array([0.0, 40.0, 3.0, -2.0])
    want = -(logsumexp([0.0, 3.0, -2.0]) - logsumexp(np.asarray(z)))
    assert float(boost(z, jnp.int32(0))) == pytest.approx(want, rel=1e-5)
    assert jnp.isfinite(jax.grad(boost)(z, jnp.int32(0))).all()


def test_alp_is_its_formula():
    loss, clean, moved, label = linear(ALP(clean=0.3, weight=0.7))
    ces = 0.3 * cross_entropies(clean, label) + 0.7 * cross_entropies(moved, label)
    assert loss == pytest.approx(ces.mean() + 0.7 * ((clean - moved) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize(("clean", "same"), [(1.0, Natural()), (0.0, PGDAT())])
def test_a_mixture_of_one_is_natural_or_adversarial_training(clean, same):
    params, net, batch = flat_net(same)
    x_adv = jnp.clip(batch.image + 0.1, 0, 1)

    def loss(method, x):
        return on_one_device(lambda: method.loss(net, params, batch, Crafted(x, {}))[0])

    alone = loss(same, batch.image if clean else x_adv)
    assert float(loss(ALP(clean=clean, weight=0.0), x_adv)) == pytest.approx(float(alone), rel=1e-6)


@pytest.mark.parametrize("fixed", [False, True])
def test_uat_supervises_labelled_examples_or_all(fixed):
    """Half of the examples are extra; with all of them extra only the KL is left."""
    method = UAT(weight=3.0, fixed=fixed)
    params, net, batch = flat_net(method)
    x_adv = jnp.clip(batch.image + 0.1, 0, 1)

    def loss(source):
        given = batch.replace(source=jnp.asarray(source))
        crafted = Crafted(x_adv, net.stats)
        return float(on_one_device(lambda: method.loss(net, params, given, crafted)[0]))

    clean, moved = (np.asarray(net.logits(params, x), np.float64) for x in (batch.image, x_adv))
    ce, kl = cross_entropies(moved, np.asarray(batch.label)), divergences(clean, moved).mean()
    extra = np.arange(SIZE) % 2
    want = ce.mean() if fixed else ce[extra == 0].mean()
    assert loss(extra) == pytest.approx(want + 3 * kl, rel=1e-5)
    none = ce.mean() if fixed else 0.0
    assert loss(np.ones(SIZE, int)) == pytest.approx(none + 3 * kl, rel=1e-5)


@pytest.mark.parametrize("slack", [0.0, 0.01])
def test_score_is_its_formula(slack):
    loss, clean, moved, label = linear(SCORE(beta=3.0, slack=slack))
    p, q, hot = softmax(clean, -1), softmax(moved, -1), np.eye(CLASSES)[label]
    far = np.maximum(((p - q) ** 2).sum(-1) - slack, 0)
    assert (far == 0).any() == (slack > 0)
    assert loss == pytest.approx((((p - hot) ** 2).sum(-1) + 3 * far).mean(), rel=1e-5)


def crafted(method, net_params_batch):
    params, net, batch = net_params_batch
    keys = jax.random.split(jax.random.key(3), SIZE)
    return on_one_device(lambda: method.perturb(net, params, batch, keys))


def test_score_climbs_the_squared_distance():
    given = params, net, batch = flat_net(SCORE())
    attack = PGD(Linf(0.05), steps=5, start=Gaussian())
    clean = jax.nn.softmax(net.logits(params, batch.image))

    def far(x):
        return float(jax.vmap(losses.brier)(net.logits(params, x), clean).mean())

    found = crafted(SCORE(attack=attack), given).x_adv
    random = jax.vmap(Linf(0.05).sample)(jax.random.split(jax.random.key(0), SIZE), batch.image)
    assert far(found) > 3 * far(random)


def test_uat_is_its_formula():
    loss, clean, moved, label = linear(UAT(weight=2.0))
    want = cross_entropies(moved, label) + 2 * divergences(clean, moved)
    assert loss == pytest.approx(want.mean(), rel=1e-5)


def test_uat_s_target_has_no_gradient_as_that_of_trades_has():
    """What the KL's clean side contributes, by differences in beta."""
    params, net, batch = flat_net(UAT())
    x_adv = jnp.clip(batch.image + 0.1, 0, 1)

    def kl(make):
        def loss(p, weight):
            return make(weight).loss(net, p, batch, Crafted(x_adv, {}))[0]

        with_, without = (
            on_one_device(lambda w=w: jax.grad(loss)(params, w)["kernel"]) for w in (1.0, 0.0)
        )
        return with_ - without

    def one_sided(p):
        clean, moved = net.logits(params, batch.image), net.logits(p, x_adv)
        return jax.vmap(losses.kl)(moved, clean).mean()

    want = jax.grad(one_sided)(params)["kernel"]
    np.testing.assert_allclose(kl(lambda w: UAT(weight=w)), want, atol=1e-6)
    assert np.abs(kl(lambda w: TRADES(beta=w)) - want).max() > 1e-3


def test_avmixup_of_all_the_image_is_the_image_and_of_none_its_vertex():
    method, x = AVmixup(), jnp.array([[[0.5, 0.99]]])
    x_adv, target, label = x + 0.02, losses.smooth(jnp.int32(1), 10, 0.3), jnp.int32(1)
    image, hot = method.mix(1.0, x, x_adv, target, label)
    np.testing.assert_allclose(image, x)
    np.testing.assert_allclose(hot, target)
    image, soft = method.mix(0.0, x, x_adv, target, label)
    np.testing.assert_allclose(image, [[[0.54, 1.0]]], rtol=1e-6)
    np.testing.assert_allclose(soft, 0.1, rtol=1e-6)


def test_avmixup_draws_a_share_for_each_example():
    given = _, _, batch = flat_net(AVmixup())
    found = crafted(AVmixup(PGD(Linf(0.01), steps=2)), given)
    hot = np.take_along_axis(np.asarray(found.extra), np.asarray(batch.label)[:, None], -1)[:, 0]
    share = (hot - 0.1) / 0.9
    assert len(np.unique(share)) == SIZE and (share > 0).all() and (share < 1).all()
    inner = ((batch.image > 0.05) & (batch.image < 0.95)).reshape(SIZE, -1)
    moved = np.where(inner, np.abs(found.x_adv - batch.image).reshape(SIZE, -1), 0).max(-1)
    np.testing.assert_allclose(moved, 0.02 * (1 - share), rtol=1e-3)


@pytest.mark.parametrize("scale", [0.1, 100.0])
def test_llr_s_gap_on_linear_logits_is_the_kl(scale):
    """g(d) = KL(p(x) || p(x + d)) exactly; it vanishes where the softmax is saturated: l linear."""
    params, net, batch = flat_net(LLR(), scale)
    x_adv = batch.image + 1e-3 * jnp.sin(1e3 * batch.image)
    (plane, _), z = on_one_device(lambda: tangent(net, params, batch)), net.logits(params, x_adv)
    clean = np.asarray(net.logits(params, batch.image), np.float64)
    found = jax.vmap(gap)((z, x_adv), plane)
    np.testing.assert_allclose(found, divergences(clean, np.asarray(z, np.float64)), atol=1e-3)
    if scale > 1:
        assert np.median(found) < 1e-3
        assert np.abs(np.asarray(plane[3])).max() > 1.0


def test_llr_is_its_formula():
    method = LLR(natural=1.5, weight=3.0, slope=0.25)
    loss, clean, moved, label = linear(method)
    p, hot = softmax(clean, -1), np.eye(CLASSES)[label]
    slope = np.abs(((moved - clean) * (p - hot)).sum(-1))
    want = 1.5 * cross_entropies(clean, label) + 3 * (divergences(clean, moved) + 0.25 * slope)
    assert loss == pytest.approx(want.mean(), rel=1e-4)


def test_llr_s_gap_is_that_of_one_network_where_there_is_dropout():
    """At the image itself it is 0, and not the distance between a network with and without it."""
    state, net, batch = net_and_batch(LLR())
    keys = jax.random.split(jax.random.key(0), SIZE)
    net = net.replace(module=net.module.clone(dropout=0.5), draws=keys)
    given = Crafted(batch.image, net.stats)
    _, aux = on_one_device(lambda: LLR().loss(net, state.params, batch, given))
    assert float(aux.metrics["gap"]) < 1e-5


def test_llr_climbs_what_the_clean_batch_s_statistics_say():
    """Running ones play no part, and images go where the loss is less linear than at random."""
    _, net, batch = net_and_batch(TRADES())
    variables = Smooth().init(jax.random.key(1), batch.image, BN())
    params = {"params": variables.pop("params")}["params"]
    method = LLR(attack=PGD(Linf(0.1), steps=2))

    @jax.jit
    def perturbed(stats):
        given = net.replace(module=Smooth(), stats=stats)
        return crafted(method, (params, given, batch)).x_adv

    other = jax.tree.map(lambda a: 3 * a + 1, variables)
    np.testing.assert_array_equal(perturbed(variables), perturbed(other))


def test_llr_sees_the_neighbourhood_by_the_clean_batch_s_statistics():
    """At the image itself there is no gap, although BatchNorm normalises by the batch there."""
    state, net, batch = net_and_batch(LLR())
    crafted = Crafted(batch.image, net.stats)
    _, aux = on_one_device(lambda: LLR().loss(net, state.params, batch, crafted))
    assert aux.metrics["gap"] < 1e-5
    assert aux.metrics["accuracy"] == aux.metrics["robust_accuracy"]


@pytest.mark.parametrize("method", [SCORE, LLR])
def test_an_attack_from_where_the_objective_is_flat_is_refused(method):
    with pytest.raises(ValueError, match="no gradient at the clean image"):
        method(attack=BIM())


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: MART(beta=-1.0), "beta"),
        (lambda: ALP(clean=2.0), "clean"),
        (lambda: ALP(weight=-1.0), "weight"),
        (lambda: SCORE(beta=-1.0), "beta"),
        (lambda: SCORE(slack=-1.0), "slack"),
        (lambda: UAT(weight=-1.0), "weight"),
        (lambda: AVmixup(gamma=-1.0), "gamma"),
        (lambda: AVmixup(vertex=2.0), "vertex"),
        (lambda: LLR(slope=-1.0), "slope"),
    ],
)
def test_bad_numbers_are_refused(make, field):
    with pytest.raises(ValueError, match=field):
        make()


@pytest.mark.parametrize("method", [MART, ALP, UAT, AVmixup])
def test_an_attack_on_no_label_is_refused(method):
    with pytest.raises(ValueError, match="the loss kl needs a target"):
        method(PGD(loss=losses.kl))


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_the_focal_loss_weighs_by_the_probability_of_the_example_s_own_label(gamma):
    loss, _, moved, label = linear(PGDAT(focal=gamma))
    ce = cross_entropies(moved, label)
    assert loss == pytest.approx(((1 - np.exp(-ce)) ** gamma * ce).mean(), rel=1e-5)


@pytest.mark.parametrize("commits", [("clean",), ("adversarial",) * 2, ("adversarial", "natural")])
def test_a_list_of_commits_has_the_adversarial_forward_once(commits):
    with pytest.raises(ValueError, match="commits must name the adversarial forward once"):
        PGDAT(commits=commits)


@pytest.mark.parametrize("margin", ["dlr", "margin"])
def test_tied_logits_do_not_cost_the_blend_its_weights(margin):
    """A head of zeros ties them all: the authors' divisor makes a gradient of 1e11 of it."""
    method = MarginBlend(share=0.8, loss_on_margins=margin)
    params, net, batch = flat_net(method, 0.1)
    params = jax.tree.map(jnp.zeros_like, params)
    net = net.replace(progress=jnp.float32(1.0))
    found = Crafted(batch.image, net.stats)
    grads = on_one_device(lambda: method.grads(net, params, batch, found).grads)
    assert 0 < max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)) < 100


def test_the_blend_goes_from_cross_entropy_to_a_margin():
    """Half way through training, b = share / 2; crafting climbs the same function."""
    method = MarginBlend(PGD(Linf(0.1), steps=1, start=Zero()), share=0.8, loss_on_margins="margin")
    params, net, batch = flat_net(method, 0.1)
    net = net.replace(progress=jnp.float32(0.5))
    keys = jax.random.split(jax.random.key(0), SIZE)
    crafted = on_one_device(lambda: method.perturb(net, params, batch, keys))
    loss, _ = on_one_device(lambda: method.loss(net, params, batch, crafted))
    z, label = np.asarray(net.logits(params, crafted.x_adv), np.float64), np.asarray(batch.label)
    wrong = np.where(np.arange(CLASSES) == label[:, None], -np.inf, z).max(1)
    ahead = wrong - z[np.arange(SIZE), label]
    want = 0.6 * cross_entropies(z, label) + 0.4 * ahead
    assert float(loss) == pytest.approx(want.mean(), rel=1e-4)

    def climbed(x):
        logits = net.logits(params, x)
        ce = jax.vmap(losses.cross_entropy)(logits, batch.label)
        return (0.6 * ce + 0.4 * jax.vmap(losses.margin)(logits, batch.label)).sum()

    up = jnp.clip(batch.image + 0.1 * jnp.sign(jax.grad(climbed)(batch.image)), 0, 1)
    np.testing.assert_allclose(crafted.x_adv, up, atol=1e-6)


@pytest.mark.parametrize(
    "method", [TRADES(), ALP(), SCORE(), LLR()], ids=lambda m: type(m).__name__
)
def test_nothing_is_held_fixed_in_the_gradient(method):
    """Along the gradient it is the loss's slope, whatever the batch's statistics do."""
    _, net, batch = net_and_batch(TRADES())
    variables = Smooth().init(jax.random.key(1), batch.image, BN())
    params = variables.pop("params")
    net = net.replace(module=Smooth(), stats=variables)
    x_adv = jnp.clip(batch.image + 0.1 * jnp.sign(jnp.sin(1e3 * batch.image)), 0, 1)
    found = Crafted(x_adv, net.stats)

    def loss(params):
        return on_one_device(lambda: method.loss(net, params, batch, found)[0])

    @jax.jit
    def slopes():
        grads = on_one_device(lambda: method.grads(net, params, batch, found).grads)
        length = optax.tree.norm(grads)

        def along(t):
            return loss(jax.tree.map(lambda w, g: w + t * g / length, params, grads))

        h = 5e-3
        return length, (along(h) - along(-h)) / (2 * h)

    length, slope = slopes()
    assert slope == pytest.approx(float(length), rel=5e-3)
