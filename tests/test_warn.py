"""A warning names the user's file and line, from any depth of the library."""

import inspect

import jax
import numpy as np
import pytest

from robustjax.attacks import PGD, perturb
from robustjax.evaluation import evaluate
from robustjax.threats import Linf

IMAGES, LABELS = np.float32([0.75, 0.25]).reshape(1, 1, 1, 2), [0]
NO_ROOM = PGD(Linf(0.0), steps=1)


def model(images):
    return images[:, 0, 0]


def nan_uphill(images):
    """Right, with a gradient of NaN."""
    return images[:, 0, 0] + 0 * jax.numpy.sqrt(images[:, 0, 0] * 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: evaluate(model, IMAGES, LABELS, {"pgd": NO_ROOM}, jax.random.key(0)),
        lambda: perturb(PGD(steps=1), nan_uphill, jax.random.key(0), IMAGES, LABELS),
    ],
)
def test_it_points_here(call):
    with pytest.warns(UserWarning) as caught:
        call()
    assert caught[0].filename == __file__
    assert caught[0].lineno == inspect.getsourcelines(call)[1]
