"""HAT: a helper and images beyond the adversarial ones, against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import (
    CLASSES,
    SHAPE,
    SIZE,
    cross_entropies,
    divergences,
    flat_net,
    helper_run,
    on_one_device,
)

from robustjax import models
from robustjax.training import HAT, HE, TRADES
from robustjax.training.methods.base import Crafted, Method


def logits(params, x):
    return np.asarray(x, np.float64).reshape(SIZE, -1) @ np.asarray(params, np.float64)


def test_hat_is_its_formula():
    method = HAT("run", beta=2.0, gamma=0.7, reach=3.0)
    params, net, batch = flat_net(TRADES())
    label = (batch.label + 1) % CLASSES
    found = Crafted(jnp.clip(batch.image + 0.3, 0, 1), {}, label)
    loss, _ = on_one_device(lambda: method.loss(net, params, batch, found))
    beyond = batch.image + 3 * (found.x_adv - batch.image)
    assert beyond.max() > 1
    clean, moved, far = (logits(params["kernel"], x) for x in (batch.image, found.x_adv, beyond))
    each = cross_entropies(clean, np.asarray(batch.label)) + 2 * divergences(clean, moved)
    each += 0.7 * cross_entropies(far, np.asarray(label))
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
