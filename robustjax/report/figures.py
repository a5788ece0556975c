"""The figures. Each draws on its own canvas: no window, no global state, no change of backend."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from robustjax.checks import INF, check_number, checked
from robustjax.data import Dataset
from robustjax.files import check_content, read_metrics
from robustjax.lazy import Lazy
from robustjax.report.cells import format_eps
from robustjax.writing import replacing

if TYPE_CHECKING:
    import matplotlib
    from matplotlib import figure as canvases
    from matplotlib import ticker
    from matplotlib.axes import Axes
else:
    matplotlib = Lazy("matplotlib")
    canvases = Lazy("matplotlib.figure")
    ticker = Lazy("matplotlib.ticker")

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
"""Okabe and Ito's palette, which people with any colour vision can tell apart."""
WRONG, MUTED = "#b00020", "#666666"
STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.labelcolor": "#333333",
    "axes.prop_cycle": f"cycler(color={list(COLORS)})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "savefig.dpi": 150,
}
NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}


@checked(host=True)
def training_curves(metrics: str | Path, png: str | Path) -> None:
    """Draw a run's metrics.jsonl over epochs, with a panel for each kind of quantity.

    Quantities that end in the same word (accuracy, robust_accuracy) share a panel. Training is a
    thin line, validation a thick one with dots.

    Args:
      metrics: lines {"step", "epoch", "seconds", "split": "train" | "validation", and any numbers}.
      png: path of the figure.

    Raises:
      ValueError: there is nothing to draw.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as run:
    ...     metrics, png = pathlib.Path(run, "metrics.jsonl"), pathlib.Path(run, "training.png")
    ...     _ = metrics.write_text('{"split": "train", "step": 10, "epoch": 1.0, "loss": 2.3}')
    ...     rj.report.training_curves(metrics, png)
    ...     png.is_file()
    True
    """
    rows = read_metrics(metrics)
    for row in rows:
        check_content(metrics, row, {"epoch": float, "split": str})
    position = ("step", "epoch", "seconds", "split")
    names = dict.fromkeys(k for row in rows for k in row if k not in position)
    if not names:
        raise ValueError(f"{metrics} holds no metrics yet")
    panels: dict[str, list[str]] = {}
    for name in names:
        panels.setdefault(name.rsplit("_", 1)[-1], []).append(name)
    order = sorted(panels, key=lambda kind: {"loss": 0, "accuracy": 1}.get(kind, 2))
    lines = math.ceil(len(order) / 3)
    with figure(png, math.ceil(len(order) / lines), lines, (4.2, 3.0)) as axes:
        for ax, kind in zip(axes, order, strict=False):
            _panel(ax, rows, sorted(panels[kind]))
            ax.set(title=kind.replace("lr", "learning rate"), xlabel="epoch")
            if kind == "accuracy":
                _percent_axis(ax)
        for ax in axes[len(order) :]:
            ax.remove()


@checked(host=True)
def accuracy_over_eps(
    curves: Mapping[str, Mapping[str, Sequence[float]]], png: str | Path, norm: str = "linf"
) -> None:
    """Draw robust accuracy over the radius of the attack, with its standard error as a band.

    Args:
      curves: a line for each model or attack: label -> {"eps", "accuracy", "stderr"}, sequences as
        `evaluation.curve` returns them.
      png: path of the figure.
      norm: linf, l2, l1, l0 or the name of another threat, for the axis. Small radii in linf are
        written in 1/255.

    Raises:
      ValueError: there is no curve.

    >>> import pathlib, tempfile
    >>> curve = {"eps": [0, 4 / 255, 8 / 255], "accuracy": [0.8, 0.6, 0.5], "stderr": [0.01] * 3}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rj.report.accuracy_over_eps({"TRADES": curve}, f"{folder}/curve.png", norm="linf")
    ...     [path.name for path in pathlib.Path(folder).iterdir()]
    ['curve.png']
    """
    if not curves:
        raise ValueError("there is no curve to draw")
    largest = max(max(curve["eps"]) for curve in curves.values())
    scale, unit = radius_unit(norm, largest)
    with figure(png, 1, 1, (5.6, 3.8)) as (ax,):
        for label, curve in curves.items():
            eps, accuracy, stderr = (np.array(curve[k]) for k in ("eps", "accuracy", "stderr"))
            ax.fill_between(
                eps * scale, accuracy - stderr, accuracy + stderr, alpha=0.2, linewidth=0
            )
            ax.plot(eps * scale, accuracy, marker="o", markersize=4, label=label)
        ax.set(
            xlabel=f"{NORMS.get(norm.lower(), norm)} radius ε{unit}", title="accuracy under attack"
        )
        ax.set_xlim(left=0)
        _percent_axis(ax)
        ax.legend()


