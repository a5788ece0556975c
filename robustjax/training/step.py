"""The training step of one device: augment, let the method update, keep the state sound.

`parallel.data_parallel(step, IN_AXES, OUT_AXES)` is the program that trains; `emulate` its proof.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax

from robustjax import losses, models, parallel
from robustjax.config import check_number, config, static
from robustjax.data import Augment, to_float
from robustjax.parallel import AXIS
from robustjax.threats import map_threats
from robustjax.training.methods.base import Batch, Method
from robustjax.training.net import Net
from robustjax.training.optimizers import Optimizer
from robustjax.training.schedules import Piecewise, Schedule, warm_up
from robustjax.training.state import AXES, TrainState

T = TypeVar("T")

IN_AXES = (AXES, None, None, 0)
OUT_AXES = (AXES, None)
"""Device axes of the step: (state, method, key, batch) -> (state, metrics)."""


@config
class Recipe:
    """The optimiser card of a run: everything about training that is not the method.

    Its defaults are the unified baseline of "Bag of Tricks for Adversarial Training" (Pang et al.
    2021). Fractions are of the whole training.

    Attributes:
      epochs: passes over the training set.
      batch_size: over all devices.
      lr: learning rate where the schedule is 1.
      schedule: factor of the learning rate over time.
      lr_warmup: fraction of training over which the learning rate grows linearly from 0.
      eps_warmup: fraction of training over which the attack's eps grows linearly from 0.
      optimizer: momentum, decay, clipping.
      label_smoothing: s; the true class has 1 - s, each other s / (K - 1), in the outer loss only.
      ema: decay of the moving average of the weights; 0 keeps none.
      accumulate: slices each device works its share of the batch off in.
      sync_bn: BatchNorm sees the whole batch; False makes the device count a hyper-parameter.
      augment: what is done to a training image.
    """

    epochs: int = 110
    batch_size: int = 128
    lr: float = 0.1
    schedule: Schedule = Piecewise()
    lr_warmup: float = 0.0
    eps_warmup: float = 0.0
    optimizer: Optimizer = Optimizer()
    label_smoothing: float = 0.0
    ema: float = 0.0
    accumulate: int = static(1)
    sync_bn: bool = static(True)
    augment: Augment = Augment()

    def __post_init__(self):
        for name in ("epochs", "batch_size", "accumulate"):
            check_number(name, getattr(self, name), low=1)
        check_number("lr", self.lr)
        for name in ("lr_warmup", "eps_warmup", "label_smoothing", "ema"):
            check_number(name, getattr(self, name), 0, 1)


def create_state(
    module: nn.Module,
    method: Method,
    recipe: Recipe,
    key: jax.Array,
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    shards: int,
) -> TrainState:
    """The state before the first step.

    Args:
      module: the model.
      method: its rows, its slot and what it keeps frozen are made here.
      recipe: the optimiser card.
      key: for the initial weights.
      images: (N, H, W, C) the training set, of which only the shape matters.
      labels: (N,).
      num_classes: K.
      shards: devices that the batch, and so the slot, is spread over.
    """
    variables = models.init(module, key, images.shape[1:])
    params = variables.pop("params")
    batch = jnp.zeros((recipe.batch_size, *images.shape[1:]), jnp.float32)
    return TrainState(
        step=jnp.int32(0),
        updates=jnp.int32(0),
        bad_step=jnp.int32(-1),
        params=params,
        stats=variables,
        opt_state=recipe.optimizer.transform().init(params),
        ema=jax.tree.map(jnp.copy, params) if recipe.ema else (),
        rows=method.init_rows(jnp.asarray(labels), num_classes),
        slot=parallel.split(method.init_slot(batch), shards),
        frozen=method.init_frozen(images.shape[1:], num_classes),
    )


def make_step(
    module: nn.Module, recipe: Recipe, total_steps: int, num_classes: int
) -> Callable[[TrainState, Method, jax.Array, dict[str, jax.Array]], tuple[TrainState, dict]]:
    """Build the per-device step (state, method, key, batch) -> (state, metrics).

    `method` is an argument: its numbers are traced, so a new eps or beta compiles nothing. `batch`
    holds this device's image (b, H, W, C) uint8 and label, index (b,) int32. `key` is the run's:
    all randomness depends on (key, step, index) alone.

    Guarantees:
      A step whose loss or gradients are not finite changes nothing but `bad_step`.
    """
    tx = recipe.optimizer.transform()

    def rate(progress):
        return recipe.lr * recipe.schedule(progress) * warm_up(progress, recipe.lr_warmup)

    def descend(state, grads, anchor, progress):
        direction, opt_state = tx.update(grads, state.opt_state, anchor)
        params = jax.tree.map(lambda w, d: w - rate(progress) * d, state.params, direction)
        updates, ema = state.updates + 1, state.ema
        if recipe.ema:
            decay = jnp.minimum(recipe.ema, updates / (9.0 + updates))
            ema = optax.incremental_update(params, ema, 1 - decay)
        return state.replace(params=params, opt_state=opt_state, ema=ema, updates=updates)

    def step(state, method, key, batch):
        progress = (state.step + 1) / total_steps
        index, label = batch["index"], batch["label"]
        key = jax.random.fold_in(key, state.step)
        keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i)))(index)
        smooth = functools.partial(losses.smooth, num_classes=num_classes, s=recipe.label_smoothing)
        shard = Batch(
            image=jax.vmap(recipe.augment)(keys[:, 0], to_float(batch["image"])),
            label=label,
            target=jax.vmap(smooth)(label),
            index=index,
            source=jnp.zeros_like(index),
            rows=jax.tree.map(lambda table: table[index], state.rows),
            slot=state.slot,
        )
        net = Net(
            state.stats, progress, module, recipe.sync_bn, recipe.accumulate, frozen=state.frozen
        )
        method = scale_eps(method, warm_up(progress, recipe.eps_warmup))
        new, aux = method.update(net, descend, state, shard, keys[:, 1])
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


def scale_eps(tree: T, factor: jax.Array) -> T:
    """The same method with the eps of every threat in it multiplied."""
    return map_threats(lambda threat: type(threat)(threat.eps * factor), tree)


def scatter(table: Any, index: jax.Array, rows: Any) -> Any:
    """Write all devices' rows into the replicated per-example table; a negative index has none."""
    gather = functools.partial(lax.all_gather, axis_name=AXIS, tiled=True)
    where = gather(index)

    def write(t, r):
        return t.at[jnp.where(where < 0, len(t), where)].set(gather(r), mode="drop")

    return jax.tree.map(write, table, rows)


def keep_finite(old: TrainState, new: TrainState, metrics: dict[str, jax.Array]) -> TrainState:
    """`new` if it and the loss are finite and no step was bad before, else `old`, marked."""
    finite = jnp.isfinite(metrics["loss"])
    for leaf in jax.tree.leaves(new):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            finite &= jnp.isfinite(leaf).all()
    finite = lax.pmin(finite.astype(jnp.int32), AXIS) > 0  # the slot differs between devices
    good = finite & (old.bad_step < 0)
    kept = jax.tree.map(functools.partial(jnp.where, good), new, old)
    bad_step = jnp.where(finite | (old.bad_step >= 0), old.bad_step, old.step)
    return kept.replace(bad_step=bad_step)
