"""What a model makes of images; one that draws is asked again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.attacks._core.iterative import Example
from robustjax.attacks._core.randomized import redraw
from robustjax.attacks._core.success import Success, prediction, won_by
from robustjax.attacks._engine.examples import Examples, are_classes
from robustjax.attacks._engine.model import one_example
from robustjax.attacks._engine.setting import Setting, verdict_draws
from robustjax.attacks._engine.tiles import over_tiles
from robustjax.outputs import has_logits, logits_of

VERDICT = 2**31 - 2
"""Folded into the key of a randomised model's draws for the verdict, which no attack has seen."""


class Judgement(NamedTuple):
    """Model outputs for N images, as NumPy arrays.

    Attributes:
      logits: (N, K), the mean over draws; None for a model without.
      prediction: (N,) the class, of most draws; -1, which is never right, where a logit is NaN or
        there is none.
      nan: (N,) bool: a logit, or for a model without logits any number that it returns, is NaN.
      wrong: (N,) the fraction of draws in which the setting's `success` holds, or of one a bool.
      hits: (N,) the same where a target class is given: of those draws that are of that class.
    """

    logits: np.ndarray | None
    prediction: np.ndarray
    nan: np.ndarray
    wrong: np.ndarray
    hits: np.ndarray

    @property
    def fooled(self) -> np.ndarray:
        """(N,) bool: the setting's `success` holds in most draws."""
        return self.wrong > 0.5

    @property
    def won(self) -> np.ndarray:
        """(N,) bool: fooled and, where a target class is given, of that class."""
        return self.hits > 0.5


def judge(
    setting: Setting, examples: Examples, images: np.ndarray | None = None, again: bool = False
) -> Judgement:
    """Model outputs for the images, by default the examples' own; of `again` with other draws."""
    target = examples.target if are_classes(examples.target) else None
    rows = examples.rows() | {"target": target}
    if images is not None:
        rows["image"] = images
    shared = (setting.model, setting.key, jax.tree_util.Partial(setting.success))

    def one(draw: int) -> Judgement:
        drawn = rows | {"draw": np.full(len(examples), draw, np.int32)}
        return over_tiles(judge_one, shared, drawn, setting.batch_size)

    n = verdict_draws(setting)
    judged = over_draws(one(draw) for draw in range(again * n, again * n + n))
    return by_vote(judged, examples.label, target) if setting.vote else judged


def judge_one(model: Callable, key: jax.Array, success: Success, row: Any) -> Judgement:
    """`Judgement` of one row: an example and the number of the draw."""
    draw = jax.random.fold_in(jax.random.fold_in(key, row["index"]), VERDICT)
    logits_fn = redraw(one_example(model), jax.random.fold_in(draw, row["draw"]))
    output = logits_fn(row["image"])
    example = Example(key, row["image"], row["label"], row["target"])
    fooled, won = success(output, row["label"]), won_by(success, output, example)
    logits = logits_of(output) if has_logits(output) else None
    predicted = jnp.asarray(-1) if logits is None else prediction(output)
    nan = _nan(output if logits is None else logits)
    columns: tuple[Any, ...] = logits, predicted, nan, fooled, won
    return Judgement(*columns)  # here of JAX, on the host of NumPy


def _nan(output: Any) -> jax.Array:
    """Whether any number of an output is NaN."""
    return jnp.any(jnp.stack([jnp.any(jnp.isnan(leaf)) for leaf in jax.tree.leaves(output)]))


def over_draws(draws: Iterable[Judgement]) -> Judgement:
    """One judgement of several draws; of one draw that draw's."""
    whole, *others = draws
    if not others:
        return whole
    predicted = np.stack([whole.prediction, *(one.prediction for one in others)])
    logits, nan = whole.logits, whole.nan
    wrong, hits = np.asarray(whole.wrong, np.float32), np.asarray(whole.hits, np.float32)
    for one in others:
        logits = None if logits is None or one.logits is None else logits + one.logits
        nan, wrong, hits = nan | one.nan, wrong + one.wrong, hits + one.hits
    n = np.float32(len(predicted))
    mean = None if logits is None else logits / n
    return Judgement(mean, most_frequent(predicted), nan, wrong / n, hits / n)


def most_frequent(classes: np.ndarray) -> np.ndarray:
    """(D, N) -> (N,): the class of most draws, of several such the smallest."""
    known = np.unique(classes)
    counts = np.stack([(classes == k).sum(0) for k in known])
    return known[counts.argmax(0)]


def by_vote(judgement: Judgement, label: np.ndarray, target: np.ndarray | None = None) -> Judgement:
    """The judgement of the class of most draws, as if it were the model's one answer."""
    wrong = judgement.prediction != label
    hits = wrong if target is None else judgement.prediction == target
    return judgement._replace(wrong=wrong, hits=hits)