@checked(host=True)
def roc_curves(
    curves: Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]], png: str | Path
) -> None:
    """Draw the ROC curves of detectors, with a panel for each attack.

    Args:
      curves: {detector: {attack: (fpr, tpr)}}, as `evaluation.DetectionReport.curves`. A curve
        without points (the attack fooled nothing) is not drawn.
      png: path of the figure.

    Raises:
      ValueError: there is no attack.

    >>> import pathlib, tempfile
    >>> curve = ([0.0, 0.1, 1.0], [0.0, 0.8, 1.0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rj.report.roc_curves({"k-density": {"pgd-10": curve}}, f"{folder}/roc.png")
    ...     [path.name for path in pathlib.Path(folder).iterdir()]
    ['roc.png']
    """
    attacks = list(dict.fromkeys(attack for row in curves.values() for attack in row))
    if not attacks:
        raise ValueError("there is no ROC curve to draw")
    lines = math.ceil(len(attacks) / 4)
    columns = math.ceil(len(attacks) / lines)
    with figure(png, columns, lines, (3.2, 3.2), sharex=True, sharey=True) as axes:
        for ax, attack in zip(axes, attacks, strict=False):
            ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
            for i, (detector, row) in enumerate(curves.items()):
                style = "-" if i < len(COLORS) else "--"
                color = COLORS[i % len(COLORS)]
                label = detector.replace(":", "\n")  # a long line could leave no room for the axes
                ax.plot(*row[attack], label=label, color=color, linestyle=style)
            ax.set(title=attack, xlabel="adversarial images accepted", aspect="equal")
            ax.set(xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes[0].set_ylabel("clean images accepted")
        handles = axes[0].get_legend_handles_labels()
        axes[0].figure.legend(*handles, loc="outside right upper", fontsize="small")
        for ax in axes[len(attacks) :]:
            ax.remove()


def radius_unit(norm: str, largest: float) -> tuple[float, str]:
    """The factor for radii, and its name on the axis: the field writes 8/255, but 0.3.

    >>> radius_unit("linf", 8 / 255), radius_unit("linf", 0.3)
    ((255, ' in 1/255'), (1, ''))
    """
    return (255, " in 1/255") if norm.lower() == "linf" and largest <= 32 / 255 else (1, "")


@checked(host=True, clean=(0, 1), adversarial=(0, 1))
def example_grid(
    clean: np.ndarray,
    adversarial: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    png: str | Path,
    class_names: Sequence[str] | None = None,
) -> None:
    """Draw examples as columns: the clean image, the adversarial image, and the perturbation.

    The perturbation is signed and scaled to the largest change in the grid. Grey images use a
    colour map that is white at zero; in colour images, zero is grey in each channel.

    Args:
      clean: (N, H, W, C) in [0, 1], C 1 or 3.
      adversarial: the same shape.
      labels: (N,) the true classes, written above the clean images.
      predictions: (N,) the predicted classes of the adversarial images, in red where wrong; -1
        where the model's logits were NaN.
      png: path of the figure.
      class_names: K names; None writes numbers.

    Raises:
      ValueError: the shapes do not match.

    >>> import pathlib, tempfile
    >>> clean, labels = np.full((2, 8, 8, 1), 0.5), np.array([3, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     png = pathlib.Path(folder, "examples.png")
    ...     rj.report.example_grid(clean, clean + 0.1, labels, np.array([5, 1]), png)
    ...     png.is_file()
    True
    """
    clean, adversarial = np.asarray(clean, np.float32), np.asarray(adversarial, np.float32)
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if clean.ndim != 4 or clean.shape[-1] not in (1, 3) or not len(clean):
        raise ValueError(f"clean images must be (N, H, W, 1 or 3), got {clean.shape}")
    if adversarial.shape != clean.shape or not labels.shape == predictions.shape == clean.shape[:1]:
        raise ValueError(
            f"clean {clean.shape}, adversarial {adversarial.shape}, labels {labels.shape} and "
            f"predictions {predictions.shape} do not match"
        )
    if class_names is not None:
        last = len(class_names) - 1
        check_number("labels, as places in class_names,", labels, 0, last)
        check_number("predictions, as places in class_names,", predictions, -1, last)
    change = adversarial - clean
    scale = float(np.abs(change).max())
    signed = change / scale if scale else change
    if clean.shape[-1] == 3:
        shown, kinds = (signed + 1) / 2, {}
    else:
        shown, kinds = signed, {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}
    grey = {"cmap": "gray", "vmin": 0, "vmax": 1} if clean.shape[-1] == 1 else {}
    picture_rows = (
        ("clean", clean, grey),
        ("adversarial", adversarial.clip(0, 1), grey),
        (f"perturbation\n(±{format_eps(scale)})", shown, kinds),
    )
    count = len(clean)
    with figure(png, count, 3, (1.15, 1.3)) as axes:
        for row, (title, images, options) in enumerate(picture_rows):
            axes[row * count].set_ylabel(title)
            for column, image in enumerate(images):
                ax = axes[row * count + column]
                ax.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, **options)
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
        for column in range(count):
            true, given = labels[column], predictions[column]
            color = MUTED if true == given else WRONG
            axes[column].set_title(class_name(true, class_names), loc="center", fontsize=9)
            axes[count + column].set_title(
                class_name(given, class_names), loc="center", fontsize=9, color=color
            )


