"""What holds for networks of every library, and is asked of each."""

import gc
import weakref

import jax
import pytest

from robustjax import models
from robustjax.training.run import Run
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


def killed_after_a_save(fit, monkeypatch, checkpoint_every=1):
    """Call `fit(checkpoint_every=...)`, which dies once it has saved for the first time."""
    save = Run.save

    def die(run, saver, now):
        save(run, saver, now)
        raise RuntimeError("killed")

    monkeypatch.setattr(Run, "save", die)
    with pytest.raises(RuntimeError, match="killed"):
        fit(checkpoint_every=checkpoint_every)
    monkeypatch.undo()
