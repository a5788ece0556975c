"""PyTorch's residual networks: torchvision, timm, pytorch-cifar, TRADES, DeepMind, RobustBench."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp

from robustjax.models.nets.blocks import MaxPool, Stages
from robustjax.models.nets.bottleneck import Bottleneck
from robustjax.models.nets.layers import BatchNorm, Conv, torch_uniform
from robustjax.models.nets.mean_sparse import GatedSparseBlock, SparseBlock, SparseNorm
from robustjax.models.nets.residual import (
    Block,
    NormedShortcutBlock,
    NormedShortcutBottleneck,
    PreActBlock,
    ProjectedBlock,
    RawShortcutBlock,
    Residual,
)
from robustjax.models.nets.same_padding import (
    GatedSamePaddedBlock,
    RawSamePaddedBlock,
    SamePaddedBlock,
)
from robustjax.models.pytorch.names import Layout, Parts, Settings, Weights, under

STAGE = "body/stage{}_block{}"
LARGE = 7
"""The stem's kernel in networks for large images: a stride of 2, and max pooling after it."""


def resnet(weights: Weights, settings: Settings) -> Parts:
    """Activation after the addition; the kernels of the blocks tell all sizes and groups."""
    stages = []
    for i, count in enumerate(weights.blocks(), 1):
        blocks = (_post(weights, settings, i, j) for j in range(1, count + 1))
        stages.append(tuple(blocks))
    width, _, size, _ = weights.shape("stem", 4)
    large = size == LARGE
    pool = MaxPool(3) if large else None
    body = Stages(tuple(stages), settings.activation, jnp.float32, pool=pool)
    return Parts(Conv(width, size, 1 + large), body)


