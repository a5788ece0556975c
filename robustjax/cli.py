"""The command line: `robustjax quickstart | train | evaluate | report | data`."""

from __future__ import annotations

import collections.abc
import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import jax
import numpy as np
import tyro
from tyro.conf import Positional, arg, subcommand
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructTypeInfo,
)

from robustjax import attacks, config, data, evaluation, losses, models, parallel, report, training
from robustjax.threats import NORMS, Linf, Threats
from robustjax.training import METHODS, SCHEDULES, Recipe
from robustjax.training.schedules import Schedule

FUNCTIONS = {name: getattr(losses, name) for name in losses.__all__}
AUGMENT = {
    "none": data.Augment(pad=0, flip=False),
    "crop": data.Augment(flip=False),
    "crop-flip": data.Augment(),
}
Norm = Literal["linf", "l2", "l1", "l0"]


@dataclasses.dataclass(frozen=True)
class Options:
    """What a run trains on, and where it goes.

    Args:
      out: the run directory.
      data: 'digits' (bundled), the name of a TFDS image classification set, or 'arrays:DIR'.
      data_dir: the folder of prepared TFDS sets.
      model: e.g. cnn, resnet-32, preact-resnet-18, wrn-34-10.
      width: base width; None is the architecture's own.
      activation: of the whole network.
      dtype: of the computation; weights, images, logits and losses stay float32.
      remat: recompute the blocks in the backward pass, to save memory.
      normalize: standardise the channels by the training set's statistics, inside the model.
      augment: auto is what suits the data.
      threat: the norm trained against; None is the method's own.
      eps: its radius, pixels in [0, 1], e.g. 8/255; None is the threat's own.
      awp: wrap the method in adversarial weight perturbation with this gamma.
      seed: of weights, batches, augmentation and attacks.
      resume: go on from the newest checkpoint in OUT.
      validation_attack: chooses the best checkpoint; 'none': clean accuracy does.
      checkpoint_every: training steps between checkpoints; an epoch's end always makes one.
      coordinator: host:port of process 0, where a run has several processes (jax.distributed).
      processes: their number; each reads its own part of every batch.
      process: the number of this one.
    """

    out: Path
    data: str = "digits"
    data_dir: str | None = None
    model: str = "cnn"
    width: int | None = None
    activation: str = "relu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False
    normalize: bool = True
    augment: Literal["auto", "none", "crop", "crop-flip"] = "auto"
    threat: Norm | None = None
    eps: float | None = None
    awp: float = 0.0
    seed: int = 0
    resume: bool = False
    validation_attack: str = "pgd-10"
    checkpoint_every: int | None = None
    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None


