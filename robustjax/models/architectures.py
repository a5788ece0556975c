"""The architectures: their names, their papers, and who builds them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn

from robustjax.models.nets.cnn import cnn
from robustjax.models.nets.densenet import densenet
from robustjax.models.nets.dpn import dpn
from robustjax.models.nets.googlenet import googlenet
from robustjax.models.nets.layers import torch_uniform, unit_uniform
from robustjax.models.nets.mobilenet import efficientnet_b0, mobilenet_v2
from robustjax.models.nets.preact_resnet import preact_resnet_18, preact_resnet_50, senet_18
from robustjax.models.nets.regnet import regnet
from robustjax.models.nets.resnet import resnet_18, resnet_tf, resnet_v1, resnet_v2
from robustjax.models.nets.resnext import resnext_29
from robustjax.models.nets.shufflenet_v2 import shufflenet_v2
from robustjax.models.nets.vgg import vgg
from robustjax.models.nets.vit import vit
from robustjax.models.nets.wide_resnet import wide_resnet


class Architecture(NamedTuple):
    """What people type, its paper, the pattern, the builder of (stem, body), and its defaults."""

    name: str
    paper: str
    pattern: str
    build: Callable[..., tuple[nn.Module, nn.Module]]
    width: int
    activation: str = "relu"
    last_init: Callable = torch_uniform


ARCHITECTURES = (
    Architecture("cnn", "-", r"cnn", cnn, 32),
    Architecture(
        "resnet-18", "He et al. 2016", r"resnet-18", resnet_18, 64
    ),  # ahead of one that would refuse it
    Architecture(
        "resnet-DEPTH (6n+2: resnet-20, -32, -56, -110)",
        "He et al. 2016",
        r"resnet-(\d+)",
        resnet_v1,
        16,
    ),
    Architecture(
        "resnet-v2-DEPTH (6n+2, pre-activation)",
        "He et al. 2016",
        r"resnet-v2-(\d+)",
        resnet_v2,
        16,
    ),
    Architecture(
        "resnet-tf-DEPTH (6n+2, pre-activation, leaky)",
        "He et al. 2016",
        r"resnet-tf-(\d+)",
        resnet_tf,
        16,
        "leaky_relu",
        unit_uniform,
    ),
    Architecture("preact-resnet-18", "He et al. 2016", r"preact-resnet-18", preact_resnet_18, 64),
    Architecture("preact-resnet-50", "He et al. 2016", r"preact-resnet-50", preact_resnet_50, 64),
    Architecture(
        "wrn-DEPTH-FACTOR (6n+4: wrn-28-10, wrn-34-10)",
        "Zagoruyko & Komodakis 2016",
        r"wrn-(\d+)-(\d+)",
        wide_resnet,
        16,
    ),
    Architecture("vgg-DEPTH (11, 13, 16, 19)", "Simonyan & Zisserman 2015", r"vgg-(\d+)", vgg, 64),
    Architecture("googlenet", "Szegedy et al. 2015", r"googlenet", googlenet, 192),
    Architecture(
        "densenet-DEPTH (121, 169, 201)", "Huang et al. 2017", r"densenet-(\d+)", densenet, 64
    ),
    Architecture("senet-18", "Hu et al. 2018", r"senet-18", senet_18, 64),
    Architecture(
        "resnext-29-GROUPSxWIDTH (resnext-29-2x64, -32x4)",
        "Xie et al. 2017",
        r"resnext-29-(\d+)x(\d+)",
        resnext_29,
        64,
    ),
    Architecture("regnetx-200mf", "Radosavovic et al. 2020", r"regnet(x)-(200)mf", regnet, 24),
    Architecture("regnetx-400mf", "Radosavovic et al. 2020", r"regnet(x)-(400)mf", regnet, 32),
    Architecture("regnety-400mf", "Radosavovic et al. 2020", r"regnet(y)-(400)mf", regnet, 32),
    Architecture("dpn-DEPTH (26, 92)", "Chen et al. 2017", r"dpn-(\d+)", dpn, 96),
    Architecture("mobilenet-v2", "Sandler et al. 2018", r"mobilenet-v2", mobilenet_v2, 32),
    Architecture(
        "efficientnet-b0", "Tan & Le 2019", r"efficientnet-b0", efficientnet_b0, 32, "silu"
    ),
    Architecture("shufflenet-v2", "Ma et al. 2018", r"shufflenet-v2", shufflenet_v2, 116),
    Architecture("vit-ti-PATCH", "Dosovitskiy et al. 2021", r"vit-ti-(\d+)", vit, 192, "gelu"),
    Architecture(
        "vit-s-PATCH (vit-s-4 for 32x32 images)",
        "Dosovitskiy et al. 2021",
        r"vit-s-(\d+)",
        vit,
        384,
        "gelu",
    ),
    Architecture("vit-b-PATCH", "Dosovitskiy et al. 2021", r"vit-b-(\d+)", vit, 768, "gelu"),
)
BEFORE_A_NUMBER = r"(?<=[a-z])-(?=\d|\(\\d)"
"""A dash that people leave out."""


def architecture(name: str) -> tuple[Architecture, list[int | str]] | None:
    """The architecture of this name, and the sizes in it.

    >>> from robustjax.models.architectures import architecture
    >>> own, sizes = architecture("WRN_34_10")
    >>> own.name, sizes
    ('wrn-DEPTH-FACTOR (6n+4: wrn-28-10, wrn-34-10)', [34, 10])
    """
    for own in ARCHITECTURES:
        pattern = re.sub(BEFORE_A_NUMBER, "-?", own.pattern)
        if match := re.fullmatch(pattern, _spelled(name)):
            return own, [int(part) if part.isdigit() else part for part in match.groups()]
    return None


def near(name: str) -> str:
    """The architecture that was meant, if one has a similar name; else ''.

    >>> from robustjax.models.architectures import near
    >>> near("preact-resnet-81"), near("perceptron")
    ('preact-resnet-18', '')
    """
    known = {own.name.split()[0].lower(): own.name for own in ARCHITECTURES}
    found = difflib.get_close_matches(_spelled(name), known, 1, 0.7)
    return known[found[0]] if found else ""


def _spelled(name: str) -> str:
    return name.lower().replace("_", "-")
