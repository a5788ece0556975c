"""A forecast in words."""

from __future__ import annotations

from collections import Counter

from robustjax.checks import checked
from robustjax.report.cells import align
from robustjax.scale.evaluation import Stage
from robustjax.scale.forecast import Forecast

GIB = 2**30

RESIDENCE = {
    "replicated": "the training set, on every device",
    "sharded": "of the training set, which is spread over the devices",
    "streamed": "of the training set, whose batches come from the host",
}

LANES = 128
"""Of a TPU's vector: the last axis of a layout is padded to a multiple."""


@checked
def page(found: Forecast) -> str:
    """What `robustjax plan` prints.

    >>> digits, recipe = rj.data.load("digits", "train"), rj.training.Recipe()
    >>> job = rj.scale.training.Job(
    ...     rj.training.PGDAT(), recipe, "cnn", digits, rj.scale.slice_of(None)
    ... )
    >>> found = Forecast(job, parameters=7, program=None, needed=3e9, available=2e9, flops=0,
    ...     unbounded=0, line=None, choices=(), stages={}, images=10)
    >>> page(found).splitlines()[-1]
    'it does not fit: it needs 2.79 of 1.86 GiB a device, 0.93 GiB too much; a smaller ...'
    """
    parts = [_title(found), _memory(found)]
    if found.program is not None:
        parts += [_collectives(found), _time(found)]
    parts += [_evaluation(found, name) for name in found.stages]
    return "\n\n".join(parts)


def verdict(found: Forecast) -> str:
    """One sentence: it fits, or by how much it does not and what would help.

    >>> import types
    >>> verdict(types.SimpleNamespace(fits=True, needed=2**30, available=2**31))
    'it fits: 1.00 of 2.00 GiB a device'
    """
    if found.available is None:
        return f"it needs {_size(found.needed)} a device; the device's memory is unknown"
    have = f"{found.needed / GIB:.2f} of {_gib(found.available)} a device"
    if found.fits:
        return f"it fits: {have}"
    more = found.needed - found.available
    text = f"it does not fit: it needs {have}, {_gib(more)} too much"
    helps = [f"--{choice.name}" for choice in found.choices if choice.bytes <= found.available]
    batch = _usable(found)
    if batch:
        helps.append(f"--batch-size {batch}")
    if not helps:
        return f"{text}; a smaller network, or chips with more memory, would help"
    return f"{text}; any of these would help: {', '.join(helps)}, or more chips"


def _usable(found: Forecast) -> int:
    """The largest batch that fits and that the devices can share evenly."""
    each = len(found.job.where.devices) * found.job.recipe.accumulate
    return (found.largest_batch or 0) // each * each


def _title(found: Forecast) -> str:
    job, where = found.job, found.job.where
    network = getattr(job.model, "get", lambda _: None)("name") or str(job.model)
    chip = where.chip.name if where.chip else where.name
    return "\n".join(
        [
            f"{type(job.method).__name__}, {network}, {found.parameters / 1e6:.1f} M weights, "
            f"images {' x '.join(map(str, job.train.image_shape))}",
            f"batch {job.recipe.batch_size:,} on {where.name}: {where.chips} x {chip}, "
            f"{job.per_device} examples on each of {len(where.devices)} devices"
            + (", the state in parts" if job.shard_state else ""),
            "Compiled, never run: bytes are the compiler's, seconds an estimate at the peak.",
        ]
    )


def _memory(found: Forecast) -> str:
    lines = ["memory of a device"]
    if found.program is not None:
        about, job = found.program.memory, found.job
        parts = {
            "arguments": about.arguments,
            "outputs": about.outputs,
            "temporaries": about.temporaries,
            "code": about.code,
        }
        lines += [f"  {name:<22}{_size(size):>12}" for name, size in parts.items()]
        lines[1] += f"  ({_size(job.held)} {RESIDENCE[job.residence]})"
    lines.append(f"  {'in all':<22}{_size(found.needed):>12}")
    if found.available is not None:
        lines.append(f"  {'available':<22}{_size(found.available):>12}")
    if found.largest_batch is not None:
        largest = f"{_usable(found):>12,}"
        lines.append(
            f"  {'largest batch':<22}{largest}  (a line through this batch and half of it)"
        )
    for choice in found.choices:
        lines.append(f"  {'with ' + choice.name:<22}{_size(choice.bytes):>12}  (compiled)")
    return "\n".join([*lines, verdict(found)])


def _collectives(found: Forecast) -> str:
    assert found.program is not None
    runs: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for each in found.program.collectives:
        runs[each.opcode] += each.times
        sizes[each.opcode] += each.times * each.bytes
    if not runs:
        return "collectives of a step: none"
    rows = [("collectives of a step", "number", "bytes a device")]
    rows += [(code, str(runs[code]), _size(sizes[code])) for code in runs]
    return align(rows, 1, False)


def _time(found: Forecast) -> str:
    assert found.program is not None
    lines = [
        f"model FLOPs of a step     {found.flops:.3g} a device, "
        f"{found.flops * len(found.job.where.devices):.3g} in all",
        f"traffic of a step         {_size(found.program.traffic)} a device, at most",
    ]
    loops = max(found.unbounded, len(found.program.unknown))
    if loops:
        lines.append(f"{loops} loops whose length depends on the data were counted once")
    if _idle_lanes(found):
        lines.append(
            f"{found.job.per_device} examples a device: layers of few channels fill a TPU's "
            f"{LANES} lanes only with a multiple of {LANES} (docs/scale.md)"
        )
    step = found.step
    if step is None:
        return "\n".join([*lines, "no estimate of seconds: the table of chips lacks this device"])
    each, epochs = found.job.steps_per_epoch, found.job.recipe.epochs
    return "\n".join(
        [
            *lines,
            f"seconds of a step         {step.seconds:.3g} at best, bound by {step.bound} "
            f"(compute {step.compute:.3g}, memory {step.memory:.3g}, links {step.links:.3g})",
            f"an epoch, {each} steps".ljust(26) + _duration(each * step.seconds),
            f"{epochs} epochs".ljust(26) + _duration(epochs * each * step.seconds),
        ]
    )


def _idle_lanes(found: Forecast) -> bool:
    """Whether the examples of a device leave lanes of a TPU idle."""
    chip = found.job.where.chip
    return chip is not None and chip.name.startswith("TPU") and bool(found.job.per_device % LANES)


def _evaluation(found: Forecast, name: str) -> str:
    rows = [("stage", "images a device", "steps", "memory", "FLOPs a step", "seconds at best")]
    total = 0.0
    for stage in found.stages[name]:
        seconds = _seconds(found, stage)
        total += seconds or 0.0
        rows.append(
            (
                type(stage.attack).__name__,
                str(stage.tile),
                str(stage.steps),
                _size(stage.program.memory.total),
                f"{stage.flops.count:.3g}",
                "-" if seconds is None else f"{seconds:.3g}",
            )
        )
    title = f"{name} on {found.images:,} images that resist every stage"
    end = [f"in all {_duration(total)}"] if found.job.where.chip else []
    return "\n".join([title, align(rows, 1, False), *end])


def _seconds(found: Forecast, stage: Stage) -> float | None:
    """Seconds at best of a stage on all images, if all of them resist."""
    step = found.stage(stage)
    if step is None:
        return None
    return stage.rounds(found.images, len(found.job.where.devices)) * stage.steps * step.seconds


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"


def _size(size: float) -> str:
    """Bytes in a unit that keeps the number short."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
