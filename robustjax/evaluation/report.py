"""The result of an evaluation."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from robustjax.archives import write_arrays
from robustjax.attacks._core.iterative import largest_distance
from robustjax.config import encode
from robustjax.evaluation.worst_case import stderr


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of `evaluate`; every accuracy is a fraction of all N examples.

    Attributes:
      clean: accuracy on the clean images.
      robust: accuracy under each attack.
      worst_case: the fraction that resists every attack of `worst_case_over`.
      worst_case_over: the attacks that count in the worst case: those under the threat of the
        evaluation. What an attack outside it found is in `robust` alone.
      reached: where targets were given, per attack the fraction that is of its target class: by the
        attack, or misclassified as that class without one.
      stderr: sqrt(p (1 - p) / N) of 'clean', 'worst_case' and each attack.
      per_class: of the same, the accuracy on the images of each class, (K,); None where there are
        none.
      balanced: of the same, the mean over the classes that occur.
      rounded: per attack, where `evaluate` was given `levels`, these and 'survive', the fraction of
        its successes that still are where its images are rounded to them; None: no successes.
      zero_gradient: per gradient attack, the fraction of the attacked examples at which its
        gradient is exactly zero: at the clean image, or at the returned one if that still resists;
        of an ensemble, those at which the gradients of all of its objectives are.
      draws: of a model that draws, 'n' for each verdict, 'vote', and under 'accuracy' for 'clean',
        'worst_case' and each attack: 'fresh', with other draws for every image; its 95 % 'interval'
        (over the draws, on these images); and beside it 'fixed', where model, attack and verdict
        share the one draw that the model holds, None without diagnostics and for the worst case of
        a joined report (`Record`). {} for other models.
      warnings: sentences that a reader of the numbers must see.
      stages: per attack, what its stages did, in order: 'attack' (its configuration), 'path' (stage
        of stage of an ensemble), 'attacked' (images that still resisted), 'accuracy' and 'stderr'
        after it (given targets, the fraction not there yet), 'forwards' and 'backwards' (model
        calls for all images together, -1 where the attack does not say; those of an attack without
        'backwards' are its queries), 'seconds', and given a surrogate 'differed' (images on which
        its verdict was another one).
      minimum_norm: the attacks whose distances give the accuracy at any radius: `curve`.
      setting: what the numbers depend on beside the attacks: 'n', 'data_sha256', 'weights_sha256'
        (of the arrays of a `Partial`; None for another function), 'key', 'devices', 'versions', and
        the name of a 'success' of your own.
      key: the numbers of the PRNG key.
      examples: 'index', 'label', 'prediction', 'wrong' (N,), and per attack name a dict of
        'fooled', 'counts' (fooled by an image that counts in the worst case), 'prediction',
        'distance', 'stage' (N,), without predictions where the model returns no logits; given
        targets also 'target' and 'reached', given levels 'survives'. Of a model that draws 'fooled'
        and 'counts' are those of most draws, 'wrong' is the fraction of wrong answers, also under
        every attack, and so is 'seen', over the draws that chose the images of the worst case. The
        distance is in the norm of the attack's own threat (with an eps per feature in units of its
        largest entry: see `typing.Threat`), and inf where a minimum-norm attack found nothing; an
        image that is misclassified clean is not attacked, counts as fooled, and has distance 0. The
        stage is the row of `stages` that won; -1: none did.
      adversarial: per attack the images (N, H, W, C).
      attacks: the configuration of each attack.

    >>> images, labels = np.float32([0.75, 0.25, 0.25, 0.5]).reshape(2, 1, 1, 2), [0, 1]
    >>> def model(images):  # two pixels, two logits
    ...     return images[:, 0, 0]
    >>> key, attacks = jax.random.key(0), {"l2": rj.attacks.DeepFool(rj.threats.L2(1.0))}
    >>> found = rj.evaluation.evaluate(model, images, labels, attacks, key, diagnose=False)
    >>> found.curve("l2", eps=[0.1, 0.2, 0.5])["accuracy"]
    [1.0, 0.5, 0.0]
    """

    clean: float
    robust: dict[str, float]
    worst_case: float
    worst_case_over: list[str]
    reached: dict[str, float]
    stderr: dict[str, float]
    per_class: dict[str, list[float | None]] = dataclasses.field(repr=False)
    balanced: dict[str, float] = dataclasses.field(repr=False)
    rounded: dict[str, dict[str, Any]]
    zero_gradient: dict[str, float]
    draws: dict[str, Any] = dataclasses.field(repr=False)
    warnings: list[str]
    stages: dict[str, list[dict[str, Any]]] = dataclasses.field(repr=False)
    minimum_norm: list[str] = dataclasses.field(repr=False)
    setting: dict[str, Any] = dataclasses.field(repr=False)
    key: list[int] = dataclasses.field(repr=False)
    examples: dict[str, Any] = dataclasses.field(repr=False)
    adversarial: dict[str, np.ndarray] = dataclasses.field(repr=False)
    attacks: dict[str, Any] = dataclasses.field(repr=False)

    def curve(self, name: str, eps: Sequence[float]) -> dict[str, list[float]]:
        """The accuracy at other radii, from the distances that a minimum-norm attack found.

        A `Randomized` model has an image wrong where most draws are.

        Raises:
          ValueError: the attack of this name was given its radius, so its distances say nothing.
        """
        if name not in self.minimum_norm:
            raise ValueError(
                f"{name} is not a minimum-norm attack, so its one run knows one radius; use "
                "evaluation.curve"
            )
        return points(eps, self.examples[name]["distance"])

    def save_examples(self, path: str | os.PathLike) -> None:
        """Write the per-example table as a flat .npz: 'label', ..., '<attack>/fooled', ..."""
        write_arrays(path, self.flat_examples(), compress=True)

    def flat_examples(self) -> dict[str, np.ndarray]:
        """The per-example table as `save_examples` writes it."""
        flat = {}
        for name, column in self.examples.items():
            if isinstance(column, Mapping):
                flat |= {f"{name}/{part}": values for part, values in column.items()}
            else:
                flat[name] = column
        return flat

    def save_images(self, path: str | os.PathLike) -> None:
        """Write the adversarial images as an .npz: under each attack's name (N, H, W, C)."""
        write_arrays(path, self.adversarial, compress=True)

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


def points(eps: Sequence[float], distances: np.ndarray) -> dict[str, list[float]]:
    """A robustness curve: the fraction of examples whose distance is larger than each eps.

    Args:
      eps: E radii.
      distances: (N,) or (E, N), to the nearest adversarial image: 0 where the model is wrong
        anyway, inf where there is none.
    """
    check_radii(eps)
    radii = np.asarray([float(radius) for radius in eps])
    inside = distances <= largest_distance(radii)[:, None]
    fallen = np.isfinite(distances) & inside | (distances == 0)
    accuracy = [float(p) for p in 1 - fallen.mean(-1)]
    return {
        "eps": radii.tolist(),
        "accuracy": accuracy,
        "stderr": [stderr(p, fallen.shape[-1]) for p in accuracy],
    }


def check_radii(eps: Sequence[float]) -> None:
    """Raise ValueError unless all radii are numbers >= 0: nothing is within NaN."""
    for radius in eps:
        if not radius >= 0:
            raise ValueError(f"a radius must lie in [0, inf], got {radius!r}")


def describe(attack: Any) -> Any:
    """The configuration of an attack for JSON; of one that is no config what Python prints."""
    return encode(attack) if dataclasses.is_dataclass(attack) else repr(attack)
