"""A run of one L2 step over four devices; as a script, one of two processes that share them."""

import sys
from pathlib import Path

import jax
from flax import linen as nn

from robustjax import data, parallel
from robustjax.attacks import PGD
from robustjax.models.classifier import Classifier
from robustjax.models.heads import attach
from robustjax.models.nets.layers import BatchNorm, Conv
from robustjax.threats import L2
from robustjax.training import PGDAT, Natural, Recipe, fit


class Body(nn.Module):
    """What processes share of a network: weights, and statistics of the batch."""

    @nn.compact
    def __call__(self, h, bn):
        return nn.relu(BatchNorm()(h, bn)).mean((1, 2))


def one_step(out, resume=False):
    """Train for an epoch of one step, with validation, checkpoints and weights."""
    train, validation = (data.load("digits", s).head(64) for s in ("train", "validation"))
    attack = PGD(L2(0.3), steps=2)
    body, head = attach(Body(), 10)
    fit(
        PGDAT(attack),
        train,
        validation,
        model=Classifier(stem=Conv(4), body=body, head=head),
        out=out,
        recipe=Recipe(epochs=1, batch_size=64, lr=0.05, augment=data.Augment(pad=0, flip=False)),
        validation_attack=attack,
        resume=resume,
        progress=False,
    )


def plain(out, shard_state):
    """Two natural steps of a plain net, whose state may be spread over the devices."""
    train, validation = (data.load("digits", s).head(64) for s in ("train", "validation"))
    fit(
        Natural(),
        train,
        validation,
        model={"name": "cnn", "width": 4},
        out=out,
        recipe=Recipe(epochs=2, batch_size=64, augment=data.Augment(pad=0, flip=False)),
        progress=False,
        shard_state=shard_state,
    )


if __name__ == "__main__":
    coordinator, process, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    parallel.initialize(coordinator, 2, process)
    assert jax.device_count() == 4 and jax.local_device_count() == 2
    parallel.placement.LEAST = 16  # small arrays are spread as well
    one_step(folder)
    one_step(folder, resume=True)
    plain(folder.with_name("parts"), shard_state=True)
