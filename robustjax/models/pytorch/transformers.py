"""PyTorch's ConvNeXt, ViT, XCiT and Swin: torchvision, timm, and RobustBench's variants."""

from __future__ import annotations

import math

import jax.numpy as jnp

from robustjax.models.nets.convnext import ConvNeXtBlock, ConvNeXtBody, ConvStem
from robustjax.models.nets.layers import Conv
from robustjax.models.nets.swin import SwinBlock, SwinBody
from robustjax.models.nets.vit import HEAD, Encoder, Patches, ViTBody
from robustjax.models.nets.xcit import ClassBlock, PatchEmbedding, Pixels, XCiTBlock, XCiTBody
from robustjax.models.pytorch.names import Layout, Parts, Settings, Weights, under

STAGE = "body/stage{}_block{}"
WIDEST = 1024
"""Of the published ViTs whose heads have 64 entries."""
TOKENS_NORM = {128: False, 192: True, 384: True, 512: True, 768: True}
"""Whether the class blocks of the XCiT of this width normalise all tokens: nano's do not."""


def convnext(weights: Weights, settings: Settings) -> Parts:
    """Blocks by their depthwise kernels; a stem of patches, or of three convolutions and less."""
    counts, stages, widths = weights.blocks(), [], []
    block = ConvNeXtBlock(settings.activation, jnp.float32)
    for i, count in enumerate(counts, 1):
        widths.append(weights.shape(f"body/stage{i}_block1/conv", 4)[0])
        stages.append((block,) * count)
    convs = [f"stem/conv{i}" for i in range(1, 4) if f"stem/conv{i}" in weights]
    if convs:
        stem = ConvStem(
            tuple(weights.shape(conv, 4)[0] for conv in convs),
            (2, 2, 1)[: len(convs)],
            settings.activation,
            jnp.float32,
        )
    else:
        width, _, size, _ = weights.shape("stem", 4)
        stem = Conv(width, size, size, use_bias=True, padding=0)
    body = ConvNeXtBody(tuple(stages), tuple(widths), jnp.float32, stem_norm=not convs)
    return Parts(stem, body)


def vit(weights: Weights, settings: Settings) -> Parts:
    """The positions tell the number of tokens, and with the patches the image's size."""
    width, _, size, _ = weights.shape("stem/Dense_0", 4)
    tokens = weights.shape("body/positions", 3)[1] - 1
    if settings.heads is None and (width % HEAD or width > WIDEST):
        raise ValueError(
            f"pass the heads of the attention, which no weight of this ViT of width {width} tells: "
            "heads=16 for ViT-H (1280), ViT-g (1408) and ViT-G (1664)"
        )
    encoder = Encoder(settings.activation, jnp.float32, settings.heads)
    body = ViTBody(((encoder,) * weights.blocks()[0],), jnp.float32)
    return Parts(Patches(width, size, jnp.float32), body, size * math.isqrt(max(1, tokens)))


def xcit(weights: Weights, settings: Settings) -> Parts:
    """The temperatures tell the heads, the width which tokens are normalised, strides the patch."""
    convs = [i for i in range(1, 5) if f"body/embedding/conv{i}/conv" in weights]
    widths = tuple(weights.shape(f"body/embedding/conv{i}/conv", 4)[0] for i in convs)
    usual = 2 ** len(widths)
    if settings.patch is None:
        raise ValueError(
            f"pass the side of this XCiT's patches, which is in no weight: patch={usual} for large "
            "images; RobustBench's networks for CIFAR have patch=4"
        )
    if settings.patch not in [2**i for i in range(len(widths) + 1)]:
        raise ValueError(f"patch must be a power of two up to {usual}, got {settings.patch}")
    tokens_norm = settings.tokens_norm
    if tokens_norm is None:
        tokens_norm = TOKENS_NORM.get(widths[-1])
    if tokens_norm is None:
        raise ValueError(
            f"pass tokens_norm, which no weight of this XCiT of width {widths[-1]} tells: True if "
            "its class blocks normalise all tokens (False by default in timm)"
        )
    heads = weights.shape("body/stage1_block1/attention/temperature", 3)[0]
    counts, act = weights.blocks(), settings.activation
    body = XCiTBody(
        PatchEmbedding(widths, settings.patch, act, jnp.float32),
        (XCiTBlock(heads, act, jnp.float32),) * counts[0],
        (ClassBlock(heads, act, jnp.float32, tokens_norm),) * counts[-1],
        jnp.float32,
    )
    return Parts(Pixels(), body, 2 * usual)


