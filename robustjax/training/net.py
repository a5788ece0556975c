"""The model as training methods see it: pure functions of the weights, explicit BatchNorm modes.

Every forward names its mode (see `models.BN`): `running`, `batch`, `commit` or `capture`. Dropout,
if the model has any, is on in every mode except `running`. An example keeps its dropout mask in all
forwards of a step (PyTorch draws a new one each time), so that a loss compares, and an attack
climbs, a single network. Collectives live here, so methods read like their papers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from robustjax.convolutions import with_fast_convolutions
from robustjax.models.adapters.base import Foreign, Network
from robustjax.models.nets.layers import BN
from robustjax.parallel import AXIS
from robustjax.typing import GradientAttack

EXAMPLE = "example"
"""The name of the axis that `jax.vmap` makes of a batch while single examples are attacked."""


class Net(struct.PyTreeNode):
    """A model at one step of training.

    Attributes:
      stats: the variable collections that are not trained by gradients (`batch_stats`, `centers`).
      progress: fraction of training done when this step ends, in (0, 1], traced.
      module: the network.
      sync_bn: reduce BatchNorm over all devices.
      accumulate: number of gradient-accumulation slices per device.
      margin: subtracted from the label's logit in the training loss (HE).
      frozen: constants of the method (HAT's helper network).
      draws: (B,) keys for each example's dropout; None if the model has none.
      ema: moving average of the weights before this step; () if the recipe keeps none.

    >>> module = rj.models.network({"name": "cnn", "width": 1}, num_classes=10)
    >>> Net(stats={}, progress=jnp.float32(0.5), module=module).accumulate
    1
    """

    stats: Any
    progress: jax.Array
    module: Network = struct.field(pytree_node=False)
    sync_bn: bool = struct.field(pytree_node=False, default=True)
    accumulate: int = struct.field(pytree_node=False, default=1)
    margin: float | jax.Array = 0.0
    frozen: Any = ()
    draws: jax.Array | None = None
    ema: Any = ()

    def forward(
        self,
        params: Any,
        x: jax.Array,
        mode: str = "running",
        stats: Any = None,
        method: str = "__call__",
        axes: tuple[str, ...] = (),
    ) -> tuple[Any, Any]:
        """Apply the model to a batch (B, H, W, C).

        Args:
          params: weights.
          x: images in [0, 1] (or what `method` takes).
          mode: how BatchNorm normalises and what it commits.
          stats: running statistics to start from; default `self.stats`.
          method: the module's method: `__call__` (logits), `features`, `both`, `stem_output`,
            `rest`, `taught`, `trust`.
          axes: mapped axes over which statistics are reduced, besides the devices.

        Returns:
          (output, statistics after this forward).
        """
        stats = self.stats if stats is None else stats
        bn = BN(mode, axes + ((AXIS,) if self.sync_bn else ()))
        variables = {"params": params, **stats}
        draws = () if mode == "running" or self.draws is None else (self.draws,)
        kept = {} if mode in ("running", "batch") else {"mutable": list(stats)}

        def run(variables, x, *draws):
            return self.module.apply(variables, x, bn, *draws, method=method, **kept)

        if isinstance(self.module, Foreign):  # our networks are fast as they stand
            run = with_fast_convolutions(run)
        found = run(variables, x, *draws)
        return (found[0], {**stats, **found[1]}) if kept else (found, stats)

    def logits(self, params: Any, x: jax.Array, stats: Any = None) -> jax.Array:
        """Logits (B, K) under running statistics: the model as it will be evaluated."""
        return self.forward(params, x, "running", stats)[0]

    def train(self, params: Any, x: jax.Array, stats: Any = None) -> tuple[jax.Array, Any]:
        """Logits (B, K) under batch statistics, and the updated running statistics."""
        return self.forward(params, x, "commit", stats)

    def craft(
        self,
        attack: GradientAttack,
        params: Any,
        keys: jax.Array,
        x: jax.Array,
        y: jax.Array,
        reference: Any = None,
        mode: str = "running",
        with_image: bool = False,
    ) -> tuple[jax.Array, Any]:
        """Attack each image of a batch.

        Args:
          attack: its schedules are evaluated at the current progress. In mode 'commit' every step
            of it updates the running statistics. Any of its numbers may be an array (B,), one per
            image, or (B, H, W, C).
          params: weights.
          keys: (B,) one key per example.
          x: (B, H, W, C) images.
          y: (B,) true labels.
          reference: (B, ...), what the attack's loss is compared with to be maximised; None: what
            the attack's own `target` says.
          mode: BatchNorm's mode during the attack.
          with_image: pass (logits, image) to the attack's loss instead of logits.

        Returns:
          (adversarial images, statistics).
        """

        attack = attack.at(self.progress)

        def one(attack, stats, draw, key, image, label, reference):
            net = self if draw is None else self.replace(draws=draw[None])

            def model(stats, image):
                logits, stats = net.forward(params, image[None], mode, stats, axes=(EXAMPLE,))
                return ((logits[0], image) if with_image else logits[0]), stats

            return attack.ascend(model, stats, key, image, label, reference)

        own = jax.tree.map(lambda number: 0 if jnp.ndim(number) in (1, 4) else None, attack)
        in_axes = (own, None, 0, 0, 0, 0, 0)
        vmapped = jax.vmap(one, in_axes=in_axes, out_axes=(0, None), axis_name=EXAMPLE)
        return lax.stop_gradient(vmapped(attack, self.stats, self.draws, keys, x, y, reference))

    def image_gradient(
        self,
        params: Any,
        x: jax.Array,
        objective: Callable[[jax.Array], jax.Array],
        mode: str = "running",
        stats: Any = None,
    ) -> tuple[jax.Array, jax.Array, Any]:
        """The gradient of a sum over the whole batch, on all devices, by its images.

        Args:
          params: weights.
          x: (B, H, W, C) images.
          objective: logits (B, K) -> values (B,).
          mode: BatchNorm's mode.
          stats: running statistics to start from; default `self.stats`.

        Returns:
          (gradients (B, H, W, C), values (B,), statistics after the forward).
        """

        def total(x):
            logits, new = self.forward(params, x, mode, stats)
            values = objective(logits)
            return values.sum(), (values, new)

        gradient, (values, new) = jax.grad(total, has_aux=True)(x)
        return gradient, values, new

    def position(self, size: int) -> tuple[jax.Array, int]:
        """The positions of a device's `size` examples in the whole batch, and the batch's size."""
        return lax.axis_index(AXIS) * size + jnp.arange(size), size * lax.axis_size(AXIS)

    def gather(self, tree: Any) -> Any:
        """All devices' arrays, concatenated along the leading axis, on every device."""
        return lax.all_gather(tree, AXIS, tiled=True)

    def mean(self, tree: Any) -> Any:
        """Average over all devices."""
        return lax.pmean(tree, AXIS)

    def sum(self, tree: Any) -> Any:
        """Sum over all devices."""
        return lax.psum(tree, AXIS)

    def mean_grad(self, loss: Callable[[Any], jax.Array]) -> Callable[[Any], Any]:
        """The gradient of a per-device loss, averaged over devices (not that of the average)."""
        return lambda params: self.mean(jax.grad(loss)(params))