def _post(weights, settings, stage, block):
    at, stride = f"body/stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1
    if f"{at}/conv3/conv" not in weights:
        features = weights.shape(f"{at}/conv2", 4)[0]
        return ProjectedBlock(features, stride, settings.activation, torch_uniform, jnp.float32)
    inner, of_group, *_ = weights.shape(f"{at}/conv2/conv", 4)
    features = weights.shape(f"{at}/conv3/conv", 4)[0]
    groups = max(1, inner // of_group)
    return Bottleneck(features, inner, stride, groups, settings.activation, jnp.float32)


def pre_activation(
    weights: Weights, settings: Settings, block: Block, norm: Any = BatchNorm
) -> Parts:
    """Activation before the convolutions, in blocks of this kind."""
    counts = weights.blocks()
    first = [f"body/stage{i}_block1" for i in range(1, len(counts) + 1)]
    last = "conv3" if f"{first[0]}/conv3" in weights else "conv1"
    widths = [weights.shape(f"{at}/{last}", 4)[0] for at in first]
    body = Residual(
        block,
        tuple(widths),
        tuple(counts),
        settings.activation,
        torch_uniform,
        final_norm="body/norm" in weights or "body/norm/norm" in weights,
        norm=norm,
    )
    return Parts(Conv(weights.shape("stem", 4)[0]), body)


def preact_resnet(weights: Weights, settings: Settings) -> Parts:
    """What the projections read cannot be seen, unless they have a BN after them."""
    if any(f"body/stage{i}_block1/shortcut_norm" in weights for i in range(1, 5)):
        return pre_activation(weights, settings, NormedShortcutBlock)
    if settings.shortcut is None:
        raise ValueError(
            "pass what the projections of this PreActResNet's shortcuts read: shortcut='activated' "
            "(pytorch-cifar, RobustBench's PreActBlockV2) or 'raw' (RobustBench's PreActBlock)"
        )
    blocks = {"activated": PreActBlock, "raw": RawShortcutBlock}
    return pre_activation(weights, settings, blocks[settings.shortcut])


def dm_wide_resnet(weights: Weights, settings: Settings) -> Parts:
    """DeepMind's wide ResNet, perhaps with gates, perhaps with MeanSparse."""
    gated = "body/stage1_block1/gate/squeeze" in weights
    if "body/stage1_block1/norm1/sparse" in weights:
        block = GatedSparseBlock if gated else SparseBlock
        return pre_activation(weights, settings, block, SparseNorm)
    block = GatedSamePaddedBlock if gated else SamePaddedBlock
    return pre_activation(weights, settings, block)


PRE = {"bn1": "norm1", "conv1": "conv1", "bn2": "norm2", "conv2": "conv2"}
POST = {"conv1": "conv1", "bn1": "norm1", "conv2": "conv2", "bn2": "norm2"}
DM = {"conv_0": "conv1", "conv_1": "conv2", "shortcut": "shortcut"}
GATE = {"se.fc1": "gate/squeeze", "se.fc2": "gate/excite"}


def starts_with_norm(weights: Weights) -> bool:
    """Whether there is a BN outside the blocks, which is missing in a PreActResNet."""
    return "body/norm" in weights


def has_bottlenecks(weights: Weights) -> bool:
    """Whether the blocks have three convolutions."""
    return starts_with_norm(weights) and "body/stage1_block1/conv3/conv" in weights


def ends_in_norm(weights: Weights) -> bool:
    """Whether the BN outside the blocks has the channels of the last ones, not of the stem."""
    if "body/norm" not in weights or "stem" not in weights:
        return False
    return weights.shape("body/norm/mean", 1) != weights.shape("stem", 4)[:1]


def _projection(conv: str, norm: str) -> dict[str, str]:
    return {f"{word}.0": conv for word in ("shortcut", "downsample")} | {
        f"{word}.1": norm for word in ("shortcut", "downsample")
    }


def _bottleneck(convs: tuple[str, ...], norms: tuple[str, ...]) -> dict[str, str]:
    names = {name: f"conv{i}/conv" for i, name in enumerate(convs, 1)}
    names |= {name: f"conv{i}/norm" for i, name in enumerate(norms, 1)}
    return names | _projection("shortcut/conv", "shortcut/norm")


HEADS = {"fc": "head", "linear": "head"}
ENDS = {"conv1": "stem", "bn1": "body/norm"}
BASIC = Layout(
    "ResNet with basic blocks",
    ENDS | under("layer{}.{}", STAGE, POST | _projection("shortcut", "shortcut_norm")) | HEADS,
    resnet,
    when=starts_with_norm,
)
DEEP = Layout(
    "ResNet with bottlenecks",
    ENDS
    | under(
        "layer{}.{}",
        STAGE,
        _bottleneck(("conv1", "conv2", "conv3"), ("bn1", "bn2", "bn3")),
    )
    | HEADS,
    resnet,
    when=has_bottlenecks,
)
CIFAR_RESNEXT = Layout(
    "ResNeXt of ResNeXt-DenseNet",
    {"conv_1_3x3": "stem", "bn_1": "body/norm", "classifier": "head"}
    | under(
        "stage_{}.{}",
        STAGE,
        _bottleneck(("conv_reduce", "conv_conv", "conv_expand"), ("bn_reduce", "bn", "bn_expand")),
    ),
    resnet,
)
PREACT = Layout(
    "PreActResNet",
    {"conv1": "stem", "bn": "body/norm"}
    | under("layer{}.{}", STAGE, PRE | _projection("shortcut", "shortcut_norm"))
    | HEADS,
    preact_resnet,
    asks=("shortcut",),
)
BINARY = Layout(
    "PreActResNet with normalised shortcuts",
    ENDS | under("layer{}.{}", STAGE, PRE | _projection("shortcut", "shortcut_norm")) | HEADS,
    preact_resnet,
    when=ends_in_norm,
)
ADVERSARIAL = Layout(
    "PreActResNet with bottlenecks of Chen et al. (2020)",
    ENDS
    | under(
        "layer{}.{}",
        STAGE,
        {
            "bn0": "norm1",
            "conv1": "conv1",
            "bn1": "norm2",
            "conv2": "conv2",
            "bn2": "norm3",
            "conv3": "conv3",
        }
        | _projection("shortcut", "shortcut_norm"),
    )
    | HEADS,
    partial(pre_activation, block=NormedShortcutBottleneck),
)
WIDE = Layout(
    "WideResNet",
    ENDS | under("block{}.layer.{}", STAGE, PRE | {"convShortcut": "shortcut"}) | HEADS,
    partial(pre_activation, block=PreActBlock),
)
ROBUST_WIDE = Layout(
    "WideResNet of RobustWRN or RobustResNet",
    {"stem_conv": "stem", "bn1": "body/norm", "norm1": "body/norm", "fc": "head"}
    | under(
        "blocks.{}.layer.{}", STAGE, PRE | {"convShortcut": "shortcut", "shortcut.0": "shortcut"}
    ),
    partial(pre_activation, block=PreActBlock),
)
DM_WIDE = Layout(
    "DMWideResNet",
    {"init_conv": "stem", "batchnorm": "body/norm", "logits": "head"}
    | under(
        "layer.{}.block.{}",
        STAGE,
        DM | GATE | {"batchnorm_0": "norm1", "batchnorm_1": "norm2"},
    ),
    dm_wide_resnet,
    "silu",
)
MEAN_SPARSE = Layout(
    "DMWideResNet with MeanSparse",
    {
        "init_conv": "stem",
        "batchnorm": "body/norm/norm",
        "meansparse_end": "body/norm/sparse",
        "logits": "head",
    }
    | under(
        "layer.{}.block.{}",
        STAGE,
        DM
        | GATE
        | {
            "batchnorm_0": "norm1/norm",
            "meansparse_0": "norm1/sparse",
            "batchnorm_1": "norm2/norm",
            "meansparse_1": "norm2/sparse",
            "meansparse_2": "sparse",
        },
    ),
    dm_wide_resnet,
    "silu",
)
DM_PREACT = Layout(
    "DMPreActResNet",
    {"conv_2d": "stem", "batchnorm": "body/norm", "logits": "head"}
    | under(
        "layer_{}.{}",
        STAGE,
        {
            "batchnorm_0": "norm1",
            "conv_2d_1": "conv1",
            "batchnorm_1": "norm2",
            "conv_2d_2": "conv2",
            "shortcut": "shortcut",
        },
    ),
    partial(pre_activation, block=RawSamePaddedBlock),
    "silu",
)
RESIDUAL = (
    WIDE,
    BINARY,
    BASIC,
    DEEP,
    PREACT,
    ADVERSARIAL,
    DM_WIDE,
    MEAN_SPARSE,
    DM_PREACT,
    ROBUST_WIDE,
    CIFAR_RESNEXT,
)
