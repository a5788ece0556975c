"""What each training step sees: labelled examples, and beside them a share of extra ones."""

from __future__ import annotations

import dataclasses

import numpy as np

from robustjax.config import check_number
from robustjax.data.batches import batch_indices, draw, shard, steps_per_epoch
from robustjax.data.dataset import Dataset


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The batches of a run.

    An epoch is as many draws as there are labelled examples, whatever the share of extra ones among
    them, as Carmon et al. (2019) and Gowal et al. (2020) count: so the cost of an epoch does not
    depend on that share, and a pass over the labelled examples takes 1 / (1 - fraction) epochs.

    Args:
      train: the labelled examples.
      batch_size: over all devices and processes.
      seed: in [0, 2^32).
      extra: examples with labels of a lesser kind; None: there are none.
      fraction: of a batch that is extra, in [0, 1), to the nearest example.

    Raises:
      ValueError: the fraction leaves no labelled example; the extra ones are of another shape or
        have other classes.

    Guarantees:
      The labelled examples come in the order of `batch_indices`, as if there were no others; extra
      ones are drawn with replacement, as in Carmon et al.'s code. So no order of a large pool is
      ever held in memory, and of a memory-mapped one a step reads its own examples alone.
      Every block of a batch holds its share of extra examples, to within one.
    """

    train: Dataset
    batch_size: int
    seed: int
    extra: Dataset | None = None
    fraction: float = 0.5

    def __post_init__(self):
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
                raise ValueError(f"{self.extra.name}: {name} is {theirs}, and {ours} in train")

    @property
    def steps_per_epoch(self) -> int:
        """Steps until as many examples are drawn as there are labelled ones."""
        return steps_per_epoch(len(self.train), self.batch_size)

    @property
    def extra_size(self) -> int:
        """Extra examples in a batch."""
        return 0 if self.extra is None else round(self.fraction * self.batch_size)

    def batch(self, step: int, process: int = 0, processes: int = 1) -> dict[str, np.ndarray]:
        """This process's block of batch `step`, counted from 0.

        Returns:
          image (b, H, W, C) uint8, label (b,) int32, index (b,) int32: the row in train, or
          -1 - the row in extra; and, where some are soft, target (b, K) float32.
        """
        index = shard(self.indices(step), process, processes)
        shapes = {"image": (self.train.image_shape, np.uint8), "label": ((), np.int32)}
        if self.soft:
            shapes["target"] = (self.train.num_classes,), np.float32
        batch = {name: np.empty((len(index), *s), dtype) for name, (s, dtype) in shapes.items()}
        parts = [(index >= 0, index, self.train)]
        if self.extra is not None:
            parts.append((index < 0, -1 - index, self.extra))
        for mine, rows, source in parts:
            if mine.any():
                for name, values in read(source, rows[mine], self.soft).items():
                    batch[name][mine] = values
        return batch | {"index": index}

    @property
    def soft(self) -> bool:
        """Whether some examples have soft targets."""
        return any(s is not None and s.targets is not None for s in (self.train, self.extra))

    def indices(self, step: int) -> np.ndarray:
        """(batch_size,) int32: rows in train, and -1 - rows in extra, evenly among them."""
        size, extra = self.batch_size, self.extra_size
        own = batch_indices(self.seed, step, len(self.train), size - extra)
        if self.extra is None or not extra:
            return own
        place = np.arange(size + 1) * extra // size
        index = np.empty(size, np.int32)
        index[np.diff(place) == 0] = own
        index[np.diff(place) == 1] = -1 - draw(self.seed, step, len(self.extra), extra)
        return index


def read(source: Dataset, rows: np.ndarray, soft: bool) -> dict[str, np.ndarray]:
    """These examples of a data set; `soft`: with targets, one-hot where it has none."""
    part = {"image": source.images[rows], "label": source.labels[rows]}
    if soft:
        targets = source.targets
        one_hot = np.eye(source.num_classes)
        part["target"] = one_hot[part["label"]] if targets is None else targets[rows]
    return part
