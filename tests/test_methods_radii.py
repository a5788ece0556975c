"""MMA and CAT: methods that keep a radius for each example."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import struct
from scipy.special import log_softmax
from tiny import SIZE, flat_net, on_one_device

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.threats import Linf
from robustjax.training import CAT, MMA
from robustjax.training.methods.base import Crafted
from robustjax.training.methods.cat import FIRST, SECOND
from robustjax.training.net import Net

EPS = 0.02


@struct.dataclass
class Noted(Net):
    """A net that notes what it is asked to craft."""

    asked: list = struct.field(pytree_node=False, default_factory=list)

    def craft(self, attack, params, keys, x, y, target=None, *args, **kwargs):
        self.asked.append((attack, target))
        return super().craft(attack, params, keys, x, y, target, *args, **kwargs)


def noted(method, rows):
    """(attack, target of the attack, what was crafted) for examples that have these rows."""
    params, net, batch = flat_net(method)
    net = Noted(net.stats, net.progress, net.module)
    found = method.perturb(net, params, batch.replace(rows=rows), keys())
    ((attack, target),) = net.asked
    return attack, target, found


def keys():
    return jax.random.split(jax.random.key(3), SIZE)


def crafted(method, given):
    params, net, batch = given
    return on_one_device(lambda: method.perturb(net, params, batch, keys()))


# ---- MMA


class Plane(nn.Module):
    """Two classes and the plane w.x = 0.2 between them."""

    @nn.compact
    def __call__(self, x, bn):
        w = self.param("w", nn.initializers.ones, x[0].size)
        height = x.reshape(len(x), -1) @ w - 0.2
        return jnp.stack([height, -height], -1)


def plane():
    """(params, net, batch, distances), half of the labels right."""
    _, net, batch = flat_net(MMA())
    image = 0.2 + 0.6 * batch.image
    w = jax.random.normal(jax.random.key(5), image[0].size)
    w = w - w.mean()  # so that the images lie around the plane
    height = np.asarray(image.reshape(SIZE, -1) @ w - 0.2)
    label = jnp.asarray(np.where(np.arange(SIZE) % 2, height < 0, height >= 0), jnp.int32)
    batch = batch.replace(image=image, label=label, target=jax.nn.one_hot(label, 2))
    distance = np.abs(height) / np.abs(np.asarray(w)).sum()
    return {"w": w}, net.replace(module=Plane()), batch, distance


def test_the_soft_margin_is_negative_exactly_where_the_label_has_half_the_mass():
    z = 3 * jax.random.normal(jax.random.key(0), (200, 4))
    margin = jax.vmap(losses.soft_margin)(z, jnp.arange(200) % 4)
    p = jax.nn.softmax(z)[jnp.arange(200), jnp.arange(200) % 4]
    assert 20 < (p > 0.5).sum() < 180
    np.testing.assert_array_equal(margin < 0, p > 0.5)
    np.testing.assert_allclose(margin, np.log(1 / p - 1), atol=1e-4)


def test_bisection_finds_the_distance_to_a_plane():
    params, net, batch, distance = plane()
    d_max = np.median(distance)
    found = crafted(MMA(PGD(Linf(d_max / 1.5))), (params, net, batch))
    margin, counts = found.extra
    correct = net.logits(params, batch.image).argmax(-1) == batch.label
    near = np.asarray(correct) & (distance < d_max)
    assert near.sum() > 4 and (correct & ~near).any() and (~correct).any()
    np.testing.assert_allclose(np.asarray(margin)[near], distance[near], atol=d_max / 300)
    assert (np.asarray(margin)[correct & ~near] > d_max).all() and (margin[~correct] == 0).all()
    np.testing.assert_array_equal(counts, ~np.asarray(correct) | near)
    np.testing.assert_array_equal(found.x_adv[~correct], batch.image[~correct])
    height = net.logits(params, found.x_adv)[:, 0]
    assert np.abs(height[near]).max() < 0.1 * np.abs(net.logits(params, batch.image)).max()


@pytest.mark.parametrize("method", [MMA(least=0.0), MMA(PGD(Linf(0.0)))])
def test_a_radius_of_zero_is_no_nan(method):
    """All are 0 at first: nothing moves, and no boundary is found within reach."""
    params, net, batch, _ = plane()
    found = crafted(method, (params, net, batch))
    np.testing.assert_array_equal(found.x_adv, batch.image)
    margin, counts = found.extra
    assert jnp.isfinite(margin).all() and not counts[margin > 0].any()


def test_mma_is_its_formula_and_keeps_the_margins():
    params, net, batch = flat_net(MMA())
    x, x_adv = batch.image, jnp.clip(batch.image + 0.05, 0, 1)
    margin, counts = jnp.linspace(0, 1, SIZE), jnp.arange(SIZE) % 3 > 0
    given = Crafted(x_adv, net.stats, (margin, counts))
    loss, aux = on_one_device(lambda: MMA(clean=0.25).loss(net, params, batch, given))

    def ce(images):
        z = np.asarray(net.logits(params, images), np.float64)
        return -log_softmax(z, -1)[np.arange(SIZE), np.asarray(batch.label)]

    want = 0.25 * ce(x).mean() + 0.75 * (np.asarray(counts) * ce(x_adv)).mean()
    assert float(loss) == pytest.approx(want, rel=1e-5)
    np.testing.assert_array_equal(aux.rows, margin)


def test_an_attack_s_radius_is_the_margin_found_before_and_at_least_the_least():
    attack, _, _ = noted(MMA(PGD(Linf(EPS), steps=1), least=0.3), jnp.linspace(0, 0.02, SIZE))
    want = np.maximum(np.linspace(0, 0.02, SIZE), 0.3 * EPS)
    np.testing.assert_allclose(attack.threat.eps, want, rtol=1e-6)
    assert attack.loss is losses.soft_margin


def test_margins_converge_whatever_was_found_before():
    params, net, batch, distance = plane()
    rows = jnp.full(SIZE, 0.004)
    first = crafted(MMA(PGD(Linf(EPS))), (params, net, batch))
    again = crafted(MMA(PGD(Linf(EPS))), (params, net, batch.replace(rows=rows)))
    near = np.asarray(first.extra[0] > 0) & (distance < 1.4 * EPS)
    np.testing.assert_allclose(again.extra[0][near], first.extra[0][near], atol=EPS / 100)


# ---- CAT


class Fixed(nn.Module):
    """The same logits for every image."""

    @nn.compact
    def __call__(self, x, bn):
        bias = self.param("bias", nn.initializers.zeros, 4)
        return jnp.tile(bias[None], (len(x), 1)) + 0 * x.sum((1, 2, 3))[:, None]


def radii(variant, fooled, visits, start=0.0):
    """The radii, the same for all examples, after each of some visits."""
    _, net, batch = flat_net(CAT())
    bias = jnp.zeros(4).at[1 if fooled else 0].set(5.0)
    given = {"bias": bias}, net.replace(module=Fixed())
    batch = batch.replace(label=jnp.zeros_like(batch.label), rows=jnp.full(SIZE, start))
    method, found = CAT(PGD(Linf(EPS), steps=2), variant, eta=0.008), []
    for _ in range(visits):
        made = crafted(method, (*given, batch))
        _, aux = on_one_device(lambda b=batch, m=made: method.loss(given[1], given[0], b, m))
        batch = batch.replace(rows=aux.rows)
        found.append(np.asarray(aux.rows))
    return np.stack(found), made, batch


GROWS, STAYS = [0.008, 0.016, 0.02], [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("variant", "fooled", "want"),
    [
        ("paper", False, GROWS),
        ("paper", True, STAYS),
        ("repo-v2", False, STAYS),
        ("repo-v2", True, GROWS),
        ("repo-v1", False, STAYS),
    ],
)
def test_radii_grow_where_they_may_up_to_the_threat_s(variant, fooled, want):
    found, _, _ = radii(variant, fooled, 3)
    np.testing.assert_allclose(found, np.repeat([want], SIZE, 0).T, atol=1e-7)


def test_growth_that_the_threat_cut_short_is_taken_back_no_further():
    found, _, _ = radii("paper", True, 2, start=0.018)
    np.testing.assert_allclose(found, 0.018, atol=1e-7)


def test_version_one_keeps_images_that_fool_and_the_others_clean():
    found, made, batch = radii("repo-v1", True, 1)
    distance = np.abs(made.x_adv - batch.image).max((1, 2, 3))
    np.testing.assert_allclose(found[0], distance, atol=1e-7)
    assert (distance > 0.004).all() and (distance <= 0.008 + 1e-7).all()
    _, made, batch = radii("repo-v1", False, 1)
    np.testing.assert_array_equal(made.x_adv, batch.image)


def test_targets_soften_with_the_radius():
    _, _, batch = flat_net(CAT())
    radius = jnp.linspace(0, 0.1, SIZE)
    targets = np.asarray(CAT(smoothing=5.0).targets(keys(), 3, batch, radius))
    np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-5)
    share = np.take_along_axis(targets, np.asarray(batch.label)[:, None], -1)[:, 0]
    assert share[0] == 1 and (share >= 1 - 5 * radius - 1e-6).all() and share[-1] < 1


def test_the_attack_and_the_loss_aim_at_targets_of_their_own_draws_and_radii():
    """The attack's are those of the grown radius, the loss's of what is left of it."""
    method, rows = CAT(PGD(Linf(EPS), steps=1), eta=0.005), jnp.linspace(0, 0.01, SIZE)
    _, _, batch = flat_net(method)
    attack, aimed, found = noted(method, rows)
    new, targets = found.extra
    grown = rows + 0.005
    np.testing.assert_allclose(attack.threat.eps, grown, rtol=1e-6)
    np.testing.assert_allclose(aimed, method.targets(keys(), FIRST, batch, grown), rtol=1e-6)
    np.testing.assert_allclose(targets, method.targets(keys(), SECOND, batch, new), rtol=1e-6)
    assert 0 < (new == grown).sum() < SIZE
    np.testing.assert_allclose(new, np.where(new == grown, grown, rows), atol=1e-8)


@pytest.mark.parametrize("margin", [0.0, 3.0])
def test_cat_is_its_formula(margin):
    params, net, batch = flat_net(CAT())
    x_adv, radius = jnp.clip(batch.image + 0.05, 0, 1), jnp.linspace(0, 0.03, SIZE)
    soft = jax.nn.softmax(jax.random.normal(jax.random.key(0), batch.target.shape))
    method = CAT(margin=margin, kappa=1.0)
    given = Crafted(x_adv, net.stats, (radius, soft))
    loss, _ = on_one_device(lambda: method.loss(net, params, batch, given))
    z, y = np.asarray(net.logits(params, x_adv), np.float64), np.asarray(batch.label)
    own = z[np.arange(SIZE), y]
    z[np.arange(SIZE), y] = -np.inf
    hinge = np.maximum(z.max(-1) - own + 1, 0)
    z[np.arange(SIZE), y] = own
    want = -(np.asarray(soft) * log_softmax(z, -1)).sum(-1) + margin * np.asarray(radius) * hinge
    assert float(loss) == pytest.approx(want.mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MMA(reach=-1.0), "reach"),
        (lambda: MMA(clean=2.0), "clean"),
        (lambda: CAT(variant="v3"), "variant must be one of paper, repo-v2, repo-v1, got 'v3'"),
        (lambda: CAT(eta=-1.0), "eta"),
        (lambda: dataclasses.replace(CAT(), attack="pgd"), "attack must be a PGD"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
