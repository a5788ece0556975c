"""The scores that choose the best checkpoint."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from robustjax import data, models, parallel
from robustjax.data.resident import SHARE
from robustjax.evaluation import evaluate
from robustjax.outputs import logits_of
from robustjax.parallel import AXIS
from robustjax.training.step import bare
from robustjax.typing import Attack


class Validation:
    """Clean accuracy, and accuracy under `attack`, of the weights to be evaluated.

    Args:
      module: the model.
      images: to validate on.
      attack: None: clean accuracy alone, by a program of its own.
      key: of the attack.
      batch_size: images at once, all devices together.
    """

    def __init__(
        self,
        module: models.Network,
        images: data.Dataset,
        attack: Attack | None,
        key: jax.Array,
        batch_size: int,
    ):
        self._module, self._images, self._size = module, images, batch_size
        self._attack, self._key = attack, key
        self._resident: list[tuple[Any, Any]] = []

    def __call__(self, variables: Any) -> dict[str, float]:
        """'accuracy', and under an attack 'robust_accuracy', of variables on every device."""
        if self._attack is None:
            return {"accuracy": self._clean(variables)}
        variables = jax.tree.map(lambda a: a.addressable_data(0), variables)
        found = evaluate(
            models.apply(self._module, variables)[0],
            data.to_float(np.asarray(self._images.images)),
            self._images.labels,
            {"validation": self._attack},
            self._key,
            diagnose=False,
        )
        return {"accuracy": found.clean, "robust_accuracy": found.robust["validation"]}

    def _clean(self, variables: Any) -> float:
        program = _program(bare(self._module))
        counts = [program(variables, *block) for block in self._blocks()]
        right, bad = np.sum([np.asarray(count) for count in counts], 0)
        if bad:
            raise ValueError(f"the model's logits are NaN on {bad} validation images")
        return float(right / len(self._images))

    def _blocks(self) -> Iterable[tuple[Any, Any]]:
        """All images, on the devices from the first call on if they fit there."""
        if self._resident:
            return self._resident
        starts = range(0, len(self._images), self._size)
        if self._images.images.nbytes > SHARE * parallel.device_memory():
            return map(self._block, starts)
        self._resident = [self._block(at) for at in starts]
        return self._resident

    def _block(self, at: int) -> tuple[Any, Any]:
        """Images and labels from `at` on, on this process's devices; the last block repeats rows
        with the label -1."""
        devices, processes = jax.local_device_count(), jax.process_count()
        rows = data.shard(at + np.arange(self._size), jax.process_index(), processes)
        inside = rows < len(self._images)
        rows = np.minimum(rows, len(self._images) - 1)
        labels = np.where(inside, self._images.labels[rows], -1)
        block = parallel.split((self._images.images[rows], labels), devices)
        return parallel.place(block, 0)


@functools.cache
def _program(module: models.Network) -> Callable:
    """(variables, images, labels) -> how many are right, and how many have a NaN logit."""

    def counted(variables, images, labels):
        logits = jax.vmap(logits_of)(models.apply(module, variables)[0](data.to_float(images)))
        bad = jnp.isnan(logits).any(-1)
        right = (logits.argmax(-1) == labels) & ~bad
        return lax.psum(jnp.stack([right.sum(), (bad & (labels >= 0)).sum()]), AXIS)

    return parallel.data_parallel(counted, (None, 0, 0), None)
