"""The programs of an evaluation, attack by attack, from shapes alone."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from robustjax import models
from robustjax.attacks._core.ensemble import Ensemble, stages_of
from robustjax.attacks._core.iterative import Example, Iterative, iterative
from robustjax.attacks._engine.model import one_example
from robustjax.attacks._engine.slots import SLOT, tile_program
from robustjax.attacks._engine.tiles import LARGEST_TILE
from robustjax.parallel import Device
from robustjax.promotion import promoting
from robustjax.scale.flops import Flops, count
from robustjax.scale.program import Program, compiled
from robustjax.typing import Attack, Cost

STUBBORN = 1e3
"""A logit that no image of the box overcomes."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One attack of an evaluation on a tile of images of each device.

    Attributes:
      attack: an ensemble's stage, or the attack itself.
      tile: the images on one device.
      steps: that it takes on an image which resists to the end.
      flops: of one step, on one device.
      program: which takes any number of steps in a call; its loop is counted once.
    """

    attack: Attack
    tile: int
    steps: int
    flops: Flops
    program: Program

    def rounds(self, images: int, devices: int) -> int:
        """How many tiles in turn so many images take, if all resist."""
        return -(-images // (devices * self.tile))


def leaves(attack: Attack, num_classes: int) -> Iterator[Attack]:
    """The stages of an attack, and theirs, in the order in which they run.

    >>> [type(stage).__name__ for stage in leaves(rj.attacks.AutoAttack(), 3)]
    ['APGD', 'APGD', 'APGD', 'FAB', 'FAB', 'Square']
    """
    if not isinstance(attack, Ensemble):
        yield attack
        return
    for stage in stages_of(attack, num_classes, None):
        yield from leaves(stage, num_classes)


def stages(
    attack: Attack,
    module: models.Network,
    variables: Any,
    image_shape: Sequence[int],
    num_classes: int,
    devices: tuple[Device, ...],
    tile: int = LARGEST_TILE,
) -> list[Stage]:
    """Compile each stage of an attack; stages of one program are compiled once.

    Args:
      attack: any attack.
      module, variables: the network and the shapes of its variables.
      image_shape: (H, W, C).
      num_classes: K.
      devices: to compile for.
      tile: the images on each device.
    """
    found, known = [], {}
    for leaf in leaves(attack, num_classes):
        part = iterative(leaf)
        kind = jax.tree.structure(part)
        if kind not in known:
            logits_fn, _ = models.apply(module, variables)
            known[kind] = _programs(part, logits_fn, tuple(image_shape), devices, tile)
        program, flops = known[kind]
        taken = steps(part, image_shape, num_classes)
        found.append(Stage(leaf, tile, taken, flops, program))
    return found


def _programs(part: Iterative, model: Any, image_shape: tuple[int, ...], devices: Any, tile: int):
    many, arguments = tile_program(part, model, image_shape, devices, tile)
    program = compiled(many, arguments)

    @promoting
    def step(model, key, images, labels, states):
        def one(key, x, y, state):
            return part.step(one_example(model), Example(key, x, y), state)

        return jax.vmap(one, axis_name=SLOT)(key, images, labels, states)

    @promoting
    def begin(model, key, images, labels):
        def one(key, x, y):
            return part.begin(one_example(model), Example(key, x, y))

        return jax.vmap(one, axis_name=SLOT)(key, images, labels)

    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), tile))
    images = jax.ShapeDtypeStruct((tile, *image_shape), jnp.float32)
    given = model, keys, images, jax.ShapeDtypeStruct((tile,), jnp.int32)
    states = jax.eval_shape(begin, *given)
    return program, count(jax.make_jaxpr(step)(*given, states))


def steps(attack: Attack, image_shape: Sequence[int], num_classes: int) -> int:
    """The steps that an attack takes on an image that resists to the end.

    It attacks one, of a linear model that the box holds no other class of.

    >>> steps(rj.attacks.PGD(steps=7), (4, 4, 1), num_classes=10)
    7
    """
    return int(_resisted(iterative(attack), tuple(image_shape), num_classes)[0])


def cost(attack: Attack, image_shape: Sequence[int], num_classes: int) -> Cost:
    """The model calls that such an image takes; negative if the attack does not count them.

    >>> cost(rj.attacks.PGD(steps=7), (4, 4, 1), num_classes=10)
    Cost(forwards=7, backwards=7)
    """
    spent = _resisted(iterative(attack), tuple(image_shape), num_classes)[1]
    return Cost(*(int(calls) for calls in spent))


@functools.partial(jax.jit, static_argnums=(1, 2))
@promoting
def _resisted(
    part: Iterative, image_shape: tuple[int, ...], num_classes: int
) -> tuple[jax.Array, Cost]:
    """The steps and the model calls of an attack on an image that resists."""
    others = 1e-3 * jnp.arange(num_classes, dtype=jnp.float32)
    example = Example(jax.random.key(0), jnp.full(image_shape, 0.5), jnp.int32(0))

    def model(x):
        return (others * x.mean()).at[0].add(STUBBORN)

    def step(carry):
        taken, state = carry
        return taken + 1, part.step(model, example, state)

    start = jnp.int32(0), part.begin(model, example)
    taken, state = jax.lax.while_loop(lambda carry: ~part.done(carry[1]), step, start)
    return taken, part.spent(state)
