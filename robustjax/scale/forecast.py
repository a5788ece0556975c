"""`plan`: compile what a run would run, and say whether it fits and how long it takes at best."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from robustjax import data
from robustjax.attacks._engine.tiles import LARGEST_TILE
from robustjax.checks import INF, checked
from robustjax.scale.evaluation import Stage, stages
from robustjax.scale.program import DoesNotFit, Program
from robustjax.scale.roofline import Roofline, roofline
from robustjax.scale.topology import slice_of
from robustjax.scale.training import Job
from robustjax.training.methods.base import Method
from robustjax.training.recipes import BASELINE, Recipe
from robustjax.typing import Attack


@dataclasses.dataclass(frozen=True)
class Choice:
    """Another way to run the step, and the bytes that it takes on a device.

    Attributes:
      name: e.g. 'accumulate 4'.
      bytes: in all, as compiled.

    >>> Choice("remat", 2**30).name
    'remat'
    """

    name: str
    bytes: float


@dataclasses.dataclass(frozen=True, eq=False)
class Forecast:
    """What `plan` found. Nothing in it was timed.

    Attributes:
      job: what was planned.
      parameters: the number of weights.
      program: as compiled, with one step of a run; None where the compiler refused it.
      needed, available: bytes on a device; `available` is None for an unknown chip.
      flops: of one device in a step; its `unbounded` loops were counted once.
      line: (bytes that no batch changes, bytes of an example), from compilations of this batch and
        of half of it; None if that was not asked or not possible.
      choices: what else would save memory.
      stages: of each attack of an evaluation, by the attack's name.
      images: how many images the evaluation attacks.

    >>> digits, recipe = rj.data.load("digits", "train"), rj.training.Recipe()
    >>> job = rj.scale.training.Job(
    ...     rj.training.PGDAT(), recipe, "cnn", digits, rj.scale.slice_of(None)
    ... )
    >>> found = Forecast(job, parameters=7, program=None, needed=3e9, available=2e9, flops=0,
    ...     unbounded=0, line=(1e9, 1e8), choices=(), stages={}, images=10)
    >>> found.fits, found.largest_batch // jax.device_count()
    (False, 10)
    """

    job: Job
    parameters: int
    program: Program | None
    needed: float
    available: float | None
    flops: int
    unbounded: int
    line: tuple[float, float] | None
    choices: tuple[Choice, ...]
    stages: Mapping[str, Sequence[Stage]]
    images: int

    @property
    def fits(self) -> bool:
        """Whether the device has the memory; True where nobody knows."""
        return self.available is None or self.needed <= self.available

    @property
    def largest_batch(self) -> int | None:
        """The largest batch of all devices that fits, by the line; None if it is unknown."""
        if self.line is None or self.available is None or self.line[1] <= 0:
            return None
        fixed, slope = self.line
        each = int((self.available - fixed) // slope)
        return max(0, each) * len(self.job.where.devices)

    @property
    def step(self) -> Roofline | None:
        """Seconds of a step at best; None where the chip or the program is unknown."""
        return self._seconds(self.program, self.flops)

    def stage(self, stage: Stage) -> Roofline | None:
        """Seconds at best of one step of an attack on a tile of each device."""
        return self._seconds(stage.program, stage.flops.count)

    def _seconds(self, program: Program | None, flops: int) -> Roofline | None:
        where = self.job.where
        if program is None or where.chip is None:
            return None
        return roofline(program, flops, len(where.devices), where.chip)

    def to_json(self) -> dict[str, Any]:
        """Everything, for files."""
        job, where, step = self.job, self.job.where, self.step
        program = self.program
        return {
            "topology": where.name,
            "devices": len(where.devices),
            "chip": None if where.chip is None else where.chip.name,
            "batch_size": job.recipe.batch_size,
            "shard_state": job.shard_state,
            "training_set": job.residence,
            "training_set_bytes_per_device": job.held,
            "parameters": self.parameters,
            "fits": self.fits,
            "bytes_needed": self.needed,
            "bytes_available": self.available,
            "memory": None if program is None else dataclasses.asdict(program.memory),
            "bytes_fixed_and_per_example": self.line,
            "largest_batch": self.largest_batch,
            "choices": [dataclasses.asdict(choice) for choice in self.choices],
            "collectives": [dataclasses.asdict(c) for c in program.collectives] if program else [],
            "traffic": program.traffic if program else None,
            "estimated_cycles": program.cycles if program else None,
            "loops_counted_once": list(program.unknown) if program else [],
            "flops_per_step_and_device": self.flops,
            "seconds_per_step_at_best": None if step is None else step._asdict(),
            "steps_per_epoch": job.steps_per_epoch,
            "epochs": job.recipe.epochs,
            "evaluation": {
                name: [self._stage_json(stage) for stage in found]
                for name, found in self.stages.items()
            },
        }

    def _stage_json(self, stage: Stage) -> dict[str, Any]:
        at_best = self.stage(stage)
        return {
            "attack": type(stage.attack).__name__,
            "steps": stage.steps,
            "tile": stage.tile,
            "bytes_needed": stage.program.memory.total,
            "flops_per_step_and_device": stage.flops.count,
            "seconds_per_step_at_best": None if at_best is None else at_best._asdict(),
            "rounds": stage.rounds(self.images, len(self.job.where.devices)),
        }


@checked(images=(1, INF))
def plan(
    method: Method,
    train: data.Dataset,
    *,
    model: Mapping[str, Any] | str | Any,
    recipe: Recipe = BASELINE,
    topology: str | None = None,
    extra: data.Dataset | None = None,
    attacks: Mapping[str, Attack] | None = None,
    images: int = 10_000,
    shard_state: bool = False,
    alternatives: bool = True,
) -> Forecast:
    """Compile a run for devices that need not be there, and estimate what it takes.

    The program is the one that `training.fit` calls, for one step of it, lowered from shapes: no
    array is made, and no step is taken. It holds the training set where the run would, so that it
    counts in memory; validation and checkpoints do not. Seconds are those of a roofline, which no
    run reaches.

    Args:
      method, train, model, recipe, extra, shard_state: see `training.fit`; of images only shapes
        matter.
      topology: a TPU slice such as 'v5p:4x4x4'; None: the devices at hand.
      attacks: by name, those of an evaluation to plan for as well.
      images: the number of images that the evaluation attacks.
      alternatives: compile half the batch, `accumulate`, `remat` and `shard_state` too, which says
        what the largest batch is and what would save memory: five compilations instead of one.

    Raises:
      ValueError: no such topology, or a batch that the devices cannot share.
      ImportError: a topology without libtpu.
      OSError: another process uses the TPU of this machine.

    >>> digits = rj.data.load("digits", "train")
    >>> rj.scale.plan(rj.training.PGDAT(), digits, model="cnn", topology="a pod")
    Traceback (most recent call last):
    ValueError: no topology is named 'a pod'; ...
    """
    job = Job(method, recipe, model, train, slice_of(topology), extra, shard_state)
    return forecast(job, attacks or {}, images, alternatives)


def forecast(job: Job, attacks: Mapping[str, Attack], images: int, alternatives: bool) -> Forecast:
    """`plan` of a job."""
    state, where, train, available = job.state(), job.where, job.train, job.available
    program, needed = _compile(job)
    half = _half(job) if alternatives else None
    line = None if half is None else _line(job, needed, half, _compile(half)[1])
    choices = _choices(job, line, needed, available) if alternatives else ()
    counted = job.flops()
    variables = {"params": state.weights, **state.stats}
    shape = train.image_shape
    evaluation = {
        name: _stages(attack, job.module, variables, shape, train.num_classes, where.devices)
        for name, attack in attacks.items()
    }
    return Forecast(
        job=job,
        parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params)),
        program=program,
        needed=needed,
        available=available,
        flops=counted.count,
        unbounded=counted.unbounded,
        line=line,
        choices=choices,
        stages=evaluation,
        images=images,
    )


def _stages(*about: Any) -> list[Stage]:
    """The stages of an attack on the largest tile that fits."""
    tile = LARGEST_TILE
    while True:
        try:
            return stages(*about, tile=tile)
        except DoesNotFit:
            if tile == 1:
                raise
            tile //= 2


def _compile(job: Job) -> tuple[Program | None, float]:
    """(the program, bytes), or (None, bytes) where the compiler refuses it."""
    try:
        program = job.compile()
    except DoesNotFit as refused:
        return None, refused.needed
    return program, float(program.memory.total)


def _half(job: Job) -> Job | None:
    """The same with half the batch; None where a device's share cannot be halved."""
    if job.per_device % (2 * job.recipe.accumulate):
        return None
    recipe = dataclasses.replace(job.recipe, batch_size=job.recipe.batch_size // 2)
    return dataclasses.replace(job, recipe=recipe)


def _line(job: Job, needed: float, half: Job, smaller: float) -> tuple[float, float]:
    """(bytes that no batch changes, bytes of an example) of the line through two batch sizes."""
    slope = (needed - smaller) / (job.per_device - half.per_device)
    return smaller - slope * half.per_device, slope


def _choices(job, line, needed, available) -> tuple[Choice, ...]:
    """What takes less, compiled: as few slices as fit by the line, and recomputed blocks."""
    found, each, before = [], job.per_device, job.recipe.accumulate
    if line is not None:
        slices = [n for n in range(2, each // before + 1) if each % (n * before) == 0]
        enough = [n for n in slices if available and line[0] + line[1] * each / n <= available]
        n = before * (enough or slices)[0]
        recipe = dataclasses.replace(job.recipe, accumulate=n)
        found.append(
            Choice(f"accumulate {n}", _compile(dataclasses.replace(job, recipe=recipe))[1])
        )
    if isinstance(job.model, Mapping) and "remat" in job.model and not job.model["remat"]:
        lighter = dataclasses.replace(job, model={**job.model, "remat": True})
        found.append(Choice("remat", _compile(lighter)[1]))
    if not job.shard_state and len(job.where.devices) > 1:
        parts = dataclasses.replace(job, shard_state=True)
        found.append(Choice("shard-state", _compile(parts)[1]))
    return tuple(choice for choice in found if choice.bytes < needed)
