"""The value of knowing that features are normal, and the cost of assuming it wrongly.

Command:   python experiments/theory/discriminant.py
Hardware:  one core; about 40 seconds.
Claim:     on two normal classes LDA has the smaller error at every size of the training set, and
           the ratio of excess errors at 2,000 examples is Efron's within 4 standard errors; where
           a part of one class lies far off, LDA stays wrong however many examples there are.
Measured:  results/theory/discriminant.json and .png.
Source:    Efron, 1975, Table 1; the example that fails follows Bishop, 2006, Figure 4.4.
"""

from pathlib import Path

import numpy as np
import script

from robustjax import report, theory

SIZES, REPEATS = (50, 100, 200, 500, 1000, 2000), 100
NORMAL = theory.two_normals(2.5, 10)
FAR = theory.Mixture(
    np.array([[0.0, 0.0], [3.0, 0.0], [15.0, 0.0]]),
    np.array([0.5, 0.35, 0.15]),
    np.array([0, 1, 1]),
)
DELTAS, EFRON_SIZE, EFRON_REPEATS = (1.0, 2.0, 2.5, 3.0, 3.5), 2000, 300


def learn(mixture):
    errors = theory.learned_errors(mixture, SIZES, REPEATS, script.SEED)
    return {
        rule: {"mean": e.mean(1), "standard_error": e.std(1, ddof=1) / np.sqrt(REPEATS)}
        for rule, e in errors.items()
    }


def efron():
    rows = []
    for delta in DELTAS:
        ratio, error = theory.sampled_efficiency(delta, 3, EFRON_SIZE, EFRON_REPEATS, script.SEED)
        expected = theory.efron_efficiency(delta)
        row = {"delta": delta, "sampled": ratio, "standard_error": error, "expected": expected}
        rows.append(row | {"deviation": (ratio - expected) / error})
    return rows


def main() -> dict:
    curves = {"two normals": learn(NORMAL), "a part far off": learn(FAR)}
    best = theory.error_rate(2.5)
    return {"sizes": SIZES, "bayes_error": best, "test_error": curves, "efron": efron()}


def draw(results: dict, png: Path) -> None:
    """Test errors over the size of the training set, and the ratio of excess errors over Delta."""
    numbers = results["numbers"]
    titles = {"two normals": "two normal classes", "a part far off": "a part of a class far off"}
    with report.figure(png, 3, 1, (4.0, 3.3)) as (*panels, right):
        for ax, (case, curve) in zip(panels, numbers["test_error"].items(), strict=True):
            for rule, line in curve.items():
                mean, error = (100 * np.array(line[k]) for k in ("mean", "standard_error"))
                ax.errorbar(numbers["sizes"], mean, error, label=rule, capsize=2)
            ax.set(xscale="log", xlabel="training examples", title=titles[case])
            ax.set(ylabel="test error, %", ylim=(0, None))
            ax.set_xticks(numbers["sizes"], numbers["sizes"])
            ax.minorticks_off()
        best = 100 * numbers["bayes_error"]
        panels[0].axhline(best, color="k", linestyle=":", linewidth=1, label="Bayes")
        panels[0].legend()
        delta = np.linspace(0, 4, 81)
        right.plot(delta, [theory.efron_efficiency(d) for d in delta], "k-", label="Efron 1975")
        keys = ("delta", "sampled", "standard_error")
        points = [[row[key] for row in numbers["efron"]] for key in keys]
        right.errorbar(*points, fmt="k.", capsize=2, label=f"sampled, {EFRON_SIZE:,} examples")
        right.set(xlabel="Mahalanobis distance Δ", ylim=(0, 1.1), title="two normal classes")
        right.set(ylabel="excess error of LDA over logistic's")
        right.legend()


if __name__ == "__main__":
    script.run(__file__, __doc__, main, draw)