def train(method: training.Method, recipe: Recipe, options: Options) -> training.Result:
    """Train a model and leave a run directory."""
    started = time.time()
    if options.coordinator:
        parallel.start(options.coordinator, options.processes, options.process)
    train_set = data.load(options.data, "train", options.data_dir)
    validation = data.load(options.data, "validation", options.data_dir)
    threat = choose_threat(options.threat, options.eps, training.threat_of(method))
    method = training.with_threat(method, threat)
    on_clean = isinstance(method, training.Natural) or options.validation_attack == "none"
    validation_attack = None if on_clean else attacks.parse(options.validation_attack, threat)
    if options.awp:
        method = training.AWP(method, gamma=options.awp)
    augment = AUGMENT.get(options.augment)
    augment = augment or data.default_augment(options.data, train_set.image_shape)
    mean, std = train_set.channel_statistics() if options.normalize else (None, None)
    names = ("width", "activation", "dtype", "remat")
    model = {"name": options.model} | {n: getattr(options, n) for n in names}
    result = training.fit(
        method,
        train_set,
        validation,
        model=model | {"mean": mean, "std": std},
        out=options.out,
        recipe=dataclasses.replace(recipe, augment=augment),
        seed=options.seed,
        resume=options.resume,
        validation_attack=validation_attack,
        checkpoint_every=options.checkpoint_every,
    )
    origin = report.provenance(command_line(), options.seed, started)
    report.write_json(options.out / "training.json", {"best": result.best, "provenance": origin})
    report.training_curves(options.out / "metrics.jsonl", options.out / "training.png")
    print(f"{options.out}: best on validation {100 * result.best:.1f} %; curves in training.png")
    return result


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Attack a trained model on test images; report.json and figures go into its folder.

    Args:
      run: a run directory.
      attacks: names with steps and restarts, e.g. fgsm pgd-40 pgd-40x10 mi-fgsm-20.
      threat: the norm; None is the one trained against.
      eps: its radius, pixels in [0, 1], e.g. 8/255; None is the one trained against.
      n: the first n test images.
      batch_size: of the attacks; results do not depend on it.
      seed: of the attacks.
      weights: the best on validation, or the last.
      curve: the attack that accuracy over eps is measured under; 'none' skips it.
      data_dir: the folder of prepared TFDS sets.
    """

    run: Positional[Path]
    attacks: tuple[str, ...] = ("fgsm", "pgd-40x10")
    threat: Norm | None = None
    eps: float | None = None
    n: int = 1000
    batch_size: int = 256
    seed: int = 0
    weights: Literal["best", "last"] = "best"
    curve: str = "pgd-20"
    data_dir: str | None = None


def evaluate(options: Annotated[Evaluation, arg(name="")]) -> evaluation.Report:
    """Attack a trained model on test images; write a report and figures."""
    started = time.time()
    logits_fn, _, settings = models.load(options.run, weights=options.weights)
    threat = config.decode(settings["threat"], FUNCTIONS)
    threat = choose_threat(options.threat, options.eps, threat)
    test = data.load(settings["data"]["name"], "test", options.data_dir).head(options.n)
    named = {name: attacks.parse(name, threat) for name in options.attacks}
    images = np.asarray(data.to_float(test.images))
    subject, key = (logits_fn, images, test.labels), jax.random.key(options.seed)
    how = {"indices": test.indices, "batch_size": options.batch_size, "progress": True}
    found = evaluation.evaluate(*subject, named, key, **how)
    result = found.to_json() | {"threat": config.encode(threat), "weights": options.weights}
    if named:
        figure = options.run / "examples.png"
        draw_examples(found, images, options.attacks[-1], settings["class_names"], figure)
    if options.curve != "none":
        attack = attacks.parse(options.curve, threat)
        radii = [threat.eps * k / 4 for k in range(9)]
        curve = evaluation.curve(*subject, attack, radii, key, **how)
        result["curve"] = {"attack": options.curve, **curve}
        figure = options.run / "accuracy_over_eps.png"
        report.accuracy_over_eps({options.curve: curve}, figure, type(threat).__name__.lower())
    result["provenance"] = report.provenance(command_line(), options.seed, started)
    report.write_json(options.run / "report.json", result)
    print(report.table([options.run]))
    return found


def draw_examples(
    found: evaluation.Report,
    images: np.ndarray,
    attack: str,
    class_names: Sequence[str],
    png: Path,
    count: int = 8,
) -> None:
    """Draw images that the model gets right, as one attack left them: fooled ones first."""
    table = found.examples
    right = np.flatnonzero(table["prediction"] == table["label"])
    rows = sorted(right, key=lambda i: not table[attack]["fooled"][i])[:count]
    if rows:
        report.example_grid(
            images[rows],
            found.adversarial[attack][rows],
            table["label"][rows],
            table[attack]["prediction"][rows],
            png,
            class_names,
        )


def command_line() -> str:
    """The command that is running, as typed."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def choose_threat(norm: Norm | None, eps: float | None, default: Threats) -> Threats:
    """The threat of the flags --threat and --eps, each falling back on `default`."""
    threat = default if norm is None else NORMS[norm]()
    return threat if eps is None else type(threat)(eps)


def quickstart(out: Path = Path("runs/quickstart"), epochs: int = 12, seed: int = 0) -> None:
    """Train a natural and a robust model on bundled images, attack both, write reports and figures.

    Args:
      out: the folder for both runs.
      epochs: passes over the 1,300 training images.
      seed: of everything.
    """
    threat = Linf(0.1)
    recipe = Recipe(epochs=epochs, batch_size=64, lr=0.05, schedule=SCHEDULES["one-cycle"])
    runs = [out / "natural", out / "pgd-at"]
    for run in runs:
        method = METHODS[run.name]
        train(method, recipe, Options(run, threat="linf", eps=threat.eps, seed=seed))
        evaluate(Evaluation(run, ("fgsm", "pgd-20", "pgd-20x3"), seed=seed, batch_size=512))
    show(tuple(runs))
    print("figures:", *(str(p) for run in runs for p in sorted(run.glob("*.png"))), sep="\n  ")


