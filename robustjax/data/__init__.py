"""Data sets as uint8 arrays, the order of their examples in training, and augmentation."""

from robustjax.data.augment import AUGMENTATIONS, Augment, augment, default_augment, to_float
from robustjax.data.batches import batch_indices, shard, steps_per_epoch
from robustjax.data.cutmix import cutmix
from robustjax.data.dataset import Dataset
from robustjax.data.load import SPLITS, available, load, register
from robustjax.data.memory import from_arrays
from robustjax.data.mixup import mixup
from robustjax.data.plan import Plan
from robustjax.data.pools import load_extra, open_pool
from robustjax.data.rows import Rows
from robustjax.data.tfds import prepare

__all__ = [
    "AUGMENTATIONS",
    "SPLITS",
    "Augment",
    "Dataset",
    "Plan",
    "Rows",
    "augment",
    "available",
    "batch_indices",
    "cutmix",
    "default_augment",
    "from_arrays",
    "load",
    "load_extra",
    "mixup",
    "open_pool",
    "prepare",
    "register",
    "shard",
    "steps_per_epoch",
    "to_float",
]
