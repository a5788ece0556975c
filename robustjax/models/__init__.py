"""Networks by name, and what one does with them: create, init, apply, save, load.

model = create("preact-resnet-18", num_classes=10, mean=MEAN, std=STD)
variables = init(model, jax.random.key(0), (32, 32, 3))
logits = model.apply(variables, images, BN("running"))
logits_fn, features_fn = apply(model, variables)
logits_fn, features_fn = from_torch("resnet18.pt", mean=MEAN, std=STD)
"""

from robustjax.convolutions import conv2d, with_fast_convolutions
from robustjax.models.activations import activations, with_dropout, with_layers
from robustjax.models.adapt import adapt, describe, imported, is_own
from robustjax.models.adapters.base import Foreign, Network, check_classes, is_random
from robustjax.models.adapters.haiku import from_haiku
from robustjax.models.adapters.keras import from_keras
from robustjax.models.architectures import ARCHITECTURES
from robustjax.models.classifier import Classifier
from robustjax.models.exported import from_exported
from robustjax.models.factory import apply, create, init, names, network, register
from robustjax.models.heads import DISTANCE_HEADS
from robustjax.models.nets.layers import BN
from robustjax.models.onnx.network import from_onnx
from robustjax.models.pytorch.layouts import from_torch
from robustjax.models.trees import shapes
from robustjax.models.weights import load, load_weights, save_weights, transplant
from robustjax.models.wrappers import channels_first, normalized

__all__ = [
    "ARCHITECTURES",
    "BN",
    "DISTANCE_HEADS",
    "Classifier",
    "Foreign",
    "Network",
    "activations",
    "adapt",
    "apply",
    "channels_first",
    "check_classes",
    "conv2d",
    "create",
    "describe",
    "from_exported",
    "from_haiku",
    "from_keras",
    "from_onnx",
    "from_torch",
    "imported",
    "init",
    "is_own",
    "is_random",
    "load",
    "load_weights",
    "names",
    "network",
    "normalized",
    "register",
    "save_weights",
    "shapes",
    "transplant",
    "with_dropout",
    "with_fast_convolutions",
    "with_layers",
]
