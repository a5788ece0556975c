"""What holds for networks of every library, and is asked of each."""

import gc
import weakref

import jax
import pytest

from robustjax import data, models
from robustjax.training.step import program


def check_that_caches_hold_no_weights(make):
    """After use, the weights of a network that `make` made are freed with it."""
    network = models.adapt(make())
    alive = [weakref.ref(leaf) for leaf in jax.tree.leaves(network.start)]
    assert models.is_random(network, (8, 8, 1)) and program(network, 2, 10)
    assert network.without_weights() == network
    del network
    gc.collect()
    assert not any(leaf() is not None for leaf in alive)


def killed_after_a_step_and_resumed(fit, monkeypatch):
    """The result of `fit(resume=True)`, where `fit(checkpoint_every=1)` died at its second step."""
    one = data.Plan.batch
    monkeypatch.setattr(
        data.Plan, "batch", lambda plan, step, *a: 1 / (1 - step) and one(plan, step, *a)
    )
    with pytest.raises(ZeroDivisionError):
        fit(checkpoint_every=1)
    monkeypatch.undo()
    return fit(resume=True)
