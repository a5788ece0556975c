"""The training step of one device: augment, let the method update, keep the state finite.

`program` runs it on all devices and compiles once for all numbers; `parallel.emulate` is the
single-device reference.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from robustjax import losses, models, parallel
from robustjax.data import Rows, cutmix, mixup, to_float
from robustjax.parallel import AXIS
from robustjax.threats._trees import map_threats, scaled
from robustjax.training.methods.base import Batch, Method
from robustjax.training.net import Net
from robustjax.training.placement import REPLICATED, Placement
from robustjax.training.recipes import Recipe
from robustjax.training.schedules import warm_up
from robustjax.training.state import AXES, TrainState

T = TypeVar("T")

IN_AXES = (AXES, None, None, 0)
OUT_AXES = (AXES, None)
"""Device axes of the step: (state, method, key, batch) -> (state, metrics)."""


def create_state(
    module: models.Network,
    method: Method,
    recipe: Recipe,
    key: jax.Array,
    images: np.ndarray | Rows,
    labels: np.ndarray,
    num_classes: int,
    shards: int,
) -> TrainState:
    """The state before the first step.

    Args:
      module: the model.
      method: the method, which makes its initial rows, slot and frozen state.
      recipe: everything that is not part of the method.
      key: for the initial weights.
      images: (N, H, W, C) the training set; only its shape matters.
      labels: (N,).
      num_classes: K.
      shards: the number of devices that share a batch, and so the slot.

    Raises:
      ValueError: the method does not support the recipe, or the network does not have K classes.
    """
    variables = models.init(module, key, images.shape[1:])
    models.check_classes(module, variables, images.shape[1:], num_classes)
    params = variables.pop("params")
    batch = jnp.zeros((recipe.batch_size, *images.shape[1:]), jnp.float32)
    rows = method.init_rows(jnp.asarray(labels), num_classes)
    if jax.tree.leaves(rows):
        name = type(method).__name__
        if mixer(recipe):
            raise ValueError(
                f"{name} keeps state per example, but cutmix and mixup blend two examples: turn "
                "them off"
            )
        if recipe.balance:
            raise ValueError(
                f"{name} keeps state per example, but with balance a batch may hold an example "
                "twice: turn it off"
            )
    return TrainState(
        step=jnp.int32(0),
        updates=jnp.int32(0),
        bad_step=jnp.int32(-1),
        params=params,
        stats=variables,
        opt_state=recipe.optimizer.transform().init(params),
        ema=jax.tree.map(jnp.copy, params) if recipe.ema else (),
        rows=rows,
        slot=parallel.split(method.init_slot(batch), shards),
        frozen=method.init_frozen(images.shape[1:], num_classes),
    )


def make_step(
    module: models.Network, recipe: Recipe, total_steps: int, num_classes: int
) -> Callable[[TrainState, Method, jax.Array, dict[str, jax.Array]], tuple[TrainState, dict]]:
    """Build the per-device step (state, method, key, batch) -> (state, metrics).

    The numbers of `method` and `recipe` may be traced: see `program`. `batch` holds this device's
    image (b, H, W, C) uint8 and label, index (b,) int32, and may hold target (b, K) float32. An
    example with a negative index is an extra one: it has no row in the per-example state, which
    treats it as new each time. `key` is the run's key: all randomness depends only on (key, step,
    index).

    Guarantees:
      A step whose loss or gradients are not finite changes only `bad_step`.
    """
    tx = recipe.optimizer.transform()

    def rate(progress):
        return recipe.lr * recipe.schedule(progress) * warm_up(progress, recipe.lr_warmup)

    def descend(state, grads, anchor, progress):
        direction, opt_state = tx.update(grads, state.opt_state, anchor)
        params = jax.tree.map(lambda w, d: w - rate(progress) * d, state.params, direction)
        updates, ema = state.updates + 1, state.ema
        if jax.tree.leaves(ema):
            decay = jnp.minimum(recipe.ema, updates / (9.0 + updates))
            ema = optax.incremental_update(params, ema, 1 - decay)
        return state.replace(params=params, opt_state=opt_state, ema=ema, updates=updates)

    def step(state, method, key, batch):
        progress = (state.step + 1) / total_steps
        index, label = batch["index"], batch["label"]
        key = jax.random.fold_in(key, state.step)
        of_example = jax.vmap(functools.partial(jax.random.fold_in, key))(index)
        if recipe.balance:  # an example may come twice, and then differs by its place
            place = lax.axis_index(AXIS) * len(index) + jnp.arange(len(index))
            of_example = jax.vmap(jax.random.fold_in)(of_example, place)
        keys = jax.vmap(lambda one: jax.random.split(one, 4))(of_example)
        of_augment, of_method, of_mix, of_dropout = (keys[:, k] for k in range(4))
        shard = Batch(
            image=jax.vmap(recipe.augment)(of_augment, to_float(batch["image"])),
            label=label,
            target=smoothed(recipe, index, batch.get("target", label), num_classes),
            index=index,
            source=(index < 0).astype(jnp.int32),
            rows=read_rows(state.rows, index, method.init_rows(label, num_classes)),
            slot=state.slot,
        )
        if mix := mixer(recipe):
            shard = mixed(mix, shard, of_mix)
        net = Net(
            state.stats,
            progress,
            module,
            recipe.sync_bn,
            recipe.accumulate,
            frozen=state.frozen,
            draws=of_dropout if models.is_random(module, batch["image"].shape[1:]) else None,
            ema=state.ema,
        )
        strength = recipe.eps_schedule(progress) * warm_up(progress, recipe.eps_warmup)
        method = scale_eps(method, strength)
        new, aux = method.update(net, descend, state, shard, of_method)
        stats = aux.stats if recipe.sync_bn else net.mean(aux.stats)
        new = new.replace(
            step=state.step + 1,
            stats=stats,
            rows=scatter(state.rows, index, aux.rows),
            slot=aux.slot,
        )
        metrics = net.mean(aux.metrics) | {"lr": rate(progress)}
        return keep_finite(state, new, metrics), metrics

    return step


def program(
    module: models.Network,
    total_steps: int,
    num_classes: int,
    home: Placement = REPLICATED,
    devices: tuple[parallel.Device, ...] | None = None,
) -> Callable:
    """The step on all devices: (state, method, recipe, key, batch) -> (state, metrics).

    Args:
      module: the network.
      total_steps: of the run.
      num_classes: K.
      home: where the state lives.
      devices: see `parallel.data_parallel`.

    Guarantees:
      Methods and recipes that differ only in numbers, and all seeds, share one compilation.
      No weights of the network stay alive in it.
    """
    return _program(bare(module), total_steps, num_classes, home, devices)


def bare(module: models.Network) -> models.Network:
    """An equal network that holds no weights, for caches."""
    return module.without_weights() if isinstance(module, models.Foreign) else module


@functools.cache
def _program(
    module: models.Network,
    total_steps: int,
    num_classes: int,
    home: Placement,
    devices: tuple[parallel.Device, ...] | None,
) -> Callable:
    def step(state, method, recipe, key, batch):
        one = make_step(module, recipe, total_steps, num_classes)
        return home.step(one, devices)(state, method, key, batch)

    in_axes = (*IN_AXES[:2], None, *IN_AXES[2:])
    return home.run(step, in_axes, OUT_AXES, devices)


def scale_eps(tree: T, factor: jax.Array) -> T:
    """A copy of a method with every threat's eps multiplied by `factor`."""
    return map_threats(lambda threat: scaled(threat, factor), tree)


