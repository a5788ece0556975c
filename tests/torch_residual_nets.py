"""Residual architectures in plain PyTorch, as their papers and pytorch-cifar have them."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F


def conv(channels, features, size=3, stride=1, groups=1, bias=False):
    return nn.Conv2d(channels, features, size, stride, size // 2, groups=groups, bias=bias)


def unit(channels, features, size=3, stride=1, groups=1, bias=False, act=nn.ReLU):
    """conv-BN-act."""
    return nn.Sequential(
        conv(channels, features, size, stride, groups, bias), nn.BatchNorm2d(features), act()
    )


bare = partial(unit, act=nn.Identity)


class Excite(nn.Module):
    def __init__(self, channels, hidden, act=nn.ReLU):
        super().__init__()
        self.weigh = nn.Sequential(
            conv(channels, hidden, 1, bias=True),
            act(),
            conv(hidden, channels, 1, bias=True),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return x * self.weigh(x.mean((2, 3), keepdim=True))


class Net(nn.Module):
    """Layers, the spatial mean, a linear layer."""

    def __init__(self, layers, channels, classes):
        super().__init__()
        self.layers, self.linear = nn.Sequential(*layers), nn.Linear(channels, classes)

    def forward(self, x):
        return self.linear(self.layers(x).mean((2, 3)))


class PreAct(nn.Module):
    """BN-ReLU-conv for each of `convs`; the shortcut's convolution sees the first ReLU."""

    def __init__(self, channels, convs, stride, excite=None):
        super().__init__()
        features = convs[-1].out_channels
        self.norms = nn.ModuleList(nn.BatchNorm2d(c.in_channels) for c in convs)
        self.convs, self.excite = nn.ModuleList(convs), excite or nn.Identity()
        self.shortcut = None
        if stride != 1 or channels != features:
            self.shortcut = conv(channels, features, 1, stride)

    def forward(self, x):
        h = F.relu(self.norms[0](x))
        if self.shortcut:
            x = self.shortcut(h)
        h = self.convs[0](h)
        for norm, layer in zip(self.norms[1:], self.convs[1:], strict=True):
            h = layer(F.relu(norm(h)))
        return x + self.excite(h)


def preact_50(width, counts, classes):
    layers, channels = [conv(3, width)], width
    for i, count in enumerate(counts):
        inner = 2**i * width
        for j in range(count):
            s = 2 if i and not j else 1
            three = conv(channels, inner, 1), conv(inner, inner, 3, s), conv(inner, 4 * inner, 1)
            layers.append(PreAct(channels, three, s))
            channels = 4 * inner
    return Net([*layers, nn.BatchNorm2d(channels), nn.ReLU()], channels, classes)


def senet(width, counts, classes):
    layers, channels = [unit(3, width)], width
    for i, count in enumerate(counts):
        out = 2**i * width
        for j in range(count):
            s = 2 if i and not j else 1
            two = conv(channels, out, 3, s), conv(out, out)
            layers.append(PreAct(channels, two, s, Excite(out, out // 16)))
            channels = out
    return Net(layers, channels, classes)


class Aggregated(nn.Module):
    """The bottleneck of ResNeXt and RegNet, and of DPN where `dense` channels are appended."""

    def __init__(self, channels, inner, out, stride, groups, hidden=0, dense=0, project=False):
        super().__init__()
        out, self.added = out + dense, out
        self.branch = nn.Sequential(
            unit(channels, inner, 1),
            unit(inner, inner, 3, stride, groups),
            Excite(inner, hidden) if hidden else nn.Identity(),
            bare(inner, out, 1),
        )
        self.shortcut = bare(channels, out, 1, stride) if project else nn.Identity()

    def forward(self, x):
        y, d = self.branch(x), self.added
        x = self.shortcut(x)
        return F.relu(torch.cat([x[:, :d] + y[:, :d], x[:, d:], y[:, d:]], 1))


def resnext(cardinality, size, width, counts, classes):
    layers, channels = [unit(3, width, 1)], width
    for i, count in enumerate(counts):
        inner = cardinality * size * 2**i
        for j in range(count):
            s = 2 if i and not j else 1
            project = s != 1 or channels != 2 * inner
            layers.append(Aggregated(channels, inner, 2 * inner, s, cardinality, project=project))
            channels = 2 * inner
    return Net(layers, channels, classes)


def regnet(widths, group, gated, width, counts, classes):
    scale = width / widths[0]
    layers, channels = [unit(3, int(64 * scale))], int(64 * scale)
    for i, (out, count) in enumerate(zip(widths, counts, strict=True)):
        out = int(out * scale)
        for j in range(count):
            s = 2 if i > 1 and not j else 1
            groups = out // int(group * scale)
            hidden = round(0.25 * channels) if gated else 0
            project = s != 1 or channels != out
            layers.append(Aggregated(channels, out, out, s, groups, hidden=hidden, project=project))
            channels = out
    return Net(layers, channels, classes)


def dpn(width, counts, classes):
    channels = 64 * width // 96
    layers = [unit(3, channels)]
    for i, (count, dense) in enumerate(zip(counts, (16, 32, 24, 128), strict=True)):
        dense = dense * width // 96
        out = 256 * 2**i * width // 96
        for j in range(count):
            s = 2 if i and not j else 1
            layers.append(
                Aggregated(channels, width * 2**i, out, s, 32, dense=dense, project=not j)
            )
            channels = out + (j + 2) * dense
    return Net(layers, channels, classes)


class Inverted(nn.Module):
    def __init__(self, channels, out, expansion, size, stride, act, gated):
        super().__init__()
        inner = expansion * channels
        expand = unit(channels, inner, 1, act=act)
        if gated and expansion == 1:
            expand = nn.Identity()
        hidden = max(1, int(channels * 0.25))
        self.branch = nn.Sequential(
            expand,
            unit(inner, inner, size, stride, inner, act=act),
            Excite(inner, hidden, act) if gated else nn.Identity(),
            bare(inner, out, 1),
        )
        self.same, self.shortcut = stride == 1 and channels == out, None
        if stride == 1 and channels != out and not gated:
            self.shortcut = bare(channels, out, 1)

    def forward(self, x):
        y = self.branch(x)
        if self.shortcut:
            return y + self.shortcut(x)
        return y + x if self.same else y


def inverted(table, act, gated, last, width, counts, classes):
    layers, channels = [unit(3, width, act=act)], width
    for (expansion, out, size, stride), count in zip(table, counts, strict=True):
        out = out * width // 32
        for j in range(count):
            s = 1 if j else stride
            layers.append(Inverted(channels, out, expansion, size, s, act, gated))
            channels = out
    if last:
        layers.append(unit(channels, last * width // 32, 1))
        channels = last * width // 32
    return Net(layers, channels, classes)


def rows(*columns):
    return tuple(zip(*columns, strict=True))


EXPANSIONS = (1, 6, 6, 6, 6, 6, 6)
MOBILE = rows(EXPANSIONS, (16, 24, 32, 64, 96, 160, 320), (3,) * 7, (1, 1, 2, 2, 1, 2, 1))
EFFICIENT = rows(
    EXPANSIONS, (16, 24, 40, 80, 112, 192, 320), (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1)
)

mobilenet = partial(inverted, MOBILE, nn.ReLU, False, 1280)
efficientnet = partial(inverted, EFFICIENT, nn.SiLU, True, 0)
