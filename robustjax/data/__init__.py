"""Data sets as uint8 arrays, the order they are seen in, and how they are augmented."""

from robustjax.data.augment import Augment, augment, default_augment, to_float
from robustjax.data.batches import batch_indices, shard, steps_per_epoch
from robustjax.data.dataset import Dataset
from robustjax.data.load import SPLITS, available, load
from robustjax.data.tfds import prepare

__all__ = [
    "SPLITS",
    "Augment",
    "Dataset",
    "augment",
    "available",
    "batch_indices",
    "default_augment",
    "load",
    "prepare",
    "shard",
    "steps_per_epoch",
    "to_float",
]
