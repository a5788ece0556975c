"""SCORE against its formula."""

import jax
import numpy as np
import pytest
from scipy.special import softmax
from tiny import CLASSES, SIZE, crafted, flat_net, linear

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.attacks.starts import Gaussian
from robustjax.threats import Linf
from robustjax.training import SCORE


@pytest.mark.parametrize("slack", [0.0, 0.01])
def test_score_is_its_formula(slack):
    loss, clean, moved, label = linear(SCORE(beta=3.0, slack=slack))
    p, q, hot = softmax(clean, -1), softmax(moved, -1), np.eye(CLASSES)[label]
    far = np.maximum(((p - q) ** 2).sum(-1) - slack, 0)
    assert (far == 0).any() == (slack > 0)
    assert loss == pytest.approx((((p - hot) ** 2).sum(-1) + 3 * far).mean(), rel=1e-5)


def test_score_climbs_the_squared_distance():
    given = params, net, batch = flat_net(SCORE())
    attack = PGD(Linf(0.05), steps=5, start=Gaussian())
    clean = jax.nn.softmax(net.logits(params, batch.image))

    def far(x):
        return float(jax.vmap(losses.brier)(net.logits(params, x), clean).mean())

    found = crafted(SCORE(attack=attack), given).x_adv
    random = jax.vmap(Linf(0.05).sample)(jax.random.split(jax.random.key(0), SIZE), batch.image)
    assert far(found) > 3 * far(random)
