"""The host loop: batches in, metrics and checkpoints out. An interrupted run resumes exactly."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from robustjax import checks, config, data, files, models, parallel
from robustjax.checkpoint import EXTENDED, Checkpoints, DamagedCheckpoint
from robustjax.checks import INF, checked
from robustjax.keys import seeded
from robustjax.progress import bar
from robustjax.threats import Linf
from robustjax.threats._trees import map_threats, threats_of
from robustjax.training.averages import Averages
from robustjax.training.loggers import Logger, opened
from robustjax.training.methods.base import Method
from robustjax.training.placement import REPLICATED, SCATTERED, Placement
from robustjax.training.recipes import BASELINE, Recipe
from robustjax.training.run_directory import (
    keep_metrics,
    open_run,
    save_weights,
    surroundings,
    warn_of_changes,
    write_config,
    write_metrics,
)
from robustjax.training.saver import Saver, snapshot
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
    steps_per_epoch = plan.steps_per_epoch
    if recipe.batch_size % (devices * recipe.accumulate):
        raise ValueError(
            f"batch size {recipe.batch_size} must be a multiple of devices x accumulate = "
            f"{devices} x {recipe.accumulate}; choose another, or on a CPU set "
            "JAX_NUM_CPU_DEVICES=1 to use all cores as one device"
        )
    total, home = recipe.epochs * steps_per_epoch, SCATTERED if shard_state else REPLICATED
    model = required_model(model, method)
    module = models.network(model, train.num_classes)
    init_key, step_key, validation_key = jax.random.split(seeded(seed), 3)
    state = create_state(
        module, method, recipe, init_key, train.images, train.labels, train.num_classes, devices
    )
    memory, everything = parallel.device_memory(), tuple(jax.devices())
    where = residence(module, state.variables, plan, memory, everything)
    around = surroundings(where)
    identity = {
        "model": model_record(model, module, train.num_classes),
        "image_shape": train.image_shape,
        "method": config.encode(method),
        "recipe": config.encode(recipe),
        "data": about(train)
        | {"validation": len(validation), "validation_sha256": validation.digest},
        "extra": None if extra is None else about(extra),
        "init_from": None if init_from is None else str(init_from),
        "seed": seed,
        "threat": config.encode(threat_of(method) if threat is None else threat),
        "validation_attack": config.encode(validation_attack),
        "class_names": train.class_names or [str(k) for k in range(train.num_classes)],
    }
    if isinstance(module, models.Foreign):  # its name does not determine its weights
        identity["variables"] = models.shapes({"params": state.params, **state.stats})
    if jax.tree.leaves(state.slot):
        identity["devices"] = devices  # the slot is spread over them
    identity = files.from_json(files.to_json(identity))
    with open_run(out, identity, resume):
        folder, best_score, history = out / "checkpoints", -1.0, []
        last, best = Checkpoints(folder / "last", 2), Checkpoints(folder / "best", 1)
        if restored := last.restore(home.to_save(home.put(state)), identity):
            state = home.from_saved(restored[0])
            best_score, history = restored[1]["best"], restored[1]["history"]
            warn_of_changes(restored[1].get("surroundings"), around)
            identity |= extended(restored[1], recipe.epochs, int(state.step))
            if identity.get(EXTENDED) != restored[1].get(EXTENDED):
                for name, kept in (("weights", best), ("weights_last", last)):
                    if (out / f"{name}.npz").exists():  # it is tied to the config that changes
                        save_from(kept, out / f"{name}.npz", state, home, identity)
            write_config(out, identity)  # in case it was lost, or has changed
        else:
            if (out / "metrics.jsonl").exists():
                warnings.warn(f"{folder} holds no checkpoint: the run starts over", stacklevel=2)
            state = home.put(state if init_from is None else fine_tuned(state, init_from))
        start = int(state.step)
        current, action = method.control(history)
        begun = time.monotonic() - keep_metrics(out, start)

        at, own = start, list(loggers) if jax.process_index() == 0 else []

        def log(step: int, split: str, values: Mapping[str, Any]) -> None:
            seconds = round(time.monotonic() - begun, 2)
            row = {"step": step, "epoch": step / steps_per_epoch, "seconds": seconds}
            row |= {"split": split, **{k: float(v) for k, v in values.items()}}
            write_metrics(out, row)
            for logger in own:
                logger.log(row)

        averages = Averages(log_every, lambda step, found: log(step, "train", found))

        def about_now() -> dict[str, Any]:
            found = {"best": best_score, "history": [*history], "surroundings": around}
            return identity | found

        def write(step: int, saves: list[tuple[Checkpoints, TrainState, dict[str, Any]]]) -> None:
            for to, kept, about in saves:
                to.save(step, home.to_save(kept), about)
                if to is best:
                    save_weights(out / "weights.npz", home.whole(kept.variables), identity)

        validate = Validation(
            module, validation, validation_attack, validation_key, recipe.batch_size
        )
        show = {"unit": "step", "disable": not progress, "dynamic_ncols": True}
        shown, pace = bar("training", total=total, initial=start, **show), Pace()
        steps = spans(module, state, recipe, plan, step_key, total, where, home)
        with (
            signals() as stop,
            shown,
            opened(own, out, identity),
            Saver() as saver,
            steps as span,
        ):
            while at < total and action != "stop":
                most = pace.steps if jax.process_count() == 1 else log_every - at % log_every
                traced = profile if at > start else None  # the first steps compile
                profile = None if traced else profile
                first, at = at, cut(at, traced or most, steps_per_epoch, checkpoint_every)
                pace.begin()
                with jax.profiler.trace(out / "profile") if traced else contextlib.nullcontext():
                    state, metrics = span(state, current, first, at)
                pace.end(at - first)
                if first == 0:  # a run that fails in its first step leaves no config
                    write_config(out, identity)
                shown.update(at - first)
                averages.add(first, until_bad(state, first, metrics))
                check_finite(state, out)
                epoch_ends = at % steps_per_epoch == 0
                save_now = epoch_ends or bool(checkpoint_every and at % checkpoint_every == 0)
                stopped = stop.asked()
                if save_now or stopped:
                    averages.flush()
                saves: list[tuple[Checkpoints, TrainState, dict[str, Any]]] = []
                if epoch_ends:
                    scores = validate(home.whole(state.variables))
                    log(at, "validation", scores)
                    shown.set_postfix({k: f"{v:.3f}" for k, v in scores.items()})
                    score = scores["accuracy" if validation_attack is None else "robust_accuracy"]
                    score = parallel.broadcast(score)
                    history.append(score)
                    if score > best_score:
                        best_score = score
                        saves.append((best, snapshot(state), about_now()))
                    current, action = method.control(history)
                    if action == "rollback" and at < total:  # else nothing would follow
                        saver.put(functools.partial(write, at, saves))
                        saver.wait()
                        state, best_score, saves = (
                            rolled_back(state, best, home, identity),
                            -1.0,
                            [],
                        )
                if save_now or stopped:
                    must = stopped or at == total or action != "continue"
                    if must:  # nothing that waits may be left out
                        saver.wait()
                    optional = not saves
                    saves.append((last, snapshot(state), about_now()))
                    saver.put(functools.partial(write, at, saves), optional)
                    if must:
                        saver.wait()
                if stopped and action != "stop" and at < total:
                    stop.leave(f"{out}: stopped at step {at} of {total} and saved")
        variables = home.whole(state.variables)
        save_weights(out / "weights_last.npz", variables, identity)
        if not recipe.early_stopping:
            save_weights(out / "weights.npz", variables, identity)
        else:
            save_from(best, out / "weights.npz", state, home, identity)
        return Result(state, best_score, out, start)


def batches(
    train: data.Dataset, recipe: Recipe, seed: int, extra: data.Dataset | None
) -> data.Plan:
    """The batches that a recipe asks for."""
    size, fraction = recipe.batch_size, recipe.extra_fraction
    return data.Plan(train, size, seed, extra, fraction, recipe.balance)


def about(examples: data.Dataset) -> dict[str, Any]:
    """The record of a data set in a run's identity."""
    return {"name": examples.name, "size": len(examples), "content_sha256": examples.digest}


