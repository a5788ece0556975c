"""Small PyTorch networks in the layouts that `models.from_torch` reads, and their golden files.

`python tests/torch_families.py` (with torch and safetensors) writes tests/golden/from_torch: a file
of weights for every case, in the format it stands for, and `logits.npz` with images and logits.
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

GOLDEN = Path(__file__).parent / "golden" / "from_torch"


def conv(channels, features, size=3, stride=1):
    return nn.Conv2d(channels, features, size, stride, size // 2, bias=False)


class PostBlock(nn.Module):
    """conv-BN-ReLU-conv-BN, plus the shortcut, ReLU."""

    def __init__(self, channels, features, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(channels, features, 3, stride), nn.BatchNorm2d(features)
        self.conv2, self.bn2 = conv(features, features), nn.BatchNorm2d(features)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != features:
            projection = conv(channels, features, 1, stride)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(features))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class PreBlock(nn.Module):
    """BN-ReLU-conv-BN-ReLU-conv, plus the shortcut of the input or of the first ReLU."""

    def __init__(self, channels, features, stride, raw=False, wide=False):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), conv(channels, features, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(features), conv(features, features)
        self.raw, self.projection = raw, None
        if stride != 1 or channels != features:
            projection = conv(channels, features, 1, stride)
            if wide:
                self.convShortcut = projection
            else:
                self.shortcut = nn.Sequential(projection)
            self.projection = [projection]  # in a list: registered under one name only

    def forward(self, x):
        h = F.relu(self.bn1(x))
        shortcut = x
        if self.projection:
            shortcut = self.projection[0](x if self.raw else h)
        return shortcut + self.conv2(F.relu(self.bn2(self.conv1(h))))


def stage(make, channels, features, count, stride):
    blocks = [make(channels, features, stride)]
    return nn.Sequential(*blocks, *(make(features, features, 1) for _ in range(count - 1)))


class Sixfold(nn.Module):
    """ResNet and PreActResNet of pytorch-cifar: conv1, [bn1], layer1 to layer4, [bn], linear."""

    def __init__(self, make, width, counts, bn1=False, bn=False):
        super().__init__()
        self.conv1 = conv(3, width)
        self.bn1 = nn.BatchNorm2d(width) if bn1 else None
        channels = width
        for i, count in enumerate(counts):
            features = width * 2**i
            setattr(self, f"layer{i + 1}", stage(make, channels, features, count, 1 + (i > 0)))
            channels = features
        self.stages = len(counts)
        self.bn = nn.BatchNorm2d(channels) if bn else None
        self.linear = nn.Linear(channels, 5)

    def forward(self, x):
        h = self.conv1(x)
        if self.bn1 is not None:
            h = F.relu(self.bn1(h))
        for i in range(self.stages):
            h = getattr(self, f"layer{i + 1}")(h)
        if self.bn is not None:
            h = F.relu(self.bn(h))
        return self.linear(h.mean((2, 3)))


class Wide(nn.Module):
    """WideResNet of TRADES: conv1, block1 to block3, bn1, fc, and a block that is never called."""

    def __init__(self, width, factor, count):
        super().__init__()

        def make(*shape):
            return PreBlock(*shape, wide=True)

        self.conv1 = conv(3, width)
        channels = width
        for i in range(3):
            block = nn.Module()
            features = factor * width * 2**i
            block.layer = stage(make, channels, features, count, 1 + (i > 0))
            setattr(self, f"block{i + 1}", block)
            channels = features
        self.sub_block1 = nn.Module()
        self.sub_block1.layer = stage(make, width, factor * width, 1, 1)
        self.bn1, self.fc = nn.BatchNorm2d(channels), nn.Linear(channels, 5)

    def forward(self, x):
        h = self.conv1(x)
        for block in (self.block1, self.block2, self.block3):
            h = block.layer(h)
        return self.fc(F.relu(self.bn1(h)).mean((2, 3)))


class Normalise(nn.Module):
    """(x - mean) / std with buffers of shape (1, 3, 1, 1)."""

    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1))

    def forward(self, x):
        return (x - self.mean) / self.std


MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, how its file wraps the weights, and what `from_torch` must be told."""

    make: object
    file: str
    options: dict = dataclasses.field(default_factory=dict)
    prefix: str = ""
    normalised: str = ""  # 'arguments', 'buffers' or 'wrapper'


def preact(raw, **norms):
    def make(width, counts):
        return Sixfold(lambda *shape: PreBlock(*shape, raw=raw), width, counts, **norms)

    return make


CASES = {
    "resnet": Case(
        lambda width, counts: Sixfold(PostBlock, width, counts, bn1=True),
        "resnet.pt",
        {"mean": MEAN, "std": STD},
        prefix="module.",
        normalised="arguments",
    ),
    "preact-final-bn": Case(
        preact(False, bn=True), "preact.pth", {"shortcut": "activated"}, normalised="wrapper"
    ),
    "preact-raw": Case(preact(True), "preact_raw.pt", {"shortcut": "raw"}, normalised="buffers"),
    "wide": Case(lambda width, counts: Wide(width, 2, counts[0]), "wide.safetensors"),
}


def build(name, width, counts, seed):
    """A random network of a case -> (state_dict as its file holds it, forward function)."""
    torch.manual_seed(seed)
    case = CASES[name]
    net = case.make(width, counts)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
            module.running_mean.normal_(0.0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    state = {case.prefix + key: value for key, value in net.state_dict().items()}
    normalise = Normalise(MEAN, STD)
    if case.normalised == "buffers":
        state |= {"mu": normalise.mean, "sigma": normalise.std}
    if case.normalised == "wrapper":
        state = {f"1.{key}": value for key, value in state.items()}
        state |= {f"0.{key}": value for key, value in normalise.state_dict().items()}
    whole = nn.Sequential(normalise if case.normalised else nn.Identity(), net)
    return state, whole.requires_grad_(False).eval()


def write_golden():
    GOLDEN.mkdir(parents=True, exist_ok=True)
    x = torch.rand((4, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    arrays = {"images": x.permute(0, 2, 3, 1).numpy()}
    for seed, (name, case) in enumerate(CASES.items()):
        state, net = build(name, 2, (2, 1, 1, 1), seed)
        path = GOLDEN / case.file
        if case.file.endswith(".safetensors"):
            save_file(state, path)
        elif case.file.endswith(".pth"):  # as PyTorch wrote before 1.6
            torch.save(state, path, _use_new_zipfile_serialization=False)
        else:
            torch.save({"net": state, "epoch": 3}, path)
        arrays[name] = net(x).numpy()
    np.savez(GOLDEN / "logits.npz", **arrays)


if __name__ == "__main__":
    write_golden()
