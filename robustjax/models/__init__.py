"""Networks by name, and what one does with them: create, init, apply, save, load.

model = create("preact-resnet-18", num_classes=10, mean=MEAN, std=STD)
variables = init(model, jax.random.key(0), (32, 32, 3))
logits = model.apply(variables, images, BN("running"))
logits_fn, features_fn = apply(model, variables)
logits_fn, features_fn = from_torch("resnet18.pt", mean=MEAN, std=STD)
"""

from robustjax.models.activations import activations, with_dropout, with_layers
from robustjax.models.classifier import Classifier
from robustjax.models.factory import apply, create, init, names
from robustjax.models.heads import DISTANCE_HEADS
from robustjax.models.layers import BN
from robustjax.models.torch_layouts import from_torch
from robustjax.models.weights import load, load_weights, save_weights, transplant

__all__ = [
    "BN",
    "DISTANCE_HEADS",
    "Classifier",
    "activations",
    "apply",
    "create",
    "from_torch",
    "init",
    "load",
    "load_weights",
    "names",
    "save_weights",
    "transplant",
    "with_dropout",
    "with_layers",
]