@checked(host=True, columns=(1, INF), rows=(1, INF))
def class_grid(dataset: Dataset, png: str | Path, columns: int = 8, rows: int = 10) -> None:
    """Draw the first images of each class, a row for each class.

    Args:
      dataset: its images are grey or RGB.
      png: path of the figure.
      columns: images of a class, at most.
      rows: classes, at most; the first ones that have images.

    Raises:
      ValueError: the images are neither grey nor RGB.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     png = pathlib.Path(folder, "classes.png")
    ...     rj.report.class_grid(rj.data.load("digits").head(40), png, columns=3, rows=2)
    ...     png.is_file()
    True
    """
    if dataset.image_shape[-1] not in (1, 3):
        raise ValueError(f"images must be (H, W, 1 or 3), got {dataset.image_shape}")
    classes = np.unique(dataset.labels)[:rows]
    _, width, _ = dataset.image_shape
    with figure(png, 1, len(classes), (0.7 * columns + 1, 0.8)) as axes:
        for ax, label in zip(axes, classes, strict=True):
            images = dataset.images[np.flatnonzero(dataset.labels == label)[:columns]]
            strip = np.full((*images.shape[1:2], columns * (width + 1), images.shape[-1]), 255)
            for column, image in enumerate(images):
                strip[:, column * (width + 1) :][:, :width] = image
            ax.imshow(np.broadcast_to(strip, (*strip.shape[:2], 3)).astype(np.uint8))
            name = class_name(int(label), dataset.class_names)
            ax.set_ylabel(name, rotation=0, ha="right", va="center")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)


def class_name(label: int, names: Sequence[str] | None) -> str:
    """The title of an image; a label of -1 stands for NaN logits."""
    if label < 0:
        return "NaN"
    return str(label) if names is None else names[label]


@contextlib.contextmanager
def figure(
    png: str | Path, columns: int, rows: int, size: tuple[float, float], **subplots: Any
) -> Iterator[Sequence[Axes]]:
    """A grid of axes, in reading order; the file is written when the block ends.

    Args:
      png: path of the figure.
      columns, rows: of the grid.
      size: width and height of each panel, in inches.
      subplots: further arguments of `matplotlib.figure.Figure.subplots`.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with rj.report.figure(f"{folder}/losses.png", 2, 1, (3.0, 2.5)) as (left, right):
    ...         _ = left.plot([2.3, 1.1, 0.7]), right.plot([2.3, 1.5, 1.4])
    ...     [path.name for path in pathlib.Path(folder).iterdir()]
    ['losses.png']
    """
    with matplotlib.rc_context(STYLE):
        canvas = canvases.Figure(figsize=(size[0] * columns, size[1] * rows))
        yield list(canvas.subplots(rows, columns, squeeze=False, **subplots).flat)
        with replacing(png) as file:
            canvas.savefig(file, format="png")


def _panel(ax: Axes, rows: Sequence[Mapping], names: Sequence[str]) -> None:
    """One line per name and split, over epochs; colour tells the name, thickness the split."""
    styles = {
        "train": {"linewidth": 1.0, "alpha": 0.7},
        "validation": {"marker": "o", "markersize": 3.5},
    }
    for name, color in zip(names, COLORS * len(names), strict=False):
        for split, style in styles.items():
            points = [(r["epoch"], r[name]) for r in rows if r["split"] == split and name in r]
            if points:
                label = f"{name.replace('_', ' ')}, {split}"
                ax.plot(*np.array(points).T, color=color, label=label, **style)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    if len(ax.lines) > 1:
        ax.legend(fontsize="small")


def _percent_axis(ax: Axes) -> None:
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
