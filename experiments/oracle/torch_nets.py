"""The two networks whose weights come inside the pyautoattack wheel, for PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from nets import CIFAR10, MNIST, keras_weights, wheel
from pyautoattack.examples.resnet import ResNet18
from torch import nn


def mnist(weights=None) -> nn.Module:
    """Two times (3x3 convolution, ReLU) x 2 and a 2x2 maximum; 256 hidden units.

    `weights` are those of the wheel, or others like `nets.keras_weights`.
    """
    layers = []
    for channels in (1, 16):
        layers += [nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    slots = [layer for layer in net if isinstance(layer, nn.Conv2d | nn.Linear)]
    weights = keras_weights(wheel(MNIST)) if weights is None else weights
    for layer, (name, (kernel, bias)) in zip(slots, weights.items(), strict=True):
        if name == "d1":  # Keras flattens (rows, columns, channels), PyTorch channels first
            kernel = np.reshape(kernel, (7, 7, 16, 256)).transpose(2, 0, 1, 3).reshape(784, 256)
        axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
        layer.weight.data = torch.tensor(np.transpose(kernel, axes))
        layer.bias.data = torch.tensor(np.asarray(bias))
    return net.requires_grad_(False).eval()


def cifar10() -> nn.Module:
    """ResNet-18 on pixels in [0, 1], trained without a defence."""
    net = ResNet18()
    net.load_state_dict(torch.load(wheel(CIFAR10), weights_only=True, map_location="cpu"))
    return net.requires_grad_(False).eval()
