"""A per-device function as a program on all devices: the one pmap, and what stands in for it.

`jax.pmap` is in maintenance mode upstream; today it is `jit(shard_map)` underneath. We keep it for
its contract, a per-device function with explicit collectives, which is how a training step is
written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from robustjax.checks import INF, checked, shown
from robustjax.parallel.axes import AXIS, Device, along, check_axes
from robustjax.parallel.placement import constrain, joined
from robustjax.promotion import promoting


@checked(in_axes=check_axes, out_axes=check_axes, donate_argnums=(0, INF))
def data_parallel(
    function: Callable,
    in_axes: Any,
    out_axes: Any,
    donate_argnums: int | Sequence[int] = (),
    devices: Sequence[Device] | None = None,
) -> Callable:
    """Run a per-device function on all devices of all processes: the one pmap.

    An output with `out_axes=None` must have been reduced over `AXIS`: pmap returns device 0's value
    without checking the others. `emulate` checks: it rejects an output that was not reduced.

    Args:
      function: sees one device's shard; collectives reduce over `AXIS`.
      in_axes, out_axes: None for values all devices share, 0 for shards along the leading axis.
      donate_argnums: arguments whose memory the outputs may reuse.
      devices: the devices to run on; None is all.

    >>> mean = rj.parallel.data_parallel(lambda x: jax.lax.pmean(x, rj.parallel.AXIS), 0, None)
    >>> float(mean(jnp.full(jax.device_count(), 3.0)))  # one number for each device
    3.0
    """
    if devices is not None and not (
        len(devices) and all(isinstance(device, jax.Device) for device in devices)
    ):
        raise ValueError(f"devices must be a list such as jax.devices(), got {shown(devices)}")
    return jax.pmap(
        promoting(function),
        axis_name=AXIS,
        in_axes=in_axes,
        out_axes=out_axes,
        donate_argnums=donate_argnums,
        devices=devices,
    )


@checked(in_axes=check_axes, out_axes=check_axes)
def emulate(function: Callable, in_axes: Any, out_axes: Any) -> Callable:
    """The same program on one device: `jit(vmap)` over the shard axis, with the same axes.

    The reference that `data_parallel` is tested against, on as many shards as one likes.

    >>> mean = rj.parallel.emulate(lambda x: jax.lax.pmean(x, rj.parallel.AXIS), 0, None)
    >>> float(mean(jnp.arange(8.0)))  # eight emulated devices
    3.5
    """
    function = promoting(function)
    return jax.jit(jax.vmap(function, in_axes=in_axes, out_axes=out_axes, axis_name=AXIS))


@checked(in_axes=check_axes, out_axes=check_axes, donate_argnums=(0, INF))
def spread(
    function: Callable,
    in_axes: Any,
    out_axes: Any,
    donate_argnums: int | Sequence[int] = (),
    devices: Sequence[Device] | None = None,
) -> Callable:
    """The program of `data_parallel` where each device has a part of what all of them share.

    The compiler gathers a large array where it is needed and lets each device update its own part
    (fully sharded data parallelism): `jit(vmap)` over the shard axis, as `emulate`, with the
    shardings of `scatter`. Results differ from those of `data_parallel` by rounding.

    Args:
      function, in_axes, out_axes, donate_argnums, devices: as for `data_parallel`. Shared arguments
        stay where they are: put them in their parts by `scatter`. Shared outputs are in parts.

    >>> mean = rj.parallel.spread(lambda x: jax.lax.pmean(x, rj.parallel.AXIS), 0, None)
    >>> float(mean(jnp.full(jax.device_count(), 3.0)))  # one number for each device
    3.0
    """
    mesh = Mesh(np.asarray(jax.devices() if devices is None else devices), (AXIS,))
    mapped = jax.vmap(promoting(function), in_axes, out_axes, axis_name=AXIS)

    def program(*args):
        outputs = mapped(*args)
        return along(out_axes, outputs, lambda leaf, axis: constrain(leaf, axis, mesh))

    compiled = jax.jit(program, donate_argnums=donate_argnums)
    if jax.process_count() == 1 or devices is not None:
        return compiled

    return lambda *args: compiled(*along(in_axes, args, lambda a, axis: joined(a, axis, mesh)))
