"""The parts that the scripts of this folder share: seeds, training, figures and results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from robustjax import losses, report
from robustjax.report.figures import COLORS

sys.path.append(str(Path(__file__).parents[1]))
import recording
from figures import Draw

SEEDS = (0, 1, 2)
ATTACK, RANDOM, BEST, OTHER, GIVEN = COLORS[1], COLORS[6], COLORS[0], COLORS[3], COLORS[2]
"""The colours of all figures here: the attack, a random change of the same size, the best of as
many random ones as the attack tries, another attack, the input as given."""


def run(
    file: str, about: str, main: Callable[[], dict[str, Any]], draw: Draw, *packages: str
) -> None:
    """Keep what `main` measures, and what `draw` makes of it, in results/domains."""
    recording.run(file, about, main, draw, SEEDS[0], ("scikit-learn", "matplotlib", *packages))


def trained(
    net: nn.Module,
    key: jax.Array,
    inputs: np.ndarray,
    labels: np.ndarray,
    steps: int,
    batch: int = 64,
    rate: float = 3e-3,
    loss: Callable[..., jax.Array] = losses.cross_entropy,
) -> jax.tree_util.Partial:
    """The model of a batch after so many steps of Adam on the mean of `loss(output, label)`."""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
    key_init, key_batches = jax.random.split(key)
    inputs, labels = jax.numpy.asarray(inputs), jax.numpy.asarray(labels)

    def mean(params, rows):
        return jax.vmap(loss)(net.apply(params, inputs[rows]), labels[rows]).mean()

    def step(carry, key):
        params, state = carry
        rows = jax.random.randint(key, (batch,), 0, len(inputs))
        update, state = optimizer.update(jax.grad(mean)(params, rows), state, params)
        return (optax.apply_updates(params, update), state), None

    params = net.init(key_init, inputs[:1])
    keys = jax.random.split(key_batches, steps)
    (params, _), _ = jax.jit(jax.lax.scan, static_argnums=0)(
        step, (params, optimizer.init(params)), keys
    )
    return jax.tree_util.Partial(net.apply, params)


def accuracy(model: Callable, inputs: Any, labels: np.ndarray) -> float:
    """The share of right predictions."""
    return float(np.mean(np.asarray(model(inputs)).argmax(-1) == labels))


def over_seeds(measure: Callable[[int], Mapping[str, Any]]) -> dict[str, Any]:
    """Each number's values, one a seed, and their mean: what the results file holds."""
    rows = [measure(seed) for seed in SEEDS]
    values = {name: np.asarray([row[name] for row in rows]) for name in rows[0]}
    return {n: {"mean": v.mean(0).tolist(), "seeds": v.tolist()} for n, v in values.items()}


class Panel(NamedTuple):
    """Lines over x.

    Attributes:
      title, xlabel: above and below.
      x: where `found` has values.
      found: of `over_seeds`.
      lines: name in `found` -> (label, colour).
    """

    title: str
    xlabel: str
    x: Sequence[float]
    found: Mapping[str, Any]
    lines: Mapping[str, tuple[str, str]]


def curves(png: Path, ylabel: str, panels: Sequence[Panel], top: float = 1.0) -> None:
    """A line for the mean over seeds, in a band that holds all of them."""
    with report.figure(png, len(panels), 1, (4.2, 3.4), sharey=True) as axes:
        for ax, panel in zip(axes, panels, strict=True):
            for name, (label, color) in panel.lines.items():
                rows = np.asarray(panel.found[name]["seeds"])
                ax.fill_between(panel.x, rows.min(0), rows.max(0), color=color, alpha=0.2, lw=0)
                ax.plot(panel.x, rows.mean(0), "o-", color=color, markersize=3, label=label)
            ax.set(title=panel.title, xlabel=panel.xlabel, ylim=(0, 1.04 * top))
            if ax is axes[0] or [*panel.lines.values()] != [*panels[0].lines.values()]:
                ax.legend(loc="upper left", bbox_to_anchor=(0, -0.18))
        axes[0].set_ylabel(ylabel)
