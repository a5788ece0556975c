"""MMA: margins by bisection, and a radius for each example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.special import log_softmax
from tiny import SIZE, crafted, flat_net, net_and_batch, noted, on_one_device

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.threats import Linf
from robustjax.training import MMA, card
from robustjax.training.methods.base import Crafted

EPS = 0.02


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


def test_running_or_the_batch_s_own_statistics_decide_what_is_correct():
    """The authors ask the train-mode output of the same step, which decides some otherwise."""
    state, net, batch = net_and_batch(MMA())
    head = jax.tree.map(lambda w: 40 * w, state.params["head"])
    params, decided = state.params | {"head": head}, []
    for judge in ("running", "batch"):
        method = MMA(PGD(Linf(EPS), steps=1), judge=judge)
        margin, _ = crafted(method, (params, net, batch)).extra
        z, _ = on_one_device(lambda mode=judge: net.forward(params, batch.image, mode))
        p = jax.nn.softmax(z)[jnp.arange(SIZE), batch.label]
        np.testing.assert_array_equal(margin > 0, p > 0.5)
        decided.append(np.asarray(p > 0.5))
    assert 0 < (decided[0] != decided[1]).sum() < SIZE
    assert card("mma", "repo").method.judge == "batch"


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
