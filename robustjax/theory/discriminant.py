"""The value of knowing that features are normal: discriminant analysis against regression.

Both learn a linear boundary between two classes. Linear discriminant analysis (LDA) estimates means
and a covariance, logistic regression only the conditional probability. LDA needs fewer examples if
the features are normal, which is the talk's reason to make them so; if they are not, LDA may stay
wrong with any number of examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.integrate import quad
from scipy.special import ndtr
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from robustjax.checks import INF, check_number, checked

# C = 1000 is hardly a penalty; without one, a separable sample has no solution.
RULES = {
    "LDA": LinearDiscriminantAnalysis(),
    "logistic regression": LogisticRegression(C=1e3, solver="newton-cholesky"),
}


class Mixture(NamedTuple):
    """Two classes whose features are mixtures of normals with the covariance I.

    Class 1 lies on both sides of class 0, where a linear rule at 2 finds half of it:

    >>> means = np.array([[-4.0], [0.0], [4.0]])
    >>> mixture = rj.theory.Mixture(means, np.array([0.25, 0.5, 0.25]), np.array([1, 0, 1]))
    >>> round(mixture.error(normal=np.array([1.0]), offset=-2.0), 3)
    0.267
    """

    means: np.ndarray
    """(M, d), of the components."""
    weights: np.ndarray
    """(M,), of the components; they sum to 1."""
    classes: np.ndarray
    """(M,), 0 or 1, the class of each component."""

    def sample(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw features (N, d) and labels (N,)."""
        component = rng.choice(len(self.means), count, p=self.weights)
        noise = rng.standard_normal((count, self.means.shape[1]))
        return self.means[component] + noise, self.classes[component]

    def error(self, normal: np.ndarray, offset: float) -> float:
        """The exact error of the rule that predicts class 1 where `normal . z + offset > 0`."""
        margin = (self.means @ normal + offset) / np.linalg.norm(normal)
        return float(self.weights @ ndtr(np.where(self.classes == 1, -margin, margin)))


@checked(host=True, dim=(1, INF))
def two_normals(delta: float, dim: int) -> Mixture:
    """Two equally likely classes N(+-Delta / 2 e_1, I): the model that LDA assumes.

    >>> rj.theory.two_normals(2.0, dim=2).means.tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    check_number("delta", delta)
    check_number("dim", dim, 1)
    means = np.zeros((2, dim))
    means[:, 0] = -delta / 2, delta / 2
    return Mixture(means, np.full(2, 0.5), np.arange(2))


@checked(host=True)
def error_rate(delta: float) -> float:
    """The Bayes error of two equally likely normal classes at Mahalanobis distance Delta.

    >>> round(rj.theory.error_rate(2.0), 4)
    0.1587
    """
    check_number("delta", delta)
    return float(ndtr(-delta / 2))


@checked(host=True, sizes=(2, INF), repeats=(1, INF))
def learned_errors(
    mixture: Mixture, sizes: Sequence[int], repeats: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Exact errors of LDA and logistic regression, learned from samples of several sizes.

    Args:
      mixture: the distribution of the features.
      sizes: the sizes of the samples, large enough for each to hold both classes.
      repeats: the number of samples of each size; both rules learn from the same ones.
      seed: for the samples.

    Returns:
      rule -> (len(sizes), repeats).

    >>> mixture = rj.theory.two_normals(2.0, dim=3)
    >>> errors = rj.theory.learned_errors(mixture, sizes=(20, 200), repeats=3)
    >>> {rule: error.shape for rule, error in errors.items()}
    {'LDA': (2, 3), 'logistic regression': (2, 3)}
    """
    rng = np.random.default_rng(seed)
    errors = {name: np.empty((len(sizes), repeats)) for name in RULES}
    for i, size in enumerate(sizes):
        for j in range(repeats):
            features, labels = mixture.sample(size, rng)
            for name, rule in RULES.items():
                rule.fit(features, labels)
                errors[name][i, j] = mixture.error(rule.coef_[0], rule.intercept_[0])
    return errors


@checked(host=True)
def efron_efficiency(delta: float) -> float:
    """The number of examples that LDA needs for each one of logistic regression; normal classes.

        (1 + Delta^2 / 4) exp(-Delta^2 / 8) E[1 / cosh(Delta x / 2)],    x ~ N(0, 1)

    It is also the ratio of their errors above the Bayes error, LDA's to logistic regression's, at
    equal and large sample sizes.

    Args:
      delta: the Mahalanobis distance of two equally likely classes.

    Returns:
      A number in (0, 1].

    Raises:
      ValueError: a negative Delta.

    References:
      Efron, "The efficiency of logistic regression compared to normal discriminant analysis",
        1975, Table 1.

    The table's values:

    >>> [round(rj.theory.efron_efficiency(delta), 3) for delta in (1, 2, 3, 4)]
    [0.995, 0.899, 0.641, 0.343]
    """
    check_number("delta", delta)

    def integrand(x: float) -> float:
        log_2_cosh = np.logaddexp(delta * x / 2, -delta * x / 2)
        return np.exp(-(x**2 + delta**2 / 4) / 2 - log_2_cosh)

    return float((2 + delta**2 / 2) * quad(integrand, -30, 30)[0] / np.sqrt(2 * np.pi))


_checked_simulation = checked(
    host=True, delta=(0, INF), dim=(1, INF), size=(2, INF), repeats=(2, INF)
)


@_checked_simulation
def sampled_efficiency(
    delta: float, dim: int, size: int, repeats: int, seed: int = 0
) -> tuple[float, float]:
    """`efron_efficiency` measured: the ratio of mean errors above the Bayes error.

    Args:
      delta, dim: see `two_normals`.
      size, repeats, seed: see `learned_errors`.

    Returns:
      LDA's excess error over logistic regression's, and the standard error of this ratio.

    >>> ratio, error = rj.theory.sampled_efficiency(delta=2.0, dim=2, size=200, repeats=10)
    >>> abs(ratio - rj.theory.efron_efficiency(2.0)) < 4 * error
    True
    """
    errors = learned_errors(two_normals(delta, dim), (size,), repeats, seed)
    lda, logistic = (errors[name][0] - error_rate(delta) for name in RULES)
    ratio = lda.mean() / logistic.mean()
    spread = (lda - ratio * logistic).std(ddof=1) / logistic.mean()
    return float(ratio), float(spread / np.sqrt(repeats))


@_checked_simulation
def efron_deviation(delta: float, dim: int, size: int, repeats: int, seed: int = 0) -> float:
    """Efron 1975: `sampled_efficiency` minus `efron_efficiency`, in standard errors.

    Guarantees:
      Within 4 if `size` is large.

    >>> abs(rj.theory.efron_deviation(delta=2.0, dim=2, size=200, repeats=10)) < 4
    True
    """
    ratio, error = sampled_efficiency(delta, dim, size, repeats, seed)
    return (ratio - efron_efficiency(delta)) / error
