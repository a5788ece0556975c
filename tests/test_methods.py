"""What several methods share: what they refuse, how they craft, what carries a gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import (
    CLASSES,
    SIZE,
    Smooth,
    Watched,
    helper_run,
    net_and_batch,
    on_one_device,
    taught_net,
)

from robustjax import losses
from robustjax.attacks import BIM, PGD, Restarts
from robustjax.attacks.starts import Gaussian
from robustjax.attacks.targets import LeastLikely
from robustjax.models.nets.layers import BN
from robustjax.parallel import AXIS
from robustjax.threats import L2, Linf
from robustjax.training import (
    ALP,
    AWP,
    CAT,
    HAT,
    LBGAT,
    LLR,
    MART,
    MMA,
    PGDAT,
    SAT,
    SCORE,
    TRADES,
    UAT,
    YOPO,
    AVmixup,
    Curriculum,
    FeatureScattering,
    GradAlign,
    TradesYOPO,
)
from robustjax.training.methods.base import Crafted


@pytest.mark.parametrize("method", [TRADES, SAT])
def test_the_kl_is_climbed_whatever_loss_the_attack_names(method):
    state, net, batch = net_and_batch(SAT())

    def images(**extra):
        keys = jax.random.split(jax.random.key(0), len(batch.label))
        attack = PGD(L2(0.3), steps=2, start=Gaussian(), **extra)
        made = method(attack=attack)
        return on_one_device(lambda: made.perturb(net, state.params, batch, keys)).x_adv

    plain = images()
    clean = net.logits(state.params, batch.image)
    kl = jax.vmap(losses.kl)(net.logits(state.params, plain), clean)
    nearby = jax.vmap(losses.kl)(net.logits(state.params, batch.image + 1e-3), clean)
    assert kl.mean() > 10 * nearby.mean() and kl.min() > 0
    for extra in ({"loss": losses.kl}, {"target": LeastLikely()}):
        np.testing.assert_array_equal(images(**extra), plain)


@pytest.mark.parametrize("method", [TRADES, SCORE])
@pytest.mark.parametrize("bn", ["running", "batch", "commit"])
def test_pairs_craft_in_their_mode_and_the_reference_commits_nothing(bn, method):
    state, net, batch = net_and_batch(TRADES())
    watched = Watched(net.stats, net.progress, net.module, modes=[])

    def perturb(keys):
        return method(bn=bn).perturb(watched, state.params, batch, keys)

    jax.eval_shape(jax.vmap(perturb, axis_name=AXIS), jax.random.split(jax.random.key(0), (1, 32)))
    reference, *climbing = watched.modes
    assert reference == ("running" if bn == "running" else "batch")
    assert set(climbing) == {bn}


@pytest.mark.parametrize("method", [TRADES, SAT, SCORE, LLR, LBGAT, HAT])
def test_an_attack_from_where_the_objective_is_flat_is_refused(method):
    with pytest.raises(ValueError, match="no gradient at the clean image"):
        method(attack=BIM())


@pytest.mark.parametrize("make", [PGDAT, lambda a: TRADES(attack=a), lambda a: SAT(attack=a)])
@pytest.mark.parametrize("attack", [Restarts(PGD()), PGD, "pgd-10"])
def test_an_attack_of_another_kind_is_refused(make, attack):
    with pytest.raises(ValueError, match="attack must be a PGD, got"):
        make(attack)


@pytest.mark.parametrize("method", [PGDAT, MART, AVmixup])
def test_a_mode_of_batch_normalisation_that_is_none_is_refused(method):
    with pytest.raises(ValueError, match="bn must be one of running, batch, commit, got 'frozen'"):
        method(bn="frozen")


def test_methods_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TRADES().beta = 1.0


@pytest.mark.parametrize("method", [MART, ALP, UAT, AVmixup])
def test_an_attack_on_no_label_is_refused(method):
    with pytest.raises(ValueError, match="the loss kl needs a target"):
        method(PGD(loss=losses.kl))


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


NEAR = PGD(Linf(0.05), steps=2, start=Gaussian())


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


def test_the_attack_of_lbgat_and_hat_is_that_of_trades():
    params, net, batch, _ = taught_net()
    net = net.replace(frozen=lambda x: x.reshape(SIZE, -1)[:, :CLASSES])

    def crafted(method):
        keys = jax.random.split(jax.random.key(3), SIZE)
        return on_one_device(lambda: method.perturb(net, params, batch, keys))

    want = crafted(TRADES(attack=NEAR)).x_adv
    np.testing.assert_array_equal(crafted(LBGAT(attack=NEAR)).x_adv, want)
    found = crafted(HAT("run", attack=NEAR))
    np.testing.assert_array_equal(found.x_adv, want)
    np.testing.assert_array_equal(found.extra, want.reshape(SIZE, -1)[:, :CLASSES].argmax(-1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TRADES(-1.0), "beta"),
        (lambda: SAT(start=2.0), "start"),
        (lambda: AWP(gamma=-1.0), "gamma"),
        (lambda: MART(beta=-1.0), "beta"),
        (lambda: ALP(clean=2.0), "clean"),
        (lambda: ALP(weight=-1.0), "weight"),
        (lambda: SCORE(beta=-1.0), "beta"),
        (lambda: SCORE(slack=-1.0), "slack"),
        (lambda: UAT(weight=-1.0), "weight"),
        (lambda: AVmixup(gamma=-1.0), "gamma"),
        (lambda: AVmixup(vertex=2.0), "vertex"),
        (lambda: LLR(slope=-1.0), "slope"),
        (lambda: FeatureScattering(smoothing=2.0), "smoothing"),
        (lambda: FeatureScattering(iterations=0), "iterations"),
        (lambda: YOPO(rounds=0), "rounds"),
        (
            lambda: YOPO(first_layer="none"),
            "first_layer must be one of both, hamiltonian, got 'none'",
        ),
        (lambda: TradesYOPO(beta=-1.0), "beta"),
        (lambda: MMA(reach=-1.0), "reach"),
        (lambda: MMA(clean=2.0), "clean"),
        (lambda: CAT(variant="v3"), "variant must be one of paper, repo-v2, repo-v1, got 'v3'"),
        (lambda: CAT(eta=-1.0), "eta"),
        (lambda: dataclasses.replace(CAT(), attack="pgd"), "attack must be a PGD"),
        (lambda: GradAlign(weight=-1.0), "weight"),
        (lambda: PGDAT(guard=2.0), "guard"),
        (lambda: Curriculum(strength=-1), "strength"),
        (lambda: Curriculum(strongest=-1), "strongest"),
        (lambda: Curriculum(patience=0), "patience"),
        (lambda: LBGAT(beta=-1.0), "beta"),
        (lambda: HAT(beta=-1.0), "beta"),
        (lambda: HAT(gamma=-1.0), "gamma"),
        (lambda: HAT(reach=-1.0), "reach"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
