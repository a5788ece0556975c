"""`robustjax evaluate`."""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import numpy as np
from tyro.conf import Positional

import robustjax as rj
from robustjax.cli import network_files
from robustjax.cli.estimate import Estimate, costs
from robustjax.cli.flags import AttackOptions, ProcessOptions, read
from robustjax.keys import seeded


@dataclasses.dataclass(frozen=True)
class EvaluateOptions(AttackOptions, ProcessOptions):
    """Attack a trained model on test images; write a report and figures.

    The run's folder then holds report.json, examples.npz and up to three figures. Evaluate it again
    and again: attacks in the same setting (threat, images, seed, weights ...) are joined in one
    report, those in another stand beside them.

    Without a run, --model names any function of a batch, (B, H, W, C) -> logits (B, K), or a file
    of ONNX (.onnx) or of PyTorch's weights (.pt, .pth, .safetensors), and --data its images. What
    the weights do not tell follows the file: net.pt:patch=4, see docs/how_to/pytorch.md.

    Args:
      run: a run directory.
      attacks: names with steps and restarts, e.g. autoattack pgd-40x10 square-5000.
      data: a set whose test split is attacked; None: that of the training. It has the same image
        size and classes, e.g. cifar10_1 or cifar10_corrupted/fog_3.
      dtype: of the attacks' computation; every verdict is in float32, and a line says how many
        differ. None: both as in training.
      curve: the attack for the curve of accuracy over eps; 'none' skips the curve. A minimum-norm
        attack runs once for all radii, others once per radius. None: pgd-20, or margin-un-20 for a
        distance head.
      adaptive: also attack a distance head by 'adaptive'; nothing is added to other networks.
      levels: count successes that survive rounding to so many levels (255: 8 bits); their pixels
        are multiples of 1 / levels. None: skip it.
      keep_images: also write each attack's images (N, H, W, C) into adversarial.npz.
      out: without a run, the folder for the report; None: runs/ and the name of the function or
        file.
    """

    GROUPS: ClassVar = {
        "model and images": ("run", "weights", "model", "data", "n"),
        "attacks": ("attacks", "threat", "eps", "curve", "adaptive", "seed"),
        "speed": ("batch-size", "dtype"),
        "results": ("levels", "keep-images", "out"),
    }

    run: Positional[Path | None] = None
    attacks: tuple[str, ...] = ("pgd-20", "autoattack")
    data: str | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    curve: str | None = None
    adaptive: bool = True
    levels: int | None = None
    keep_images: bool = False
    out: Path | None = None

    def __post_init__(self):
        super().__post_init__()
        rj.checks.check_number("--levels", self.levels, 1)
        if not self.attacks:
            raise ValueError("--attacks needs a name at least, such as pgd-20")
        if self.run is not None and self.out is not None:
            raise ValueError("--out is for a function of --model; a run keeps its report itself")
        if self.run is None:
            self._check_function()

    def _check_function(self) -> None:
        """Raise ValueError unless the flags name a function and its images."""
        if self.model is None or self.data is None:
            raise ValueError(
                "name a run directory, or a function and its images: robustjax evaluate --model "
                "package.module:logits_fn (or net.onnx) --data folder:DIR --threat linf --eps 8/255"
            )
        if ":" not in self.model and not network_files.stem(self.model):
            raise ValueError(
                "--model must be package.module:logits_fn or a file (.onnx, .pt, .pth, "
                f".safetensors), got {self.model!r}"
            )
        for flag, value in (("dtype", self.dtype), ("weights", self.weights == "last" or None)):
            if value is not None:
                raise ValueError(f"--{flag} is for a run; the function of --model decides itself")

    @property
    def folder(self) -> Path:
        """Where the report goes."""
        if self.run is not None:
            return self.run
        name = str(self.model)
        return self.out or Path("runs") / (network_files.stem(name) or name.split(":")[1])


def command(words: Sequence[str]) -> None:
    """`robustjax evaluate` with these words."""
    options = read(EvaluateOptions, "evaluate", words)
    rj.parallel.use_all_cores()
    options.connect()
    try:
        evaluate(options)
    except KeyboardInterrupt:
        print(f"{options.folder}: stopped; the same command resumes", file=sys.stderr)
        raise


