"""AVmixup: what it mixes, and the share it draws."""

import jax.numpy as jnp
import numpy as np
from tiny import SIZE, crafted, flat_net

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.threats import Linf
from robustjax.training import AVmixup


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