def extended(meta: Mapping[str, Any], epochs: int, step: int) -> dict[str, Any]:
    """The record of the shorter runs that this one extends; empty if there are none.

    Args:
      meta: of the checkpoint that the run resumes from, at `step`.
      epochs: of the run now.
    """
    earlier, before = meta.get(EXTENDED, []), meta["recipe"]["fields"]["epochs"]
    if before != epochs:
        earlier = [*earlier, {"epochs": before, "until_step": step}]
        warnings.warn(
            f"this run of {before} epochs is extended to {epochs}: fractions of training (the "
            f"schedule's, warm-ups, starts) now count from {epochs} epochs, so where any matter "
            "the weights will not be those of a run that had this length from its beginning",
            stacklevel=3,
        )
    return {EXTENDED: earlier} if earlier else {}


def save_from(
    kept: Checkpoints, path: Path, state: TrainState, home: Placement, identity: dict[str, Any]
) -> None:
    """Write a checkpoint's weights to `path`; without a checkpoint, the intact ones there stay.

    Raises:
      ValueError: there is neither.
    """
    try:
        found = kept.restore(home.to_save(state), identity)
    except DamagedCheckpoint as error:
        warnings.warn(str(error), stacklevel=3)
        found = None
    if found:
        save_weights(path, home.whole(home.from_saved(found[0]).variables), identity)
        return
    try:
        models.load_weights(path, identity)
    except (OSError, ValueError) as error:
        raise ValueError(f"{kept.folder} holds no checkpoint, and {error}") from error