def swin(weights: Weights, settings: Settings) -> Parts:
    """The tables of offsets tell heads and windows; every second block has them shifted."""
    stages, window = [], 1
    for i, count in enumerate(weights.blocks(), 1):
        blocks = []
        for j in range(1, count + 1):
            offsets, heads = weights.shape(f"body/stage{i}_block{j}/attention/offsets", 2)
            window = (math.isqrt(offsets) + 1) // 2
            blocks.append(SwinBlock(heads, window, j % 2 == 0, settings.activation, jnp.float32))
        stages.append(tuple(blocks))
    width, _, size, _ = weights.shape("stem", 4)
    stem = Conv(width, size, size, use_bias=True, padding=0)
    side = size * window * 2 ** (len(stages) - 1)
    return Parts(stem, SwinBody(tuple(stages), jnp.float32), side)


def _numbered(theirs: str, numbers: tuple[int, ...], ours: str) -> dict[str, str]:
    return {theirs.format(n): ours.format(i) for i, n in enumerate(numbers, 1)}


CONV_STEM = (
    _numbered("stem.stem.{}", (0, 3, 6), "stem/conv{}")
    | _numbered("stem.stem.{}", (1, 4, 7), "stem/norm{}")
)  # fmt: skip
HALVE = {"0": "norm", "1": "conv"}
CONVNEXT_TORCHVISION = Layout(
    "ConvNeXt of torchvision",
    {
        "features.0.0": "stem",
        "features.0.1": "body/stem_norm",
        "classifier.0": "body/norm",
        "classifier.2": "head",
    }
    | under(
        "features.{}.{}",
        STAGE,
        {
            "block.0": "conv",
            "block.2": "norm",
            "block.3": "mlp1",
            "block.5": "mlp2",
            "layer_scale": "gamma",
        },
    )
    | under("features.{}", "body/down{}", HALVE),
    convnext,
    "gelu",
)
CONVNEXT_TIMM = Layout(
    "ConvNeXt of timm",
    {"stem.0": "stem", "stem.1": "body/stem_norm", "head.norm": "body/norm", "head.fc": "head"}
    | CONV_STEM
    | under(
        "stages.{}.blocks.{}",
        STAGE,
        {
            "conv_dw": "conv",
            "norm": "norm",
            "mlp.fc1": "mlp1",
            "mlp.fc2": "mlp2",
            "gamma": "gamma",
        },
    )
    | under("stages.{}.downsample", "body/down{}", HALVE),
    convnext,
    "gelu",
)
CONVNEXT_AUTHORS = Layout(
    "ConvNeXt of its authors",
    {
        "downsample_layers.0.0": "stem",
        "downsample_layers.0.1": "body/stem_norm",
        "norm": "body/norm",
        "head": "head",
    }
    | under(
        "stages.{}.{}",
        STAGE,
        {
            "dwconv": "conv",
            "norm": "norm",
            "pwconv1": "mlp1",
            "pwconv2": "mlp2",
            "gamma": "gamma",
        },
    )
    | under("downsample_layers.{}", "body/down{}", HALVE),
    convnext,
    "gelu",
)
VIT_TORCHVISION = Layout(
    "ViT of torchvision",
    {
        "conv_proj": "stem/Dense_0",
        "class_token": "body/class_token",
        "encoder.pos_embedding": "body/positions",
        "encoder.ln": "body/norm",
        "heads.head": "head",
    }
    | under(
        "encoder.layers.encoder_layer_{}",
        "body/stage1_block{}",
        {
            "ln_1": "norm1",
            "self_attention.in_proj_weight": "qkv/kernel",
            "self_attention.in_proj_bias": "qkv/bias",
            "self_attention.out_proj": "out",
            "ln_2": "norm2",
            "mlp.0": "mlp1",
            "mlp.linear_1": "mlp1",
            "mlp.3": "mlp2",
            "mlp.linear_2": "mlp2",
        },
    ),
    vit,
    "gelu",
    ("heads",),
)
VIT_TIMM = Layout(
    "ViT or DeiT of timm",
    {
        "patch_embed.proj": "stem/Dense_0",
        "cls_token": "body/class_token",
        "pos_embed": "body/positions",
        "norm": "body/norm",
        "head": "head",
    }
    | under(
        "blocks.{}",
        "body/stage1_block{}",
        {
            "norm1": "norm1",
            "attn.qkv": "qkv",
            "attn.proj": "out",
            "norm2": "norm2",
            "mlp.fc1": "mlp1",
            "mlp.fc2": "mlp2",
        },
    ),
    vit,
    "gelu",
    ("heads",),
)
MLP = {"mlp.fc1": "mlp1", "mlp.fc2": "mlp2"}
XCIT = Layout(
    "XCiT of timm",
    {
        "pos_embed.token_projection": "body/embedding/positions",
        "cls_token": "body/class_token",
        "norm": "body/norm",
        "head": "head",
    }
    | under("patch_embed.proj.{}", "body/embedding/conv{}", {"0": "conv", "1": "norm"})
    | under(
        "blocks.{}",
        "body/stage1_block{}",
        MLP
        | {
            "norm1": "norm1",
            "attn.temperature": "attention/temperature",
            "attn.qkv": "attention/qkv",
            "attn.proj": "attention/out",
            "gamma1": "gamma1",
            "norm3": "norm2",
            "local_mp.conv1": "mixing/conv1",
            "local_mp.bn": "mixing/norm",
            "local_mp.conv2": "mixing/conv2",
            "gamma3": "gamma2",
            "norm2": "norm3",
            "gamma2": "gamma3",
        },
    )
    | under(
        "cls_attn_blocks.{}",
        "body/stage2_block{}",
        MLP
        | {
            "norm1": "norm1",
            **{f"attn.{name}": f"attention/{name}" for name in "qkv"},
            "attn.proj": "attention/out",
            "gamma1": "gamma1",
            "norm2": "norm2",
            "gamma2": "gamma2",
        },
    ),
    xcit,
    "gelu",
    ("patch", "tokens_norm"),
)
ATTENTION = {
    "norm1": "norm1",
    "attn.relative_position_bias_table": "attention/offsets",
    "attn.qkv": "attention/qkv",
    "attn.proj": "attention/out",
    "norm2": "norm2",
}
MERGE = {"norm": "norm", "reduction": "linear"}
SWIN_TORCHVISION = Layout(
    "Swin of torchvision",
    {
        "features.0.0": "stem",
        "features.0.2": "body/stem_norm",
        "norm": "body/norm",
        "head": "head",
    }
    | under("features.{}.{}", STAGE, ATTENTION | {"mlp.0": "mlp1", "mlp.3": "mlp2"})
    | under("features.{}", "body/down{}", MERGE),
    swin,
    "gelu",
)
SWIN_TIMM = Layout(
    "Swin of timm",
    {
        "patch_embed.proj": "stem",
        "patch_embed.norm": "body/stem_norm",
        "norm": "body/norm",
        "head.fc": "head",
    }
    | under("layers.{}.blocks.{}", STAGE, ATTENTION | MLP)
    | under("layers.{}.downsample", "body/down{}", MERGE),
    swin,
    "gelu",
)
TRANSFORMERS = (
    CONVNEXT_TORCHVISION,
    CONVNEXT_TIMM,
    CONVNEXT_AUTHORS,
    VIT_TORCHVISION,
    VIT_TIMM,
    XCIT,
    SWIN_TORCHVISION,
    SWIN_TIMM,
)