def evaluate(options: EvaluateOptions) -> rj.evaluation.Report:
    """Attack a trained model on test images; write a report and figures.

    For a head that decides by distances to class centers, the distances are attacked as well, and
    the report has the fraction of images on which the plain cross-entropy has no gradient.

    After an interruption, the same command resumes.
    """
    started, run = time.time(), options.folder
    if options.run is None:
        logits_fn, settings = function_of(options)
    else:
        logits_fn, settings = options.load(run, options.dtype and "float32")
    low = options.dtype not in (None, "float32")
    surrogate = options.load(run, options.dtype)[0] if low else None
    threat = options.threat_of(settings)
    named = {name: rj.attacks.parse(name, threat) for name in options.attacks}
    distances = settings["model"].get("head") in rj.models.DISTANCE_HEADS
    named_already = any(name.startswith("adaptive") for name in named)
    if distances and options.adaptive and not named_already:
        named["adaptive"] = rj.attacks.Adaptive(threat)
    chosen = options.curve or ("margin-un-20" if distances else "pgd-20")
    over_eps = None if chosen == "none" else curve_attack(chosen, threat)
    test = images_to_attack(options, settings)
    record, journal = rj.evaluation.Record(run), rj.evaluation.Journal(run / "evaluation")
    subject, key = (logits_fn, test.images, test.labels), seeded(options.seed)
    tiles: dict[str, Any] = {"indices": test.indices, "batch_size": options.batch_size}
    how: dict[str, Any] = tiles | {"surrogate": surrogate, "journal": journal, "progress": True}
    radii = radii_around(threat)
    work = named | curve_attacks(over_eps, radii)
    each = functools.partial(costs, work, test.image_shape, len(settings["class_names"]))
    with warnings.catch_warnings(), Estimate(each).heard():
        warnings.simplefilter("ignore", UserWarning)  # the table below shows them
        found = rj.evaluation.evaluate(
            *subject, named, key, threat=threat, levels=options.levels, **how
        )
    result = found.to_json() | {"threat": rj.config.encode(threat), "weights": options.weights}
    result |= {"dtype": options.dtype or settings["model"].get("dtype", "float32")}
    result |= {"data": {"name": test.name, "split": test.split}, "curves": {}}
    if distances:
        blind = rj.evaluation.zero_gradient(*subject, rj.attacks.PGD(threat), key, **tiles)
        result |= {"cross_entropy_without_gradient": blind}
    columns = found.flat_examples()
    result |= {"provenance": rj.report.provenance(rj.report.command_line(), options.seed, started)}
    content = record.join(result, columns)
    first = jax.process_index() == 0
    if first:
        print_tables(run, settings, content, list(named))
        record.write(content, columns, found.adversarial if options.keep_images else None)
        images = np.asarray(rj.data.to_float(np.asarray(test.images)))
        draw_examples(found, images, settings["class_names"], run / "examples.png")
    if over_eps is not None:
        content["curves"][chosen] = rj.evaluation.curve(*subject, over_eps, radii, key, **how)
        if first:
            record.write(content, columns)
    if first:
        draw_curves(content, type(threat).__name__, run / "accuracy_over_eps.png")
    journal.clear()
    return found


def function_of(options: EvaluateOptions) -> tuple[Any, dict[str, Any]]:
    """The function of --model, and the config.json that makes a run directory of its folder.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: there is no such function, the file is not understood, or the folder belongs to
        something else.
    """
    name, folder = str(options.model), options.folder
    is_file = network_files.stem(name) is not None
    logits_fn = network_files.logits_of(name) if is_file else rj.models.imported(name)
    test = rj.data.load(str(options.data), "test", options.data_dir)
    settings = {
        "model": {"name": name},
        "method": {"type": "none", "fields": {}},
        "data": {"name": test.name},
        "image_shape": list(test.image_shape),
        "class_names": test.class_names or [str(k) for k in range(test.num_classes)],
        "threat": rj.config.encode(rj.threats.Linf()),
    }
    settings = rj.files.from_json(rj.files.to_json(settings))
    path = folder / "config.json"
    if path.exists():
        known = rj.files.read_json(path, {"model": {"name": str}})
        if known != settings:
            raise ValueError(
                f"{folder} belongs to {known['model']['name']} on other data or settings: choose "
                "another --out"
            )
    elif jax.process_index() == 0:
        rj.report.write_json(path, settings)
    return logits_fn, settings


