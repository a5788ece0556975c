"""Networks of PyTorch that `models.from_torch` reads: torchvision's, timm's, and RobustBench's.

RobustBench's are our own transcriptions: they have the parts of the published networks by the same
names, and compute the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import torchvision
from foreign_states import draw
from torch import nn
from torch.nn import functional as F

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from torch_families import PostBlock, PreBlock, Sixfold, Wide, conv, stage


class Sparse(nn.Module):
    """MeanSparse: values near the channel's mean are set to it."""

    def __init__(self, channels: int):
        super().__init__()
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, torch.zeros(channels))
        for name in ("threshold", "batch_num"):
            self.register_buffer(name, torch.tensor(0.0))
        self.register_buffer("flag_update_statistics", torch.tensor(0))

    def forward(self, x):
        mean = self.running_mean[:, None, None].expand_as(x)
        width = self.threshold * self.running_var.sqrt()[:, None, None]
        return torch.where((x - mean).abs() < width, mean, x)


def after(x, stride):
    """The image with zeros after it where there is a stride, around it otherwise."""
    return F.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))


class DMBlock(nn.Module):
    """DeepMind's block, perhaps with a gate, perhaps with MeanSparse."""

    def __init__(self, channels, features, stride, gated=False, sparse=False):
        super().__init__()
        make = Sparse if sparse else (lambda channels: nn.Identity())
        self.batchnorm_0, self.meansparse_0 = nn.BatchNorm2d(channels), make(channels)
        self.conv_0 = nn.Conv2d(channels, features, 3, stride, bias=False)
        self.batchnorm_1, self.meansparse_1 = nn.BatchNorm2d(features), make(features)
        self.conv_1, self.meansparse_2 = conv(features, features), make(features)
        self.stride, self.shortcut, self.se = stride, None, None
        if channels != features:
            self.shortcut = nn.Conv2d(channels, features, 1, stride, bias=False)
        if gated:
            self.se = torchvision.ops.SqueezeExcitation(features, round(features / 4))

    def forward(self, x):
        h = F.silu(self.meansparse_0(self.batchnorm_0(x)))
        x = x if self.shortcut is None else self.shortcut(h)
        h = self.conv_0(after(h, self.stride))
        h = self.conv_1(F.silu(self.meansparse_1(self.batchnorm_1(h))))
        return self.meansparse_2(x + (h if self.se is None else self.se(h)))


class Group(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.block = blocks

    def forward(self, x):
        return self.block(x)


class DMWide(nn.Module):
    """DMWideResNet; its mean and std are buffers unless it is one of those without."""

    def __init__(self, widths, counts, classes, gated=False, sparse=False, buffers=True):
        super().__init__()
        mean, std = torch.tensor([0.49, 0.48, 0.45]), torch.tensor([0.25, 0.24, 0.26])
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, value.view(3, 1, 1), persistent=buffers)
        self.init_conv, groups, channels = conv(3, widths[0]), [], widths[0]
        for i, (features, count) in enumerate(zip(widths[1:], counts, strict=True)):
            make = lambda *shape: DMBlock(*shape, gated, sparse)  # noqa: E731
            groups.append(Group(stage(make, channels, features, count, 1 + (i > 0))))
            channels = features
        self.layer, self.batchnorm = nn.Sequential(*groups), nn.BatchNorm2d(channels)
        self.meansparse_end = Sparse(channels) if sparse else nn.Identity()
        self.logits = nn.Linear(channels, classes)

    def forward(self, x):
        h = self.layer(self.init_conv((x - self.mean) / self.std))
        h = F.silu(self.meansparse_end(self.batchnorm(h)))
        return self.logits(h.mean((2, 3)))


class DMPreActBlock(nn.Module):
    """Its projections are 3x3 and see the input itself."""

    def __init__(self, channels, features, stride):
        super().__init__()
        self.batchnorm_0, self.batchnorm_1 = nn.BatchNorm2d(channels), nn.BatchNorm2d(features)
        self.conv_2d_1 = nn.Conv2d(channels, features, 3, stride, bias=False)
        self.conv_2d_2, self.stride, self.shortcut = conv(features, features), stride, None
        if stride != 1 or channels != features:
            self.shortcut = nn.Conv2d(channels, features, 3, stride, bias=False)

    def forward(self, x):
        h = self.conv_2d_1(after(F.silu(self.batchnorm_0(x)), self.stride))
        x = x if self.shortcut is None else self.shortcut(after(x, self.stride))
        return x + self.conv_2d_2(F.silu(self.batchnorm_1(h)))