def rolled_back(
    state: TrainState, best: Checkpoints, home: Placement, identity: dict[str, Any]
) -> TrainState:
    """The best state, at the step of this one."""
    found = best.restore(home.to_save(state), identity)
    if found is None:
        raise ValueError(f"{best.folder} holds no checkpoint to go back to")
    return home.from_saved(found[0]).replace(step=state.step)


def fine_tuned(state: TrainState, run: str | Path) -> TrainState:
    """A new state with its own head and the rest of another run's best weights."""
    variables = models.transplant(run, {"params": state.params, **state.stats})
    params = variables.pop("params")
    ema = jax.tree.map(jnp.copy, params) if jax.tree.leaves(state.ema) else ()
    return state.replace(params=params, stats=variables, ema=ema)


def required_model(model: Mapping[str, Any] | str | Any, method: Method) -> dict[str, Any] | Any:
    """The model's arguments together with those that the method requires.

    Raises:
      ValueError: they contradict each other, or the model is an object, which takes no arguments.
    """
    model = {"name": model} if isinstance(model, str) else model
    if not isinstance(model, Mapping):
        if method.model:
            asked = ", ".join(f"{name} {value!r}" for name, value in method.model.items())
            raise ValueError(
                f"{type(method).__name__} needs a model with {asked}, which cannot be set on a "
                "network passed as an object: name one of robustjax.models.names(), or a factory "
                "of your own that takes these settings"
            )
        return model
    for name, value in method.model.items():
        if model.get(name, value) != value:
            raise ValueError(
                f"{type(method).__name__} needs a model with {name} {value!r}, not "
                f"{model[name]!r}: leave {name} out, the method sets it"
            )
    return {**model, **method.model}


def model_record(model: dict[str, Any] | Any, module: models.Network, num_classes: int) -> Any:
    """What config.json needs to rebuild the network."""
    if isinstance(model, Mapping):
        return {**model, "num_classes": num_classes}
    return models.describe(module, num_classes)


@checked
def threat_of(method: Method) -> Threat:
    """The threat that a method trains against; Linf(8/255) if it has none.

    >>> pgd = rj.attacks.PGD(rj.threats.L2(0.5))
    >>> threat_of(rj.training.TRADES(attack=pgd)).eps
    0.5
    """
    return next(iter(threats_of(method)), Linf())


@checked
def with_threat(method: Method, threat: Threat) -> Method:
    """A copy of a method that trains against another threat.

    >>> with_threat(rj.training.PGDAT(), rj.threats.L2(0.5)).attack.threat.eps
    0.5
    """
    return map_threats(lambda _: threat, method)


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