def smoothed(recipe: Recipe, index: jax.Array, target: jax.Array, num_classes: int) -> jax.Array:
    """Targets (B, K) from labels (B,) or distributions (B, K), by the recipe's label smoothing."""
    s = jnp.full(len(index), recipe.label_smoothing)
    if recipe.extra_smoothing is not None:
        s = jnp.where(index < 0, recipe.extra_smoothing, s)
    return jax.vmap(lambda t, s: losses.smooth(t, num_classes, s))(target, s)


Mixer = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""(key, image, other) -> (mixed image, the share of `image` in it)."""


def mixer(recipe: Recipe) -> Mixer | None:
    """The function that mixes pairs of images; None if the recipe mixes none."""
    if recipe.cutmix:
        return cutmix
    return None if recipe.mixup is None else functools.partial(mixup, alpha=recipe.mixup)


def mixed(mix: Mixer, batch: Batch, keys: jax.Array) -> Batch:
    """Each example mixed with the one before it in the whole batch, across devices.

    The label is that of the larger share.
    """
    size = len(batch.label)
    before = lax.axis_index(AXIS) * size + jnp.arange(size) - 1
    examples = batch.image, batch.target, batch.label
    others = jax.tree.map(lambda a: lax.all_gather(a, AXIS, tiled=True)[before], examples)
    image, kept = jax.vmap(mix)(keys, batch.image, others[0])
    share = kept[:, None]
    return batch.replace(
        image=image,
        target=share * batch.target + (1 - share) * others[1],
        label=jnp.where(kept >= 0.5, batch.label, others[2]),
    )


def read_rows(table: Any, index: jax.Array, new: Any) -> Any:
    """The rows of the per-example table; for a negative index, those of a new example."""

    def read(t, n):
        known = (index >= 0).reshape(-1, *(1 for _ in n.shape[1:]))
        return jnp.where(known, t[jnp.maximum(index, 0)], n)

    return jax.tree.map(read, table, new)


def scatter(table: Any, index: jax.Array, rows: Any) -> Any:
    """Write all devices' rows into the replicated per-example table; skip negative indices."""
    gather = functools.partial(lax.all_gather, axis_name=AXIS, tiled=True)
    where = gather(index)

    def write(t, r):
        return t.at[jnp.where(where < 0, len(t), where)].set(gather(r), mode="drop")

    return jax.tree.map(write, table, rows)


def keep_finite(old: TrainState, new: TrainState, metrics: dict[str, jax.Array]) -> TrainState:
    """`new` if it and the loss are finite and no earlier step was bad, else `old`, marked."""
    finite = jnp.isfinite(metrics["loss"])
    for leaf in jax.tree.leaves(new):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            finite &= jnp.isfinite(leaf).all()
    finite = lax.pmin(finite.astype(jnp.int32), AXIS) > 0  # the slot differs between devices
    good = finite & (old.bad_step < 0)
    kept = jax.tree.map(functools.partial(jnp.where, good), new, old)
    bad_step = jnp.where(finite | (old.bad_step >= 0), old.bad_step, old.step)
    return kept.replace(bad_step=bad_step)