def show(runs: Positional[tuple[Path, ...]], markdown: bool = False) -> None:
    """Print one table of several evaluated runs.

    Args:
      runs: run directories that `robustjax evaluate` has been over, or files of results.
      markdown: print it as Markdown.
    """
    if not runs:
        raise ValueError("name the run directories to compare: robustjax report RUN ...")
    print(report.table(runs, markdown=markdown))


@dataclasses.dataclass(frozen=True)
class List:
    """List the data sets that can be read now.

    Args:
      data_dir: the folder of prepared TFDS sets.
    """

    data_dir: str | None = None

    def run(self) -> None:
        """Print one line a set."""
        for name, line in data.available(self.data_dir).items():
            print(f"{name:16s} {line}")


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Download a TFDS set and write it where it can be read without TensorFlow.

    Args:
      name: the TFDS name, e.g. cifar10.
      data_dir: the folder to write into; None is TFDS's own.
    """

    name: Positional[str]
    data_dir: str | None = None

    def run(self) -> None:
        """Prepare it."""
        data.prepare(self.name, self.data_dir)


DataCommand = (
    Annotated[List, subcommand(name="list")] | Annotated[Prepare, subcommand(name="prepare")]
)


def data_command(command: Annotated[DataCommand, arg(name="")]) -> None:
    """List or prepare data sets."""
    command.run()


def train_command() -> Any:
    """`train` as tyro wants it: one sub-command a method, its flags and the common ones flat."""
    commands = []
    for name, default in METHODS.items():
        flat = arg(name="")
        fields = [
            ("options", Annotated[Options, flat]),
            ("method", Annotated[type(default), flat], dataclasses.field(default=default)),
            ("recipe", Annotated[Recipe, flat], dataclasses.field(default=Recipe())),
        ]
        run = dataclasses.make_dataclass("Train", fields)
        run.__doc__ = type(default).__doc__
        commands.append(Annotated[run, subcommand(name=name)])

    def command(run) -> None:
        train(run.method, run.recipe, run.options)

    union = commands[0]
    for other in commands[1:]:
        union = union | other
    command.__annotations__ = {"run": Annotated[union, flat], "return": None}
    command.__doc__ = "Train a model by one of the methods."
    return command


REGISTRY = ConstructorRegistry()


@REGISTRY.primitive_rule
def number_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """A float may be a fraction."""
    if info.type is not float:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="NUMBER",
        instance_from_str=lambda words: config.number(words[0]),
        is_instance=lambda value: isinstance(value, int | float),
        str_from_instance=lambda value: [f"{value:g}"],
    )


def choice(options: dict[str, Any]) -> PrimitiveConstructorSpec:
    """A value chosen by its name."""

    def name_of(value):
        return next(name for name, known in options.items() if known == value)

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(options) + "}",
        instance_from_str=lambda words: options[words[0]],
        is_instance=lambda value: value in options.values(),
        str_from_instance=lambda value: [name_of(value)],
        choices=tuple(options),
    )


@REGISTRY.primitive_rule
def function_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """A loss is chosen by its name."""
    return choice(FUNCTIONS) if get_origin(info.type) is collections.abc.Callable else None


@REGISTRY.primitive_rule
def schedule_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """A schedule is chosen by its name."""
    return choice(SCHEDULES) if info.type == Schedule else None


@REGISTRY.struct_rule
def threat_rule(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Threats inside a method have no flags of their own: --threat and --eps set them all."""
    if info.type not in NORMS.values() and info.type is not data.Augment:
        return None
    return StructConstructorSpec(instantiate=lambda: info.default, fields=())


def main(args: Sequence[str] | None = None) -> None:
    """Entry point; errors are one line, `--debug` shows where they come from."""
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words
    words = [w for w in words if w != "--debug"]
    parallel.use_all_cores()
    try:
        tyro.extras.subcommand_cli_from_dict(
            {
                "quickstart": quickstart,
                "train": train_command(),
                "evaluate": evaluate,
                "report": show,
                "data": data_command,
            },
            prog="robustjax",
            description="Train, attack and evaluate robust models. --debug shows tracebacks.",
            args=words,
            config=(tyro.conf.AvoidSubcommands,),
            registry=REGISTRY,
        )
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        if debug:
            raise
        sys.exit(f"robustjax: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
