"""The batches of a run: labelled examples, and a share of extra ones."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from robustjax.checks import check_fields, check_number, check_seed
from robustjax.data.batches import balanced, batch_indices, draw, shard, steps_per_epoch
from robustjax.data.dataset import Dataset


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The batches of a run.

    An epoch has as many examples as there are labelled ones, including its share of extra ones, as
    in Carmon et al. (2019) and Gowal et al. (2020). So the cost of an epoch does not depend on that
    share, and a pass over the labelled examples takes 1 / (1 - fraction) epochs.

    Args:
      train: the labelled examples.
      batch_size: over all devices and processes.
      seed: in [0, 2^32).
      extra: weakly labelled examples, or None.
      fraction: the share of a batch that is extra, in [0, 1), rounded to whole examples.
      balance: draw each class of `train` equally often, with replacement.

    Raises:
      ValueError: the fraction leaves no labelled example, or the extra examples have another shape
        or other classes.

    Guarantees:
      The labelled examples come in the order of `batch_indices`, as if there were no others. With
      `balance`, K batches hold each class equally often instead.
      Extra examples are drawn with replacement, as in Carmon et al.'s code: a step reads only its
      own examples of a memory-mapped pool, and memory does not grow with the pool.
      Every block of a batch holds its share of extra examples, to within one.

    >>> images, labels = np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 2
    >>> blank = rj.data.Dataset(images, labels, np.arange(6), "blank", "train", num_classes=2)
    >>> plan = rj.data.Plan(blank, batch_size=4, seed=0, extra=blank, fraction=0.5)
    >>> plan.indices(step=0).tolist()  # rows of train, and -1 - rows of extra
    [3, -4, 5, -6]
    """

    train: Dataset
    batch_size: int
    seed: int
    extra: Dataset | None = None
    fraction: float = 0.5
    balance: bool = False

    def __post_init__(self):
        check_fields(self)
        check_seed("seed", self.seed)
        check_number("batch_size", self.batch_size, 1)
        check_number("extra_fraction", self.fraction, 0, 1)
        if self.extra is None:
            return
        if self.extra_size == self.batch_size:
            raise ValueError(
                f"extra_fraction {self.fraction:g} leaves no labelled example in a batch of "
                f"{self.batch_size}; choose a smaller one"
            )
        for name in ("image_shape", "num_classes"):
            theirs, ours = getattr(self.extra, name), getattr(self.train, name)
            if theirs != ours:
                raise ValueError(f"{self.extra.name}: {name} is {theirs}, but {ours} in train")

    @property
    def steps_per_epoch(self) -> int:
        """The steps that see as many examples as there are labelled ones."""
        return steps_per_epoch(len(self.train), self.batch_size)

    @property
    def extra_size(self) -> int:
        """The number of extra examples in a batch."""
        return 0 if self.extra is None else round(self.fraction * self.batch_size)

    def batch(self, step: int, process: int = 0, processes: int = 1) -> dict[str, np.ndarray]:
        """This process's block of batch `step`, counted from 0.

        Returns:
          image (b, H, W, C) uint8, label (b,) int32 and index (b,) int32: the row in train, or
          -1 - the row in extra. If either set has soft targets, also target (b, K) float32.
        """
        index = shard(self.indices(step), process, processes)
        shapes = {"image": (self.train.image_shape, np.uint8), "label": ((), np.int32)}
        if self.soft:
            shapes["target"] = (self.train.num_classes,), np.float32
        batch = {name: np.empty((len(index), *s), dtype) for name, (s, dtype) in shapes.items()}
        parts = [(index >= 0, index, self.train)]
        if self.extra is not None:
            parts.append((index < 0, -1 - index, self.extra))
        for chosen, rows, source in parts:
            if chosen.any():
                for name, values in _examples(source, rows[chosen], self.soft).items():
                    batch[name][chosen] = values
        return batch | {"index": index}

    @property
    def soft(self) -> bool:
        """Whether some examples have soft targets."""
        return any(s is not None and s.targets is not None for s in (self.train, self.extra))

    def epoch(self, number: int, process: int = 0, processes: int = 1) -> np.ndarray:
        """This process's block of the `indices` of each step of an epoch: (steps, b) int32."""
        first = number * self.steps_per_epoch
        steps = range(first, first + self.steps_per_epoch)
        return np.stack([shard(self.indices(step), process, processes) for step in steps])

    @functools.cached_property
    def _of_class(self) -> list[np.ndarray]:
        """The rows of each class that train has."""
        labels = self.train.labels
        order = np.argsort(labels, kind="stable").astype(np.int32)
        return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)

    def indices(self, step: int) -> np.ndarray:
        """(batch_size,) int32: rows in train, evenly interleaved with -1 - rows in extra."""
        size, extra = self.batch_size, self.extra_size
        if self.balance:
            own = balanced(self.seed, step, self._of_class, size - extra)
        else:
            own = batch_indices(self.seed, step, len(self.train), size - extra)
        if self.extra is None or not extra:
            return own
        is_extra = np.diff(np.arange(size + 1) * extra // size) == 1
        index = np.empty(size, np.int32)
        index[~is_extra] = own
        index[is_extra] = -1 - draw(self.seed, step, len(self.extra), extra)
        return index


def _examples(source: Dataset, rows: np.ndarray, soft: bool) -> dict[str, np.ndarray]:
    """These examples of a data set; if `soft`, with targets, one-hot where it has none."""
    part = {"image": source.images[rows], "label": source.labels[rows]}
    if soft:
        targets = source.targets
        one_hot = np.eye(source.num_classes)
        part["target"] = one_hot[part["label"]] if targets is None else targets[rows]
    return part