class DMPreAct(nn.Module):
    """DMPreActResNet."""

    def __init__(self, width, counts, classes):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.49, 0.48, 0.45]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.25, 0.24, 0.26]).view(3, 1, 1))
        self.conv_2d, channels = conv(3, width), width
        for i, count in enumerate(counts):
            blocks = stage(DMPreActBlock, channels, width * 2**i, count, 1 + (i > 0))
            setattr(self, f"layer_{i}", blocks)
            channels = width * 2**i
        self.stages = len(counts)
        self.batchnorm, self.logits = nn.BatchNorm2d(channels), nn.Linear(channels, classes)

    def forward(self, x):
        h = self.conv_2d((x - self.mean) / self.std)
        for i in range(self.stages):
            h = getattr(self, f"layer_{i}")(h)
        return self.logits(F.silu(self.batchnorm(h)).mean((2, 3)))


class RobustWide(nn.Module):
    """RobustWRN (Huang 2021) and, `modern`, RobustResNet's WRN-A4 (Huang 2022)."""

    def __init__(self, widths, counts, classes, modern=False):
        super().__init__()
        self.stem_conv, self.blocks, channels = conv(3, widths[0]), nn.ModuleList(), widths[0]
        for i, (features, count) in enumerate(zip(widths[1:], counts, strict=True)):
            block = nn.Module()
            make = lambda *shape: PreBlock(*shape, wide=not modern)  # noqa: E731
            block.layer = stage(make, channels, features, count, 1 + (i > 0))
            self.blocks.append(block)
            channels = features
        self.last = "norm1" if modern else "bn1"
        setattr(self, self.last, nn.BatchNorm2d(channels))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        h = self.stem_conv(x)
        for block in self.blocks:
            h = block.layer(h)
        return self.fc(F.relu(getattr(self, self.last)(h)).mean((2, 3)))


class PostBottleneck(nn.Module):
    """The bottleneck of pytorch-cifar's ResNet-50."""

    def __init__(self, channels, features, stride):
        super().__init__()
        inner = features // 4
        self.conv1, self.bn1 = conv(channels, inner, 1), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = conv(inner, inner, 3, stride), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = conv(inner, features, 1), nn.BatchNorm2d(features)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != features:
            projection = conv(channels, features, 1, stride)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(features))

    def forward(self, x):
        h = F.relu(self.bn1(self.conv1(x)))
        h = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(h)))))
        return F.relu(h + self.shortcut(x))


class Deep(Sixfold):
    """Sixfold with bottlenecks, whose stages have four times as many channels as the stem."""

    def __init__(self, width, counts, block=PostBottleneck):
        super().__init__(block, 4 * width, counts, bn1=True)
        self.conv1, self.bn1 = conv(3, width), nn.BatchNorm2d(width)
        self.layer1 = stage(block, width, 4 * width, counts[0], 1)


class AdversarialBottleneck(nn.Module):
    """The pre-activation bottleneck of Chen et al. (2020), with a BN after the projection."""

    def __init__(self, channels, features, stride):
        super().__init__()
        inner = features // 4
        self.bn0, self.conv1 = nn.BatchNorm2d(channels), conv(channels, inner, 1)
        self.bn1, self.conv2 = nn.BatchNorm2d(inner), conv(inner, inner, 3, stride)
        self.bn2, self.conv3 = nn.BatchNorm2d(inner), conv(inner, features, 1)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != features:
            projection = conv(channels, features, 1, stride)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(features))

    def forward(self, x):
        h = F.relu(self.bn0(x))
        x = self.shortcut(h) if len(self.shortcut) else x
        h = F.relu(self.bn1(self.conv1(h)))
        return x + self.conv3(F.relu(self.bn2(self.conv2(h))))


