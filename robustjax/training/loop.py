"""The host loop: batches in, metrics and checkpoints out. An interrupted run resumes exactly."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from robustjax import checks, data, models, parallel
from robustjax.checks import INF, checked
from robustjax.keys import seeded
from robustjax.progress import bar
from robustjax.training.averages import Averages
from robustjax.training.identity import identity, required_model
from robustjax.training.loggers import Logger
from robustjax.training.methods.base import Method
from robustjax.training.placement import REPLICATED, SCATTERED
from robustjax.training.recipes import BASELINE, Recipe
from robustjax.training.rows import rows
from robustjax.training.run import Run
from robustjax.training.run_directory import open_run, surroundings, write_config
from robustjax.training.saver import Saver
from robustjax.training.spans import Metrics, Pace, residence, spans
from robustjax.training.state import TrainState
from robustjax.training.step import create_state
from robustjax.training.stopping import signals
from robustjax.training.validation import Validation
from robustjax.typing import Attack, Threat


@dataclasses.dataclass(frozen=True)
class Result:
    """What `fit` returns.

    Attributes:
      state: after the last step.
      best: the best validation score.
      folder: the run directory.
      start: the step that the run resumed from; 0 for a new run.

    >>> Result(state=None, best=0.5, folder=Path("runs/a"), start=0).best
    0.5
    """

    state: TrainState
    best: float
    folder: Path
    start: int


@checked(checkpoint_every=(1, INF), log_every=(1, INF), profile=(1, INF))
def fit(
    method: Method,
    train: data.Dataset,
    validation: data.Dataset,
    *,
    model: Mapping[str, Any] | str | Any,
    out: str | Path,
    recipe: Recipe = BASELINE,
    seed: int = 0,
    resume: bool = False,
    extra: data.Dataset | None = None,
    init_from: str | Path | None = None,
    threat: Threat | None = None,
    validation_attack: Attack | None = None,
    checkpoint_every: int | None = None,
    log_every: int = 20,
    shard_state: bool = False,
    loggers: Sequence[Logger] = (),
    profile: int | None = None,
    progress: bool = True,
) -> Result:
    """Train a model and leave a run directory.

    The directory then holds config.json, metrics.jsonl, checkpoints/last and checkpoints/best
    (Orbax), weights_last.npz, and weights.npz: the best on validation, or, after a run without
    `recipe.early_stopping`, the last.

    Args:
      method: the training method.
      train: training images.
      validation: images that choose the best checkpoint after each epoch; never the test set.
      model: one of the following, without `num_classes` and without what the method sets (a head):
        a name known to `models.create` or registered, or 'package.module:factory'; a mapping of
        that 'name' and further arguments; or a network, see `models.adapt`.
      out: the run directory.
      recipe: everything that is not part of the method.
      seed: of weights, batches, augmentation and attacks.
      resume: continue from the newest checkpoint in `out`, if there is one. More epochs than the
        run had extend it: fractions of training then count from the new length, and config.json
        lists the lengths before.
      extra: weakly labelled examples (pseudo-labelled or generated images), which make up
        `recipe.extra_fraction` of each batch; see `data.Plan`.
      init_from: the directory of another run to start from: all its weights except those of its
        head (in a network of your own, the submodule named `head`). This is fine-tuning as in
        Hendrycks et al., "Using pre-training can improve model robustness and uncertainty", ICML
        2019.
      threat: the threat that config.json records; None: the method's threat.
      validation_attack: the attack under which accuracy chooses the best checkpoint; None: clean
        accuracy chooses it.
      checkpoint_every: training steps between checkpoints; each epoch also ends with one. A thread
        writes them, and where the disk is slower than training some are left out.
      log_every: training steps that one line of metrics.jsonl averages over.
      shard_state: each device keeps a part of every large array of the state (weights, optimiser,
        moving average), for networks whose state does not fit on one: fully sharded data
        parallelism. Results differ from those without by rounding.
      loggers: where the lines of metrics.jsonl go besides: `TensorBoard()`, `CSV()`, `WandB()` or
        a `Logger` of your own.
      profile: write a trace of so many steps, or fewer where an epoch ends or a checkpoint is due,
        into OUT/profile, after the first ones, which compile (`jax.profiler`; TensorBoard or
        Perfetto show it).
      progress: show a progress bar.

    Raises:
      ValueError: settings contradict each other, the folder is in use, a checkpoint belongs to
        another run, or the network lacks something that the method needs.
      FloatingPointError: the loss or a gradient was not finite. The last good checkpoint is kept.
      KeyboardInterrupt: after Ctrl-C, when everything is saved (a second one does not wait).
      Terminated: after SIGTERM or SIGHUP, when everything is saved.

    Guarantees:
      A run that is killed at any step and resumed ends with the same weights, bit for bit, on the
      same number of devices with room for as much of the training set (on the CPU; accelerators are
      not measured yet). Elsewhere there is a warning.
      A run that is extended ends as a run of that length, bit for bit, if nothing in it depends on
      the fraction of training: a constant schedule, no warm-up.

    A mistake is found before anything is written:

    >>> digits = rj.data.load("digits", "train").head(8)
    >>> fit(rj.training.Natural(), digits, digits, model="cnn", out="runs/a",
    ...     recipe=Recipe(batch_size=16))
    Traceback (most recent call last):
    ValueError: the batch size must lie in [1, 8], ...
    """
    checks.check_seed("seed", seed)
    out, devices = Path(out), jax.device_count()
    plan = batches(train, recipe, seed, extra)
    length = plan.steps_per_epoch
    if recipe.batch_size % (devices * recipe.accumulate):
        raise ValueError(
            f"batch size {recipe.batch_size} must be a multiple of devices x accumulate = "
            f"{devices} x {recipe.accumulate}; choose another, or on a CPU set "
            "JAX_NUM_CPU_DEVICES=1 to use all cores as one device"
        )
    total, home = recipe.epochs * length, SCATTERED if shard_state else REPLICATED
    model = required_model(model, method)
    module = models.network(model, train.num_classes)
    init_key, step_key, validation_key = jax.random.split(seeded(seed), 3)
    new = create_state(
        module, method, recipe, init_key, train.images, train.labels, train.num_classes, devices
    )
    where = residence(module, new.variables, plan, parallel.device_memory(), tuple(jax.devices()))
    about = identity(
        method,
        train,
        validation,
        model=model,
        module=module,
        state=new,
        recipe=recipe,
        seed=seed,
        extra=extra,
        init_from=init_from,
        threat=threat,
        validation_attack=validation_attack,
    )
    with open_run(out, about, resume):
        run = Run(out, about, home, surroundings(where))
        run.begin(new, init_from, recipe.epochs)
        at = start = run.step
        current, action = method.control(run.history)
        validate = Validation(
            module, validation, validation_attack, validation_key, recipe.batch_size
        )
        pace = Pace()
        show = {"unit": "step", "disable": not progress, "dynamic_ncols": True}
        with (
            signals() as stop,
            bar("training", total=total, initial=start, **show) as shown,
            rows(out, loggers, run.identity, start, length) as log,
            Saver() as saver,
            spans(module, run.state, recipe, plan, step_key, total, where, home) as span,
        ):
            averages = Averages(log_every, lambda step, found: log(step, "train", found))
            while at < total and action != "stop":
                most = pace.steps if jax.process_count() == 1 else log_every - at % log_every
                traced = profile if at > start else None  # the first steps compile
                profile = None if traced else profile
                first, at = at, cut(at, traced or most, length, checkpoint_every)
                pace.begin()
                with jax.profiler.trace(out / "profile") if traced else contextlib.nullcontext():
                    run.state, metrics = span(run.state, current, first, at)
                pace.end(at - first)
                if first == 0:  # a run that fails in its first step leaves no config
                    write_config(out, run.identity)
                shown.update(at - first)
                averages.add(first, until_bad(run.state, first, metrics))
                check_finite(run.state, out)
                epoch_ends = at % length == 0
                save_now = epoch_ends or bool(checkpoint_every and at % checkpoint_every == 0)
                stopped = stop.asked()
                if save_now or stopped:
                    averages.flush()
                if epoch_ends:
                    scores = validate(run.variables)
                    log(at, "validation", scores)
                    shown.set_postfix({k: f"{v:.3f}" for k, v in scores.items()})
                    score = scores["accuracy" if validation_attack is None else "robust_accuracy"]
                    run.scored(parallel.broadcast(score))
                    current, action = method.control(run.history)
                    if action == "rollback" and at < total:  # else nothing would follow
                        run.roll_back(saver)
                if save_now or stopped:
                    run.save(saver, now=stopped or at == total or action != "continue")
                if stopped and action != "stop" and at < total:
                    stop.leave(f"{out}: stopped at step {at} of {total} and saved")
        run.finish(recipe.early_stopping)
        return Result(run.state, run.best, out, start)


def batches(
    train: data.Dataset, recipe: Recipe, seed: int, extra: data.Dataset | None
) -> data.Plan:
    """The batches that a recipe asks for."""
    size, fraction = recipe.batch_size, recipe.extra_fraction
    return data.Plan(train, size, seed, extra, fraction, recipe.balance)


def cut(at: int, most: int, steps_per_epoch: int, checkpoint_every: int | None) -> int:
    """The step after which the host looks up: after `most`, or where something must be written."""
    periods = (steps_per_epoch, checkpoint_every or steps_per_epoch)
    return min(at + most, *(at - at % period + period for period in periods))


def until_bad(state: TrainState, first: int, metrics: Metrics) -> Metrics:
    """The metrics of the steps after `first` that were good."""
    bad = int(state.bad_step)
    return metrics if bad < 0 else {name: values[: bad - first] for name, values in metrics.items()}


def check_finite(state: TrainState, out: Path) -> None:
    """Raise FloatingPointError if a step was bad."""
    if (bad := int(state.bad_step)) >= 0:
        raise FloatingPointError(
            f"the loss or a gradient was not finite at step {bad + 1}; the last good checkpoint in "
            f"{out / 'checkpoints'} is kept. Start a new run in another folder with a lower "
            "learning rate, a warm-up or gradient clipping"
        )
