"""A tiny classifier with two hidden layers, and images of three classes, for detectors to watch."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from robustjax.attacks import Randomized
from robustjax.deterministic import ordered_sum

CLASSES, SHAPE = 3, (4, 4, 2)
RNG = np.random.default_rng(0)
CENTRES = RNG.uniform(0.3, 0.7, (CLASSES, *SHAPE))
LABELS = np.arange(60) % CLASSES
IMAGES = np.clip(CENTRES[LABELS] + RNG.normal(0, 0.08, (60, *SHAPE)), 0, 1).astype(np.float32)
WEIGHTS = {
    "pixel": RNG.normal(size=(2, 5)).astype(np.float32),
    "hidden": RNG.normal(size=(80, 6)).astype(np.float32) / 4,
    "auxiliary": np.linspace(-1, 2, 6, dtype=np.float32)[:, None],
}
TRACED = []
"""One entry for every call of the network from Python."""


def network(weights, images):
    """Every layer (B, ...) beside the logits: a 1x1 convolution, a dense layer, and a head more."""
    TRACED.append(images.shape)
    first = jnp.tanh(product(images, weights["pixel"]))
    last = jnp.tanh(product(first.reshape(len(first), -1), weights["hidden"]))
    auxiliary = product(last, weights["auxiliary"])[:, 0]
    logits = product(last, weights["logits"])
    return {"logits": logits, "features": (first, last), "auxiliary": auxiliary}


def product(x, kernel):
    """x @ kernel, whose bits no batch changes: what a detector adds to them is tested."""
    return ordered_sum(
        jnp.moveaxis(x[..., None] * kernel.reshape(*[1] * (x.ndim - 1), *kernel.shape), -2, 0)
    )


WEIGHTS["logits"] = np.zeros((6, CLASSES), np.float32)
_LAST = np.asarray(network(WEIGHTS, IMAGES)["features"][-1])
WEIGHTS["logits"] = 5 * np.linalg.lstsq(_LAST, np.eye(CLASSES, dtype=np.float32)[LABELS])[0]
MODEL = Partial(network, WEIGHTS)
OUTPUT = jax.device_get(network(WEIGHTS, IMAGES))
LOGITS, FEATURES = OUTPUT["logits"].astype(np.float64), OUTPUT["features"]
PREDICTED = LOGITS.argmax(-1)


def dropout(weights, key, images):
    """The network with a third of its pixels dropped, the same ones in every image of a batch."""
    kept = jax.random.bernoulli(key, 2 / 3, SHAPE)[None] / (2 / 3)
    return network(weights, images * kept)


def autoencoder(scale, images):
    """Half way to the mean of the three centres."""
    return images + scale * (CENTRES.mean(0, dtype=np.float32)[None] - images)


DROPOUT = Randomized(Partial(dropout, WEIGHTS))
AUTOENCODER = Partial(autoencoder, np.float32(0.5))
