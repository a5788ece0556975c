"""LBGAT: a teacher beside the model, against its formula."""

import jax
import numpy as np
import pytest
from tiny import SIZE, cross_entropies, divergences, on_one_device, taught_net

from robustjax.training import LBGAT
from robustjax.training.net import Net


class Halted(Net):
    """A net through whose teacher no gradient flows."""

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        return jax.lax.stop_gradient(out) if kwargs.get("method") == "taught" else out


def logits(params, x):
    return np.asarray(x, np.float64).reshape(SIZE, -1) @ np.asarray(params, np.float64)


@pytest.mark.parametrize("beta", [0.0, 3.0])
def test_lbgat_is_its_formula(beta):
    method = LBGAT(beta=beta)
    params, net, batch, found = taught_net()
    loss, aux = on_one_device(lambda: method.loss(net, params, batch, found))
    clean, moved = (logits(params["kernel"], x) for x in (batch.image, found.x_adv))
    guide = logits(params["teacher"], batch.image)
    ce = cross_entropies(guide, np.asarray(batch.label))
    want = ((moved - guide) ** 2).mean() + (ce + beta * divergences(clean, moved)).mean()
    assert float(loss) == pytest.approx(want, rel=1e-5)
    right = (guide.argmax(-1) == np.asarray(batch.label)).mean()
    assert float(aux.metrics["teacher_accuracy"]) == pytest.approx(right)


def test_a_halted_teacher_changes_the_teacher_s_gradient_alone():
    method = LBGAT(beta=3.0)
    params, net, batch, found = taught_net()

    def gradient(net):
        return on_one_device(lambda: method.grads(net, params, batch, found).grads)

    free = gradient(net)
    halted = gradient(Halted(net.stats, net.progress, net.module))
    np.testing.assert_array_equal(free["kernel"], halted["kernel"])
    assert np.abs(free["teacher"] - halted["teacher"]).max() > 1e-3
    assert not halted["teacher"].any()