class ReducedBottleneck(nn.Module):
    """The bottleneck of ResNeXt-DenseNet."""

    def __init__(self, channels, features, stride, groups=4):
        super().__init__()
        inner = features // 2
        self.conv_reduce, self.bn_reduce = conv(channels, inner, 1), nn.BatchNorm2d(inner)
        self.conv_conv = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn, self.conv_expand = nn.BatchNorm2d(inner), conv(inner, features, 1)
        self.bn_expand, self.downsample = nn.BatchNorm2d(features), None
        if stride != 1 or channels != features:
            projection = conv(channels, features, 1, stride)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(features))

    def forward(self, x):
        h = F.relu(self.bn_reduce(self.conv_reduce(x)))
        h = self.bn_expand(self.conv_expand(F.relu(self.bn(self.conv_conv(h)))))
        return F.relu(h + (x if self.downsample is None else self.downsample(x)))


class CifarResNeXt(nn.Module):
    def __init__(self, width, count, classes):
        super().__init__()
        self.conv_1_3x3, self.bn_1, channels = conv(3, width), nn.BatchNorm2d(width), width
        for i in range(3):
            features = 4 * width * 2**i
            blocks = stage(ReducedBottleneck, channels, features, count, 1 + (i > 0))
            setattr(self, f"stage_{i + 1}", blocks)
            channels = features
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x):
        h = F.relu(self.bn_1(self.conv_1_3x3(x)))
        for i in range(3):
            h = getattr(self, f"stage_{i + 1}")(h)
        return self.classifier(h.mean((2, 3)))


