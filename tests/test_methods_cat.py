"""CAT: radii that grow example by example, and labels that soften with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.special import log_softmax
from tiny import CLASSES, SIZE, crafted, flat_net, keys, noted, on_one_device

from robustjax.attacks import PGD
from robustjax.threats import Linf
from robustjax.training import CAT
from robustjax.training.methods.base import Crafted
from robustjax.training.methods.cat import FIRST, SECOND

EPS = 0.02


class Fixed(nn.Module):
    """The same logits for every image."""

    @nn.compact
    def __call__(self, x, bn):
        bias = self.param("bias", nn.initializers.zeros, 4)
        return jnp.tile(bias[None], (len(x), 1)) + 0 * x.sum((1, 2, 3))[:, None]


def radii(variant, fooled, visits, start=0.0, eps=EPS, eta=0.008):
    """The radii, the same for all examples, after each of some visits."""
    _, net, batch = flat_net(CAT())
    bias = jnp.zeros(4).at[1 if fooled else 0].set(5.0)
    given = {"bias": bias}, net.replace(module=Fixed())
    batch = batch.replace(label=jnp.zeros_like(batch.label), rows=jnp.full(SIZE, start))
    method, found = CAT(PGD(Linf(eps), steps=2), variant, eta=eta), []
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


def test_version_two_takes_its_growth_off_after_the_cap():
    """As the authors add .0025, clamp to .035 and take .0025 off: no radius sticks to the cap."""
    found, _, _ = radii("repo-v2", False, 2, start=0.035, eps=0.035, eta=0.0025)
    np.testing.assert_allclose(found, 0.0325, atol=1e-7)
    found, _, _ = radii("repo-v2", False, 1, start=0.034, eps=0.035, eta=0.0025)
    np.testing.assert_allclose(found, 0.0325, atol=1e-7)


@pytest.mark.parametrize("variant", ["repo-v1", "repo-v2"])
def test_the_authors_attack_climbs_the_margin_too_as_far_as_kappa(variant):
    """Its objective on logits by hand: a margin of -3, and one of 4 beyond kappa."""
    rows = jnp.linspace(0, 0.01, SIZE)
    method = CAT(PGD(Linf(EPS), steps=1), variant, eta=0.005, margin=50.0, kappa=2.0)
    attack, target, _ = noted(method, rows)
    soft, label, weight, _ = target
    np.testing.assert_allclose(weight, 50 * (rows + 0.005), rtol=1e-5)
    for ahead, counts in ((-3.0, -3.0), (4.0, 2.0)):
        z = np.full((SIZE, CLASSES), -9.0)
        z[np.arange(SIZE), label] = 1.0
        z[np.arange(SIZE), (label + 1) % CLASSES] = 1.0 + ahead
        found = jax.vmap(attack.loss)(jnp.asarray(z, jnp.float32), target)
        want = -(np.asarray(soft) * log_softmax(z, -1)).sum(-1) + np.asarray(weight) * counts
        np.testing.assert_allclose(found, want, rtol=1e-5)


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
