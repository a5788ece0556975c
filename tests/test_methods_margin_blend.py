"""The blend of cross-entropy and a margin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CLASSES, SIZE, cross_entropies, flat_net, on_one_device

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.attacks.starts import Zero
from robustjax.threats import Linf
from robustjax.training import MarginBlend
from robustjax.training.methods.base import Crafted


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


def test_two_classes_are_refused():
    """Their margin has no scale: the loss fell to -1e36."""

    class Binary:
        def train(self, params, images):
            return jnp.zeros((SIZE, 2)), {}

    with pytest.raises(ValueError, match="margin-blend needs 3 classes"):
        MarginBlend().loss(Binary(), {}, None, Crafted(jnp.zeros((SIZE, 1)), {}))


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
