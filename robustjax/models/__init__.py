"""Networks by name, and what one does with them: create, init, apply, save, load.

model = create("preact-resnet-18", num_classes=10, mean=MEAN, std=STD)
variables = init(model, jax.random.key(0), (32, 32, 3))
logits = model.apply(variables, images, BN("running"))
logits_fn, features_fn = apply(model, variables)
"""

from robustjax.models.classifier import Classifier
from robustjax.models.factory import apply, create, init, names
from robustjax.models.layers import BN
from robustjax.models.weights import load, load_weights, save_weights

__all__ = [
    "BN",
    "Classifier",
    "apply",
    "create",
    "init",
    "load",
    "load_weights",
    "names",
    "save_weights",
]
