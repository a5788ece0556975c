"""Architectures that concatenate, and a transformer, in plain PyTorch; VGG."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from torch_residual_nets import Net, bare, conv, unit


def vgg(width, counts, classes):
    layers, channels = [], 3
    for factor, count in zip((1, 2, 4, 8, 8), counts, strict=True):
        for _ in range(count):
            layers.append(unit(channels, factor * width, bias=True))
            channels = factor * width
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return Net(layers, channels, classes)


class Inception(nn.Module):
    def __init__(self, channels, a, b, c, d, e, f):
        super().__init__()
        u = partial(unit, bias=True)
        self.branches = nn.ModuleList(
            [
                u(channels, a, 1),
                nn.Sequential(u(channels, b, 1), u(b, c)),
                nn.Sequential(u(channels, d, 1), u(d, e), u(e, e)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), u(channels, f, 1)),
            ]
        )

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


GOOGLENET = """64 96 128 16 32 32, 128 128 192 32 96 64; 192 96 208 16 48 64, 160 112 224 24 64 64,
128 128 256 24 64 64, 112 144 288 32 64 64, 256 160 320 32 128 128; 256 160 320 32 128 128,
384 192 384 48 128 128"""


def googlenet(width, counts, classes):
    layers, channels = [unit(3, width, bias=True)], width
    for stage, count in zip(GOOGLENET.split(";"), counts, strict=True):
        for row in stage.split(",")[:count]:
            a, b, c, d, e, f = (int(n) * width // 192 for n in row.split())
            layers.append(Inception(channels, a, b, c, d, e, f))
            channels = a + c + e + f
        layers.append(nn.MaxPool2d(3, 2, 1))
    return Net(layers[:-1], channels, classes)


class Dense(nn.Module):
    def __init__(self, channels, growth):
        super().__init__()
        self.new = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            conv(channels, 4 * growth, 1),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(),
            conv(4 * growth, growth),
        )

    def forward(self, x):
        return torch.cat([self.new(x), x], 1)


def densenet(width, counts, classes):
    layers, channels, growth = [conv(3, width)], width, width // 2
    for i, count in enumerate(counts):
        if i:
            half = conv(channels, channels // 2, 1)
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), half, nn.AvgPool2d(2)]
            channels //= 2
        for _ in range(count):
            layers.append(Dense(channels, growth))
            channels += growth
    return Net([*layers, nn.BatchNorm2d(channels), nn.ReLU()], channels, classes)


class Shuffle(nn.Module):
    def __init__(self, channels, out, down):
        super().__init__()
        half = out // 2
        self.left, s = None, 1 + down
        if down:
            self.left = nn.Sequential(
                bare(channels, channels, 3, 2, channels), unit(channels, half, 1)
            )
        self.right = nn.Sequential(
            unit(channels if down else half, half, 1),
            bare(half, half, 3, s, half),
            unit(half, half, 1),
        )

    def forward(self, x):
        left, right = (self.left(x), x) if self.left else x.chunk(2, 1)
        return F.channel_shuffle(torch.cat([left, self.right(right)], 1), 2)


def shufflenet(width, counts, classes):
    channels = 24 * width // 116
    layers = [unit(3, channels)]
    for i, count in enumerate(counts):
        out = 2**i * width
        for j in range(count):
            layers.append(Shuffle(channels, out, j == 0))
            channels = out
    last = 1024 * width // 116
    return Net([*layers, unit(channels, last, 1)], last, classes)


class EncoderLayer(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv = nn.LayerNorm(dim, 1e-6), nn.Linear(dim, 3 * dim)
        self.out, self.norm2 = nn.Linear(dim, dim), nn.LayerNorm(dim, 1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x):
        batch, tokens, dim = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, -1)
        y = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        x = x + self.out(y.transpose(1, 2).reshape(batch, tokens, dim))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, patch, image, width, counts, classes):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, (image // patch) ** 2 + 1, width))
        layers = (EncoderLayer(width, width // 64) for _ in range(counts[0]))
        self.layers, self.norm = nn.Sequential(*layers), nn.LayerNorm(width, 1e-6)
        self.linear = nn.Linear(width, classes)

    def forward(self, x):
        h = self.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.class_token.expand(len(h), -1, -1), h], 1) + self.positions
        return self.linear(self.norm(self.layers(h))[:, 0])
