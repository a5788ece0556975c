"""`robustjax train METHOD --card NAME`."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
from tyro import MISSING
from tyro.conf import arg
from tyro.constructors import StructConstructorSpec, StructTypeInfo

import robustjax as rj
from robustjax.checks import LARGEST, check_number
from robustjax.cli import Stopped
from robustjax.cli.flags import REGISTRY, ProcessOptions, choose_threat, read
from robustjax.warn import warn


@dataclasses.dataclass(frozen=True)
class TrainOptions(ProcessOptions):
    """The network, data, threat and run directory; all methods share these options.

    Args:
      out: the run directory.
      card: whose settings are the defaults; `robustjax methods` lists them. bot is the unified
        baseline; another (table1, repo, ...) is a source's settings of the method, its network
        included.
      data: digits (bundled), folder:DIR, arrays:DIR, hf:NAME or a TFDS name. Images of varying size
        are resized by a size after the name, e.g. food101:size=64 or folder:DIR:size=64;
        `robustjax data show NAME` shows some.
      data_dir: the folder of prepared TFDS sets.
      examples: train on the first ones, so many; None: all.
      extra: a pool of extra images with labels or soft targets, which make up --extra-fraction of
        each batch: arrays:DIR (train_images.npy and train_labels.npy or train_targets.npy) or
        arrays:FILE.npz (images, and labels or targets); `pseudo-label` makes one.
      init_from: a run to start from: all its weights except the head's (fine-tuning).
      model: e.g. cnn, resnet-32, preact-resnet-18, wrn-34-10; `robustjax models` lists them. One of
        your own is package.module:factory, or a name that a module registers (--import).
      width: base width; None: the architecture's own.
      activation: of the whole network; None: the architecture's own.
      dtype: of the computation; weights, images, logits and losses stay float32.
      dropout: the probability of zeroing a feature before the head in training; `detect --detectors
        uncertainty` needs a run with dropout.
      remat: recompute the blocks in the backward pass, to save memory.
      normalize: standardise the channels by the training set's statistics, inside the model.
      augment: random changes of the training images: auto (the recipe's, adapted to the data),
        none, crop and crop-flip (reflection padding), zero-crop and zero-crop-flip (zero padding),
        shift and shift-flip (by up to a tenth, by fractions of a pixel). With settings:
        zero-crop-flip:pad=2, shift:shift=1/5.
      cutout: side of a square of zeros cut out of every training image.
      threat: a norm, or a threat of your own: NAME[:FIELD=VALUE]; None: the method's.
      eps: its radius, pixels in [0, 1], e.g. 8/255; None: the threat's.
      awp: wrap the method in adversarial weight perturbation with this gamma.
      awp_start: the fraction of training before which the weights are not perturbed.
      seed: of weights, batches, augmentation and attacks.
      resume: continue from the newest checkpoint in the run directory; more --epochs than it had
        extend the run.
      validation_attack: the attack under which accuracy chooses the best checkpoint; 'none': clean
        accuracy chooses it. None: 'none' for a method that trains on clean images, margin-un-10 for
        a distance head, whose softmax may hide its gradient, else pgd-10.
      shard_state: each device keeps a part of every large array of the state (weights, optimiser,
        moving average), for networks that do not fit otherwise.
      checkpoint_every: training steps between checkpoints; each epoch also ends with one.
      log: where the rows of metrics.jsonl go besides: tensorboard (OUT/tensorboard), csv
        (OUT/metrics_train.csv, OUT/metrics_validation.csv), wandb (if it is installed).
      profile: write a trace of so many steps, after the first ones, into OUT/profile.
    """

    GROUPS: ClassVar = {
        "run": ("out", "card", "seed", "resume"),
        "images and network": ("data", "data-dir", "augment", "model"),
        "attack": ("threat", "eps", "attack.steps"),
        "optimiser": ("epochs", "batch-size", "lr", "schedule", "optimizer.weight-decay"),
    }
    """The flags of the short help; those of the method come third."""

    out: Path
    card: str | None = None
    data: str = "digits"
    data_dir: str | None = None
    examples: int | None = None
    extra: str | None = None
    init_from: Path | None = None
    model: str = "cnn"
    width: int | None = None
    activation: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    dropout: float = 0.0
    remat: bool = False
    normalize: bool = True
    augment: str = "auto"
    cutout: int = 0
    threat: str | None = None
    eps: float | None = None
    awp: float = 0.0
    awp_start: float = 0.0
    seed: int = 0
    resume: bool = False
    validation_attack: str | None = None
    shard_state: bool = False
    checkpoint_every: int | None = None
    log: tuple[Literal["tensorboard", "csv", "wandb"], ...] = ()
    profile: int | None = None

    def __post_init__(self):
        check_number("--examples", self.examples, 1, LARGEST)
        check_number("--checkpoint-every", self.checkpoint_every, 1, LARGEST)
        check_number("--profile", self.profile, 1, LARGEST)
        if self.awp_start and not self.awp:
            raise ValueError("--awp-start needs --awp, the relative size of the perturbation")


def train(
    method: rj.training.Method, recipe: rj.training.Recipe, options: TrainOptions
) -> rj.training.Result:
    """Train a model and leave a run directory."""
    started = time.time()
    rj.parallel.use_all_cores(recipe.batch_size // recipe.accumulate)
    options.connect()
    first = jax.process_index() == 0
    train_set = rj.data.load(options.data, "train", options.data_dir)
    train_set = train_set if options.examples is None else train_set.head(options.examples)
    validation = rj.data.load(options.data, "validation", options.data_dir)
    classes = train_set.num_classes
    loggers = [rj.training.LOGGERS[name]() for name in options.log]
    extra = None if options.extra is None else rj.data.load_extra(options.extra, classes)
    method, recipe, threat = chosen(method, recipe, options, train_set.image_shape)
    warn_of_short_steps(method)
    distances = method.model.get("head") in rj.models.DISTANCE_HEADS
    usual = "none" if method.on_clean else "margin-un-10" if distances else "pgd-10"
    chooser = usual if options.validation_attack is None else options.validation_attack
    validation_attack = None if chooser == "none" else rj.attacks.parse(chooser, threat)
    mean, std = train_set.channel_statistics() if options.normalize else (None, None)
    try:
        result = rj.training.fit(
            method,
            train_set,
            validation,
            model=network(options) | {"mean": mean, "std": std},
            out=options.out,
            recipe=recipe,
            seed=options.seed,
            extra=extra,
            init_from=options.init_from,
            resume=options.resume,
            validation_attack=validation_attack,
            checkpoint_every=options.checkpoint_every,
            shard_state=options.shard_state,
            loggers=loggers,
            profile=options.profile,
            threat=threat,
            progress=first,
        )
    except (KeyboardInterrupt, rj.training.Terminated) as stop:
        text = str(stop) or f"{options.out}: stopped before it was saved"
        raise Stopped(getattr(stop, "code", 130), text if first else "", "--resume") from None
    if first:
        write_record(result, options, started)
    return result


def chosen(
    method: rj.training.Method,
    recipe: rj.training.Recipe,
    options: TrainOptions,
    image_shape: tuple[int, int, int],
) -> tuple[rj.training.Method, rj.training.Recipe, rj.typing.Threat]:
    """The method, the recipe and the threat as the flags change them."""
    threat = choose_threat(options.threat, options.eps, rj.training.threat_of(method))
    method = rj.training.with_threat(method, threat)
    if options.awp:
        method = rj.training.AWP(method, options.awp, options.awp_start)
    usual = rj.data.default_augment(options.data, image_shape, recipe.augment)
    known = rj.spec.Names("augmentation", {"auto": usual} | rj.data.AUGMENTATIONS)
    augment = rj.spec.parse(options.augment, known)
    augment = dataclasses.replace(augment, cutout=options.cutout or augment.cutout)
    return method, dataclasses.replace(recipe, augment=augment), threat


def network(options: TrainOptions) -> dict[str, Any]:
    """The settings of the network; a user's own network gets only those that a flag sets."""
    names = ("width", "activation", "dtype", "remat")
    settings = {name: getattr(options, name) for name in names}
    if options.dropout:  # config.json mentions it only where it is used
        settings["dropout"] = options.dropout
    if rj.models.is_own(options.model):
        settings = {n: v for n, v in settings.items() if v not in (None, False, "float32")}
    return {"name": options.model} | settings


def warn_of_short_steps(method: rj.training.Method) -> None:
    """Warn if a card's step size in pixels, which ignores --eps, is too small for the threat."""

    def is_attack(node):
        return isinstance(node, rj.attacks.PGD)

    for attack in filter(is_attack, jax.tree.leaves(method, is_leaf=is_attack)):
        if attack.reach < 1 - 1e-6:
            warn(
                f"the {attack.steps} training attack steps of {attack.size:.3g} reach only "
                f"{attack.reach:.2g} of eps = {attack.threat.eps:.3g}: choose a larger "
                "--attack.step-size, or None, which scales with eps",
            )


def write_record(result: rj.training.Result, options: TrainOptions, started: float) -> None:
    """Write training.png, and training.json unless a complete run has one already."""
    path = options.out / "training.json"
    if result.start < int(result.state.step) or not path.exists():
        origin = rj.report.provenance(rj.report.command_line(), options.seed, started)
        record = {"best": result.best, "resumed_from_step": result.start, "provenance": origin}
        rj.report.write_json(path, record)
    metrics, curves = options.out / "metrics.jsonl", "no curves, since metrics.jsonl is missing"
    if metrics.exists():
        rj.report.training_curves(metrics, options.out / "training.png")
        curves = "curves in training.png"
    print(f"{options.out}: best on validation {100 * result.best:.1f} %; {curves}")


def named_card(words: Sequence[str]) -> str | None:
    """The card on a command line; it is read first, since it sets the other flags' defaults."""
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    reader.add_argument("--card", nargs="?")
    return reader.parse_known_args(words)[0].card


def start(name: str, words: Sequence[str]) -> rj.training.Card:
    """The defaults of a method's flags, given the words after its name.

    Raises:
      ValueError: the words name a card that the method does not have.
    """
    chosen = named_card(words)
    if chosen is None:
        return rj.training.card(name)
    card = rj.training.card(name, chosen)
    return card._replace(options={"card": chosen, **card.options})


def options_of(**of_card: Any) -> TrainOptions:
    """The defaults of `train`: all but OUT, which has none."""
    return TrainOptions(MISSING, **of_card)


def flags(
    name: str, words: Sequence[str], options: Callable[..., TrainOptions] = options_of
) -> type:
    """The flags of the method, the recipe and all runs, flat in one dataclass for tyro.

    Args:
      name: of the method.
      words: after the name.
      options: makes the flags of all runs from those that the card sets.
    """
    flat, card = arg(name=""), start(name, words)
    parts = {
        "options": options(**card.options),
        "method": card.method,
        "recipe": card.recipe,
    }
    fields = [
        (part, Annotated[type(default), flat], dataclasses.field(default=default))
        for part, default in parts.items()
    ]
    run = dataclasses.make_dataclass("Train", fields)
    run.__doc__ = type(card.method).__doc__
    own = [field.name.replace("_", "-") for field in dataclasses.fields(card.method)]
    run.GROUPS = parts["options"].GROUPS | {name: [n for n in own if n not in ("bn", "commits")]}
    return run


@REGISTRY.struct_rule
def without_flags(info: StructTypeInfo) -> StructConstructorSpec | None:
    """No flags for a method's threats, which --threat and --eps set, or for an augmentation."""
    if not isinstance(info.default, rj.typing.Threat | rj.data.Augment):
        return None
    return StructConstructorSpec(instantiate=lambda: info.default, fields=())


def command(words: Sequence[str]) -> None:
    """`robustjax train` with these words."""
    if words and words[0] in ("-h", "--help"):
        print(help_text("train METHOD --out RUN ...", "Train a model by one of the methods"))
    else:
        run = parsed(words)
        train(run.method, run.recipe, run.options)


def parsed(words: Sequence[str], command: str = "train", **kind: Any) -> Any:
    """The method, recipe and options of `robustjax train` with these words.

    Args:
      words: after the command.
      command: whose help they may ask for.
      kind: `options` of `flags`.

    Raises:
      ValueError: there is no such method, or a flag contradicts another.
    """
    name, *rest = words or ("",)
    rj.training.CATALOGUE.find(name)
    run = read(flags(name, rest, **kind), f"{command} {name}", rest)
    more = [word for word in rest if word.startswith(("--extra-", "--extra_"))]
    if more and run.options.extra is None:
        raise ValueError(f"{more[0]} needs --extra, a pool of extra images")
    return run


def help_text(usage: str, about: str) -> str:
    """The help of a command that takes a method."""
    rows = "\n".join(f"  {n:20s}{entry.paper}" for n, entry in rj.training.CATALOGUE.items())
    return f"""usage: robustjax {usage}

{about}; `robustjax {usage.split()[0]} METHOD --help` has its flags.

{rows}"""
