"""What a model makes of images; one that draws is asked again and again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


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
