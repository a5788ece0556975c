"""What an evaluation found."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from robustjax.files import replacing


@dataclasses.dataclass(frozen=True)
class Report:
    """What `evaluate` found; every accuracy is a fraction of all N examples.

    Attributes:
      clean: accuracy on the clean images.
      robust: accuracy under each attack.
      worst_case: the fraction that resists every attack.
      stderr: sqrt(p (1 - p) / N) of 'clean', 'worst_case' and each attack.
      zero_gradient: per gradient attack, the fraction of the attacked examples at which its
        gradient is exactly zero: at the clean image, or at the returned one if that still resists.
      warnings: sentences that a reader of the numbers must see.
      examples: 'index', 'label', 'prediction' (N,), and per attack name a dict of 'fooled',
        'prediction', 'distance' (N,). The distance is in the norm of the attack's own threat; an
        image that is misclassified clean is not attacked, counts as fooled, and has distance 0.
      adversarial: per attack the images (N, H, W, C).
      attacks: the configuration of each attack.
    """

    clean: float
    robust: dict[str, float]
    worst_case: float
    stderr: dict[str, float]
    zero_gradient: dict[str, float]
    warnings: list[str]
    examples: dict[str, Any] = dataclasses.field(repr=False)
    adversarial: dict[str, np.ndarray] = dataclasses.field(repr=False)
    attacks: dict[str, Any] = dataclasses.field(repr=False)

    def save_examples(self, path: str | os.PathLike) -> None:
        """Write the per-example table as a flat .npz: 'label', ..., '<attack>/fooled', ..."""
        flat = {}
        for name, column in self.examples.items():
            if isinstance(column, Mapping):
                flat |= {f"{name}/{part}": values for part, values in column.items()}
            else:
                flat[name] = column
        with replacing(path) as file:
            np.savez_compressed(file, **flat)

    def to_json(self, examples: bool = False) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers; the images stay out."""
        content = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("adversarial", "examples")
        }
        content["n"] = len(self.examples["label"])
        if examples:
            content["examples"] = jax.tree.map(lambda a: a.tolist(), self.examples)
        return jax.tree.map(lambda v: v.item() if hasattr(v, "item") else v, content)
