"""Sample density depends on the unit of the features: compare it per distance between classes.

Command:   python experiments/theory/scale.py
Hardware:  one core; about 5 seconds.
Claim:     the raw median log density of features scaled by a falls by d log a, so loose features
           can look denser than tight ones; over the distance of class means nothing depends on a.
Measured:  results/theory/scale.json and .png.
Source:    the caveat to Pang et al., ICLR 2020, Section 3: k-nearest-neighbour densities, k = 20.
"""

from pathlib import Path

import numpy as np
import script

from robustjax import centers, report, theory

CLASSES, DIM, PER_CLASS = 3, 2, 1000
SPREADS = {"tight": 0.05, "loose": 0.2}
SCALES = np.logspace(-1, 1, 9)


def densities(spread):
    """The median log density at every scale: raw, and per distance of class means."""
    rng = np.random.default_rng(script.SEED)
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)
    noise = rng.standard_normal((len(labels), DIM))
    features = centers.max_mahalanobis(CLASSES, DIM)[labels] + spread * noise
    scaled = [scale * features for scale in SCALES]
    normal = [theory.unit_distance(z, labels) for z in scaled]
    return {
        "raw": [np.median(theory.knn_log_density(z)) for z in scaled],
        "per_class_distance": [np.median(theory.knn_log_density(z)) for z in normal],
    }


def main() -> dict:
    found = {name: densities(spread) for name, spread in SPREADS.items()}
    slopes = {n: np.polyfit(np.log(SCALES), lines["raw"], 1)[0] for n, lines in found.items()}
    return {"scales": SCALES, "median_log_density": found, "raw_slope": slopes}


def draw(results: dict, png: Path) -> None:
    """The median log density over the scale: raw, and per distance of class means."""
    numbers = results["numbers"]
    titles = {"raw": "raw", "per_class_distance": "per mean distance of class means"}
    with report.figure(png, 2, 1, (4.2, 3.2), sharey=True) as axes:
        for ax, (kind, title) in zip(axes, titles.items(), strict=True):
            for name, lines in numbers["median_log_density"].items():
                ax.plot(numbers["scales"], lines[kind], "o-", label=f"{name} classes")
            ax.set(xscale="log", xlabel="scale of the features", title=title)
            ax.set_xticks((0.1, 0.3, 1, 3, 10), ("0.1", "0.3", "1", "3", "10"))
            ax.minorticks_off()
        axes[0].set_ylabel("median log density")
        axes[0].legend()


if __name__ == "__main__":
    script.run(__file__, __doc__, main, draw)
