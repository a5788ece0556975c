"""The contract of an adversarial-training method: two verbs, and optional parts with defaults.

A method sees one device's shard of the batch. `perturb` crafts, `loss` measures; a wrapper is a
method too. Each other part exists because some method of the literature needs it:

  init_rows   state per training example (SAT's targets, MMA's and CAT's eps)
  init_slot   state per position in the batch (Free's perturbation)
  init_frozen what is loaded once and no step changes (HAT's helper network)
  grads       how gradients are made (AWP wraps it, YOPO replaces it)
  update      the whole update (Free)
  control     what changes after an epoch (a curriculum's strength, an early end)
  craft_cost  passes through the model that crafting takes, for the listing
  loss_cost   passes that the loss and its gradient take
  model       required arguments of the model (the g-SCE family's heads)
  on_clean    whether it trains on clean images only
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from robustjax import losses
from robustjax.training.net import Net
from robustjax.training.state import TrainState
from robustjax.typing import Cost


class Batch(struct.PyTreeNode):
    """One device's shard of a batch, after augmentation.

    Attributes:
      image: (B, H, W, C) float32 in [0, 1].
      label: (B,) int32, the true class.
      target: (B, K) float32, what the training loss compares the output with (one-hot, smoothed,
        soft or mixed).
      index: (B,) int32, the un-augmented example's place in the data set: the key of `rows`. That
        of an extra example is -1 - its place in the pool; it has no row.
      source: (B,) int32, the stream the example comes from; 0 is the labelled training set, 1 the
        pool of extra examples.
      rows: this batch's rows of the method's per-example state, leading axis B.
      slot: the method's state per batch position, leading axis B.

    >>> batch = Batch(jnp.zeros((2, 8, 8, 1)), jnp.array([3, 1]), jnp.eye(10)[jnp.array([3, 1])],
    ...               index=jnp.arange(2), source=jnp.zeros(2))
    >>> batch.replace(target=batch.target * 0.9).target.shape
    (2, 10)
    """

    image: jax.Array
    label: jax.Array
    target: jax.Array
    index: jax.Array
    source: jax.Array
    rows: Any = ()
    slot: Any = ()


class Crafted(struct.PyTreeNode):
    """The result of `perturb`: images (B, H, W, C), running statistics, and what `loss` needs.

    >>> Crafted(jnp.zeros((2, 8, 8, 1)), stats={}).extra
    ()
    """

    x_adv: jax.Array
    stats: Any
    extra: Any = ()


class Aux(struct.PyTreeNode):
    """What a loss returns beside its value: statistics, rows and slot to commit, scalars to log.

    >>> Aux(stats={}, metrics={"accuracy": jnp.float32(0.5)}).rows
    ()
    """

    stats: Any
    metrics: dict[str, jax.Array]
    rows: Any = ()
    slot: Any = ()


class Gradients(struct.PyTreeNode):
    """Gradients averaged over all devices; `anchor`: where weight decay is taken (AWP moves it).

    >>> Gradients(grads={}, aux=Aux({}, {}), anchor={}).aux.metrics
    {}
    """

    grads: Any
    aux: Aux
    anchor: Any


Descend = Callable[[TrainState, Any, Any, jax.Array], TrainState]
"""(state, gradients, anchor, progress) -> state after one optimiser step (weights, EMA)."""


Action = Literal["continue", "rollback", "stop"]


class Method(abc.ABC):
    """An adversarial-training method; subclasses are `@config` classes, and final.

    >>> @rj.config.config
    ... class Darker(Method):
    ...     def perturb(self, net, params, batch, keys):
    ...         return Crafted(0.5 * batch.image, net.stats)
    ...     def loss(self, net, params, batch, crafted):
    ...         logits, stats = net.train(params, crafted.x_adv)
    ...         return cross_entropy(net, logits, batch).mean(), Aux(stats, {})
    >>> rj.training.AWP(Darker(), gamma=1e-2).inner
    Darker()
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @abc.abstractmethod
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        """Craft the training examples. `keys` (B,): one key per example."""

    @abc.abstractmethod
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        """This device's mean loss, a scalar, and what to commit."""

    @property
    def model(self) -> dict[str, Any]:
        """The arguments of `models.create` that the method fixes."""
        return {}

    @property
    def craft_cost(self) -> Cost:
        """Passes over the batch to craft it, in one training step."""
        return Cost(0, 0)

    @property
    def loss_cost(self) -> Cost:
        """Passes over the batch for the gradient of the weights, in one training step."""
        return Cost(1, 1)

    @property
    def on_clean(self) -> bool:
        """Whether it trains on clean images only; then clean accuracy chooses the checkpoint."""
        return False

    def init_rows(self, labels: jax.Array, num_classes: int) -> Any:
        """State per example of the data set, leading axis N; () for none."""
        return ()

    def init_slot(self, images: jax.Array) -> Any:
        """State per position of a batch shaped like `images` (B, H, W, C); () for none."""
        return ()

    def init_frozen(self, image_shape: Sequence[int], num_classes: int) -> Any:
        """State that no step changes, found as `net.frozen`; () for none."""
        return ()

    def control(self, scores: Sequence[float]) -> tuple[Method, Action]:
        """Choose how to continue, on the host, given each epoch's validation score, oldest first.

        Returns:
          (the method, in which only numbers may have changed; whether to 'continue', to 'rollback'
          to the best checkpoint, or to 'stop'). A rollback begins a new search for the best.
        """
        return self, "continue"

    def grads(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> Gradients:
        """The gradient of `loss`, averaged over all devices."""
        loss = functools.partial(self.loss, net, batch=batch, crafted=crafted)
        (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
        aux = aux.replace(metrics={"loss": value, **aux.metrics})
        return Gradients(net.mean(grads), aux, params)

    def update(
        self, net: Net, descend: Descend, state: TrainState, batch: Batch, keys: jax.Array
    ) -> tuple[TrainState, Aux]:
        """One training step: craft, differentiate, descend."""
        g = accumulated(self, net, state.params, batch, keys)
        return descend(state, g.grads, g.anchor, net.progress), g.aux


def accumulated(method: Method, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Gradients:
    """Craft and differentiate in `net.accumulate` slices, one after the other, and average.

    BatchNorm sees one slice at a time and commits in order, as it would on a smaller device.
    """

    def one(stats, part, draws, keys):
        here = net.replace(stats=stats, draws=draws)
        crafted = method.perturb(here, params, part, keys)
        return method.grads(here.replace(stats=crafted.stats), params, part, crafted)

    n = net.accumulate
    if n == 1:
        return one(net.stats, batch, net.draws, keys)

    def add(total, slice_):
        g = one(total.aux.stats, *slice_)
        sums = jax.tree.map(
            lambda t, a: t + a / n, (total.grads, total.anchor), (g.grads, g.anchor)
        )
        return Gradients(sums[0], Aux(g.aux.stats, {}), sums[1]), g.aux.replace(stats=())

    zeros = jax.tree.map(jnp.zeros_like, params)
    rows = batch, net.draws, keys
    slices = jax.tree.map(lambda a: a.reshape(n, -1, *a.shape[1:]), rows)
    total, aux = lax.scan(add, Gradients(zeros, Aux(net.stats, {}), zeros), slices)
    metrics = jax.tree.map(lambda a: a.mean(0), aux.metrics)
    rows, slot = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), (aux.rows, aux.slot))
    return total.replace(aux=Aux(total.aux.stats, metrics, rows, slot))


def cross_entropy(net: Net, logits: jax.Array, batch: Batch) -> jax.Array:
    """CE (B,) of train-mode logits (B, K) to the batch's targets, with the net's margin."""
    return jax.vmap(losses.cross_entropy)(logits - label_margin(net, batch), batch.target)


def label_margin(net: Net, batch: Batch) -> jax.Array:
    """(B, K): the net's margin at the labels, 0 elsewhere."""
    return net.margin * jax.nn.one_hot(batch.label, batch.target.shape[-1])


def accuracy(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Fraction of logits (B, K) whose largest entry is the label's."""
    return jnp.mean(logits.argmax(-1) == label)