def curve_attack(name: str, threat: rj.typing.Threat) -> rj.typing.Attack:
    """The attack of --curve.

    Raises:
      ValueError: it is unknown, or has no radius.
    """
    attack = rj.attacks.parse(name, threat)
    try:
        rj.evaluation.check_curve(attack)
    except ValueError as error:
        raise ValueError(f"--curve {name}: {error}") from error
    return attack


def curve_attacks(
    attack: rj.typing.Attack | None, radii: Sequence[float]
) -> dict[str, rj.typing.Attack]:
    """The attacks that make a curve, by the titles of their bars."""
    if attack is None:
        return {}
    if isinstance(attack, rj.attacks.MinimumNorm):
        return {type(attack).__name__: attack}
    return {f"eps {radius:g}": rj.attacks.with_eps(attack, radius) for radius in radii}


def images_to_attack(options: EvaluateOptions, settings: dict[str, Any]) -> rj.data.Dataset:
    """The images to attack; the classes of a set of --data are matched by their names.

    Raises:
      ValueError: the set of --data has images of another size, or more classes than the model.
    """
    trained, wanted = settings["data"]["name"], tuple(settings["image_shape"])
    test = rj.data.load(options.data or trained, "test", options.data_dir)
    if test.image_shape != wanted:
        raise ValueError(
            f"{test.name} holds images of shape {test.image_shape}; the model of {options.folder} "
            f"takes {wanted}"
        )
    names = settings["class_names"]
    if test.num_classes > len(names):
        raise ValueError(
            f"{test.name} has {test.num_classes} classes, the model of {options.folder} "
            f"{len(names)}"
        )
    if test.class_names and set(test.class_names) <= set(names):
        test = test.with_classes(names)
    elif options.data and test.class_names:
        print(f"{test.name} and {trained} name their classes differently: only numbers count")
    if options.n > len(test):
        print(f"{test.name} has only {len(test)} test images; --n {options.n} evaluates them all")
    return test.head(options.n)


def print_tables(
    run: Path, settings: dict[str, Any], content: dict[str, Any], attacks: Sequence[str]
) -> None:
    """Print the stages of these attacks, and the table of all results of the run."""
    for name in attacks:
        if len(rows := content["stages"][name]) > 1:
            print(f"{name}, stage by stage", rj.report.stage_table(rows), "", sep="\n")
        if any("differed" in row for row in rows):
            differed = sum(row["differed"] for row in rows)
            tried = sum(row["attacked"] for row in rows)
            print(
                f"{name}: {content['dtype']} and float32 disagree in {differed} of {tried} "
                "verdicts; float32 counts\n"
            )
    blind = content.get("cross_entropy_without_gradient")
    if blind is not None:
        print(
            f"the gradient of the plain cross-entropy is exactly zero on {blind:.1%} of the "
            "correctly classified images: attacks on it are blind there\n"
        )
    print(rj.report.rows_table(rj.report.run_rows(run.name, settings, content)))


def radii_around(threat: rj.typing.Threat) -> list[float]:
    """Radii from 0 to twice the threat's radius; whole numbers of pixels in L0."""
    radii = [float(rj.threats.radius(threat)) * k / 4 for k in range(9)]
    return sorted({float(int(r)) for r in radii}) if isinstance(threat, rj.threats.L0) else radii


def draw_curves(content: dict[str, Any], norm: str, png: Path) -> None:
    """Draw the curves of a report; without one there is no figure."""
    if content["curves"]:
        rj.report.accuracy_over_eps(content["curves"], png, norm)
    else:
        png.unlink(missing_ok=True)


def draw_examples(
    found: rj.evaluation.Report,
    images: np.ndarray,
    class_names: Sequence[str],
    png: Path,
    count: int = 8,
) -> None:
    """Draw correctly classified images beside the last attack's, successful attacks first.

    There is no figure if no image is classified correctly, if nothing was attacked, or if images
    are neither grey nor RGB.
    """
    table, attack = found.examples, next(reversed(found.adversarial), None)
    right = np.flatnonzero(table["prediction"] == table["label"])
    if attack is None or not len(right) or images.shape[-1] not in (1, 3):
        png.unlink(missing_ok=True)
        return
    rows = sorted(right, key=lambda i: not table[attack]["fooled"][i])[:count]
    rj.report.example_grid(
        images[rows],
        found.adversarial[attack][rows],
        table["label"][rows],
        table[attack]["prediction"][rows],
        png,
        class_names,
    )