class PlainBlock(nn.Module):
    """CARD's block: BN without parameters, and one after the projection."""

    def __init__(self, channels, features, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(channels, features, 3, stride), plain_norm(channels)
        self.conv2, self.bn2 = conv(features, features), plain_norm(features)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != features:
            self.shortcut = nn.Sequential(conv(channels, features, 1, stride), plain_norm(features))

    def forward(self, x):
        h = F.relu(self.bn1(x))
        x = self.shortcut(h) if len(self.shortcut) else x
        return x + self.conv2(F.relu(self.bn2(self.conv1(h))))


def plain_norm(channels):
    return nn.BatchNorm2d(channels, affine=False)


class Card(nn.Module):
    """CARD's binary network; its last layer is a convolution."""

    def __init__(self, widths, counts, classes):
        super().__init__()
        self.conv1, channels, self.stages = conv(3, widths[0]), widths[0], len(counts)
        for i, (features, count) in enumerate(zip(widths, counts, strict=True)):
            blocks = stage(PlainBlock, channels, features, count, 1 + (i > 0))
            setattr(self, f"layer{i + 1}", blocks)
            channels = features
        self.bn1, self.fc = plain_norm(channels), conv(channels, classes, 1)

    def forward(self, x):
        h = self.conv1(x)
        for i in range(self.stages):
            h = getattr(self, f"layer{i + 1}")(h)
        return self.fc(F.relu(self.bn1(h)).mean((2, 3), keepdim=True)).flatten(1)


class Boosted(Wide):
    """Hypersphere embedding: features and the last layer's rows have length 1."""

    def __init__(self, width, factor, count):
        super().__init__(width, factor, count)
        self.fc = nn.Linear(self.fc.in_features, self.fc.out_features, bias=False)

    def forward(self, x):
        h = self.conv1(x)
        for block in (self.block1, self.block2, self.block3):
            h = block.layer(h)
        h = F.normalize(F.relu(self.bn1(h)).mean((2, 3)))
        return h @ F.normalize(self.fc.weight).T


def with_classes(net, classes):
    """The network with a last layer of so many classes."""
    name = "linear" if hasattr(net, "linear") else "fc"
    old = getattr(net, name)
    setattr(net, name, nn.Linear(old.in_features, classes, bias=old.bias is not None))
    return net


def small_xcit(**sizes):
    """timm's XCiT with patches of 4, as Debenedetti et al. (2022) have it for CIFAR."""
    net = timm.models.xcit.Xcit(**{"patch_size": 16, "tokens_norm": True, "eta": 1.0} | sizes)
    for i in (0, 2):
        net.patch_embed.proj[i][0].stride = (1, 1)
    return net


def narrow_swin():
    net = torchvision.models.SwinTransformer
    return net([4, 4], 8, [2, 2], [2, 4], [4, 4], num_classes=5)


def convnext(blocks, width):
    setting = torchvision.models.convnext.CNBlockConfig
    sizes = [width * 2**i for i in range(len(blocks))]
    outs = [*sizes[1:], None]
    rows = [setting(*row) for row in zip(sizes, outs, blocks, strict=True)]
    return torchvision.models.ConvNeXt(rows, num_classes=5)


class Case(NamedTuple):
    """A network, the side of the images it is tried on, and what `from_torch` must be told."""

    make: Callable[[], nn.Module]
    side: int = 32
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed


def net_of(case: Case, seed: int = 0) -> nn.Module:
    """The network with drawn weights, in evaluation mode."""
    net = case.make()
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    state = {name: torch.from_numpy(value) for name, value in draw(shapes, seed).items()}
    fixed = {name: value for name, value in net.state_dict().items() if name.endswith("_index")}
    net.load_state_dict(state | fixed)
    return net.requires_grad_(False).eval()


MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
SCALE = {"mean": MEAN, "std": STD}
COUNTS = (2, 2, 2, 2)


def preact(raw, **norms):
    return lambda: Sixfold(lambda *shape: PreBlock(*shape, raw=raw), 64, COUNTS, **norms)


tv = torchvision.models
FULL = {
    "torchvision resnet18": Case(tv.resnet18, 224),
    "torchvision resnet34": Case(tv.resnet34, 224),
    "torchvision resnet50": Case(tv.resnet50, 224),
    "torchvision resnet101": Case(tv.resnet101, 224),
    "torchvision resnext50_32x4d": Case(tv.resnext50_32x4d, 224),
    "torchvision wide_resnet50_2": Case(tv.wide_resnet50_2, 224),
    "torchvision convnext_tiny": Case(tv.convnext_tiny, 224),
    "torchvision convnext_small": Case(tv.convnext_small, 224),
    "torchvision convnext_base": Case(tv.convnext_base, 224),
    "torchvision vit_b_16": Case(tv.vit_b_16, 224),
    "torchvision swin_t": Case(tv.swin_t, 224),
}


def from_timm(name: str, side: int = 224, **options: Any) -> Case:
    return Case(lambda: timm.create_model(name), side, options)


FULL |= {
    "timm resnet50": from_timm("resnet50"),
    "timm convnext_tiny": from_timm("convnext_tiny"),
    "timm vit_small_patch16_224": from_timm("vit_small_patch16_224"),
    "timm deit_small_patch16_224": from_timm("deit_small_patch16_224"),
    "timm deit_base_patch16_224": from_timm("deit_base_patch16_224"),
    "timm xcit_small_12_p16_224": from_timm("xcit_small_12_p16_224", patch=16),
    "timm xcit_nano_12_p16_224": from_timm("xcit_nano_12_p16_224", patch=16),
    "timm swin_tiny_patch4_window7_224": from_timm("swin_tiny_patch4_window7_224"),
}
XCIT_S = {"embed_dim": 384, "num_heads": 8, "depth": 12, "num_classes": 10}
RA = ((96, 216, 432, 864), (30, 31, 10))
CIFAR = {
    "WideResNet-28-10": Case(lambda: with_classes(Wide(16, 10, 4), 10)),
    "RobustWRN": Case(lambda: RobustWide((16, 320, 640, 512), (5, 5, 5), 10)),
    "WRN-A4 with ReLU": Case(lambda: RobustWide((16, 160, 448, 384), (27, 28, 13), 10, True)),
    "DMWideResNet-28-10": Case(lambda: DMWide((16, 160, 320, 640), (4, 4, 4), 10)),
    "DMWideResNet-28-10 with MeanSparse": Case(
        lambda: DMWide((16, 160, 320, 640), (4, 4, 4), 10, sparse=True, buffers=False),
        options=SCALE,
    ),
    "RaWRN-70-16": Case(lambda: DMWide(*RA, 10, gated=True, buffers=False), options=SCALE),
    "RaWRN-70-16 with MeanSparse": Case(
        lambda: DMWide(*RA, 10, gated=True, sparse=True, buffers=False), options=SCALE
    ),
    "DMPreActResNet-18": Case(lambda: DMPreAct(64, COUNTS, 10)),
    "PreActResNet-18 (raw)": Case(preact(True), options={"shortcut": "raw"}),
    "PreActResNet-18 (activated, last BN)": Case(
        preact(False, bn=True), options={"shortcut": "activated"}
    ),
    "ResNet-18": Case(lambda: with_classes(Sixfold(PostBlock, 64, COUNTS, bn1=True), 10)),
    "ResNet-50": Case(lambda: with_classes(Deep(64, (3, 4, 6, 3)), 10)),
    "PreActResNet-50 of Chen et al. (2020)": Case(
        lambda: with_classes(Deep(64, (3, 4, 6, 3), AdversarialBottleneck), 10)
    ),
    "ResNeXt-29 (4x32)": Case(lambda: CifarResNeXt(64, 3, 10)),
    "CARD's binary network": Case(lambda: Card((64, 192, 384, 768), COUNTS, 10)),
    "WideResNet-34-20 with hypersphere embedding": Case(
        lambda: with_classes(Boosted(16, 20, 5), 10), options={"head": "cosine"}
    ),
    "XCiT-S12 for CIFAR": Case(lambda: small_xcit(**XCIT_S), 32, {"patch": 4}),
}


def narrow_vit():
    sizes = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return timm.models.VisionTransformer(img_size=16, num_classes=5, **sizes)


def narrow_resnet():
    return tv.ResNet(tv.resnet.Bottleneck, [1, 2, 1, 1], 5, groups=2, width_per_group=4)


def chain():
    layers = [nn.Conv2d(3, 6, 5, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(6, 8, 3, padding=1, groups=2), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(72, 7), nn.ReLU(), nn.Linear(7, 5))


NARROW = {
    "bottlenecks": Case(narrow_resnet, 32),
    "adversarial": Case(lambda: Deep(4, (1, 2), AdversarialBottleneck), 16),
    "sparse": Case(
        lambda: DMWide((4, 8, 12), (2, 1), 5, gated=True, sparse=True, buffers=False),
        16,
        SCALE,
    ),
    "dm-preact": Case(lambda: DMPreAct(4, (1, 2), 5), 16),
    "card": Case(lambda: Card((4, 12), (1, 2), 5), 16),
    "convnext": Case(lambda: convnext((1, 2), 8), 16),
    "vit": Case(narrow_vit, 16, {"heads": 2}),
    "xcit": Case(
        lambda: small_xcit(embed_dim=16, num_heads=2, depth=2, num_classes=5),
        16,
        {"patch": 4, "tokens_norm": True},
    ),
    "xcit nano": Case(
        lambda: small_xcit(embed_dim=128, num_heads=4, depth=1, num_classes=5, tokens_norm=False),
        16,
        {"patch": 4},
    ),
    "swin": Case(narrow_swin, 32),
    "chain": Case(
        chain,
        16,
        {
            "layers": "conv:stride=2 norm relu max_pool conv:padding=1 relu flatten linear relu "
            "linear"
        },
    ),
}

NAMES = {
    "convnext timm": Case(
        lambda: timm.models.ConvNeXt(num_classes=5, depths=(1, 2, 1, 1), dims=(8, 16, 16, 8)), 32
    ),
    "vit torchvision": Case(
        lambda: tv.VisionTransformer(16, 4, 2, 2, 16, 64, num_classes=5), 16, {"heads": 2}
    ),
    "swin timm": Case(
        lambda: timm.models.SwinTransformer(
            32, 4, num_classes=5, embed_dim=8, depths=(2, 2), num_heads=(2, 4), window_size=4
        ),
        32,
    ),
    "robust-wrn": Case(lambda: RobustWide((4, 8, 12), (1, 2), 5), 16),
    "wrn-a4": Case(lambda: RobustWide((4, 8, 12), (1, 2), 5, True), 16),
    "resnext-29": Case(lambda: CifarResNeXt(4, 1, 5), 16),
    "dm-wide": Case(lambda: DMWide((4, 8, 12), (2, 1), 5), 16),
}
"""Further names of the same parts."""
