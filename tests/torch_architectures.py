"""The architectures in plain PyTorch: parameter counts, and the logits of small networks.

`python tests/torch_architectures.py` (with torch) writes tests/golden/architectures.npz: the logits
of a small network of each, with the weights and images of tests/architectures.py.
"""

from functools import partial
from pathlib import Path

import architectures
import numpy as np
import torch
from torch import nn
from torch_nets import ViT, densenet, googlenet, shufflenet, vgg
from torch_residual_nets import dpn, efficientnet, mobilenet, preact_50, regnet, resnext, senet

GOLDEN = Path(__file__).parent / "golden" / "architectures.npz"
X_200, X_400 = (24, 56, 152, 368), (32, 64, 160, 384)

FULL = {
    "preact-resnet-50": (preact_50, 64, (3, 4, 6, 3)),
    "senet-18": (senet, 64, (2, 2, 2, 2)),
    "vgg-11": (vgg, 64, (1, 1, 2, 2, 2)),
    "vgg-13": (vgg, 64, (2, 2, 2, 2, 2)),
    "vgg-16": (vgg, 64, (2, 2, 3, 3, 3)),
    "vgg-19": (vgg, 64, (2, 2, 4, 4, 4)),
    "googlenet": (googlenet, 192, (2, 5, 2)),
    "densenet-121": (densenet, 64, (6, 12, 24, 16)),
    "densenet-169": (densenet, 64, (6, 12, 32, 32)),
    "densenet-201": (densenet, 64, (6, 12, 48, 32)),
    "resnext-29-2x64": (partial(resnext, 2, 64), 64, (3, 3, 3)),
    "resnext-29-32x4": (partial(resnext, 32, 4), 64, (3, 3, 3)),
    "regnetx-200mf": (partial(regnet, X_200, 8, False), 24, (1, 1, 4, 7)),
    "regnetx-400mf": (partial(regnet, X_400, 16, False), 32, (1, 2, 7, 12)),
    "regnety-400mf": (partial(regnet, X_400, 16, True), 32, (1, 2, 7, 12)),
    "dpn-26": (dpn, 96, (2, 2, 2, 2)),
    "dpn-92": (dpn, 96, (3, 4, 20, 3)),
    "mobilenet-v2": (mobilenet, 32, (1, 2, 3, 4, 3, 3, 1)),
    "efficientnet-b0": (efficientnet, 32, (1, 2, 2, 3, 3, 4, 1)),
    "shufflenet-v2": (shufflenet, 116, (4, 8, 4)),
    "vit-ti-4": (partial(ViT, 4, 32), 192, (12,)),
    "vit-s-4": (partial(ViT, 4, 32), 384, (12,)),
    "vit-b-4": (partial(ViT, 4, 32), 768, (12,)),
}
"""How each is made: the function, its width, the blocks of its stages."""
SMALL = {
    "preact-resnet-50": (preact_50, (1, 1, 1, 1)),
    "senet-18": (senet, (1, 1, 1, 1)),
    "vgg-11": (vgg, (1, 1, 2, 2, 2)),
    "googlenet": (googlenet, (2, 2, 2)),
    "densenet-121": (densenet, (2, 2, 2, 2)),
    "resnext-29-3x2": (partial(resnext, 3, 2), (2, 2, 2)),
    "regnetx-200mf": (partial(regnet, X_200, 8, False), (1, 1, 2, 2)),
    "regnety-400mf": (partial(regnet, X_400, 16, True), (1, 2, 2, 2)),
    "dpn-26": (dpn, (2, 2, 2, 2)),
    "mobilenet-v2": (mobilenet, (1, 2, 2, 2, 2, 2, 1)),
    "efficientnet-b0": (efficientnet, (1, 2, 2, 2, 2, 2, 1)),
    "shufflenet-v2": (shufflenet, (2, 2, 2)),
    "vit-s-4": (partial(ViT, 4, 16), (2,)),
}
"""The same of the networks of `architectures.SMALL`, at its widths."""


def count(name):
    make, width, counts = FULL[name]
    with torch.device("meta"):
        return sum(p.numel() for p in make(width, counts, 10).parameters())


LAYERS = nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.LayerNorm


def fill(net, x):
    """Give the layers the arrays that `architectures.draw` has for them."""
    calls = []
    layers = [m for m in net.modules() if isinstance(m, LAYERS)]
    hooks = [m.register_forward_hook(lambda layer, *_: calls.append(layer)) for m in layers]
    net(x)
    for hook in hooks:
        hook.remove()

    def put(tensor, call, leaf, order=None):
        order = order or tuple(range(tensor.ndim))
        shape = tuple(tensor.shape[i] for i in order)
        value = architectures.draw(call, leaf, shape).transpose(np.argsort(order))
        tensor.copy_(torch.tensor(value))

    for i, layer in enumerate(calls):
        kernel = layer.weight.ndim > 1
        order = {1: None, 2: (1, 0), 4: (2, 3, 1, 0)}[layer.weight.ndim]
        put(layer.weight, i, "kernel" if kernel else "scale", order)
        if layer.bias is not None:
            put(layer.bias, i, "bias")
        if isinstance(layer, nn.BatchNorm2d):
            put(layer.running_mean, i, "mean")
            put(layer.running_var, i, "var")
    for leaf in ("class_token", "positions"):
        if hasattr(net, leaf):
            put(getattr(net, leaf), 0, leaf)


@torch.no_grad()
def logits(name):
    make, counts = SMALL[name]
    net = make(architectures.SMALL[name], counts, architectures.CLASSES).eval()
    x = torch.tensor(architectures.images()).permute(0, 3, 1, 2)
    fill(net, x)
    return net(x).numpy()


if __name__ == "__main__":
    np.savez(GOLDEN, **{name: logits(name) for name in SMALL})
