"""A network's file, as --model names it: net.onnx, or net.pt:patch=8:mean=0.49,0.48,0.45."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, Literal

import robustjax as rj

FORM = re.compile(r"(.+?(\.onnx|\.pt|\.pth|\.safetensors))((?::[a-z_]+=.*)?)")


@dataclasses.dataclass(frozen=True)
class Onnx:
    """The arguments of `models.from_onnx` that say how images are read."""

    channels_first: bool | None = None


@dataclasses.dataclass(frozen=True)
class Torch:
    """The arguments of `models.from_torch`; `layers`, which has colons of its own, comes last."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    activation: str | None = None
    shortcut: Literal["activated", "raw"] | None = None
    head: Literal["linear", "cosine"] | None = None
    patch: int | None = None
    heads: int | None = None
    tokens_norm: bool | None = None
    layers: str | None = None


def stem(text: str) -> str | None:
    """The file's name without its suffix and folder; None if `text` names no file."""
    found = FORM.fullmatch(text)
    return Path(found[1]).stem if found else None


def logits_of(text: str) -> Any:
    """The network of a file, images (B, H, W, C) -> logits (B, K).

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: an unknown setting, or the file is not understood.
    """
    found = FORM.fullmatch(text)
    assert found is not None, text
    path, suffix, settings = found.groups()
    if suffix == ".onnx":
        return rj.models.from_onnx(path, **_arguments(Onnx(), path, settings))
    plain, _, layers = settings.partition(":layers=")
    return rj.models.from_torch(path, **_arguments(Torch(layers=layers or None), path, plain))[0]


def _arguments(base: Onnx | Torch, path: str, settings: str) -> dict[str, Any]:
    """':name=value:name=value' -> the arguments that are not None."""
    told = rj.spec.change(base, rj.spec.split(f"file{settings}")[1], Path(path).name)
    return {name: value for name, value in vars(told).items() if value is not None}
