"""Claim by claim: what the papers say, what our results say, and with which interval.

Command:   python experiments/claims.py     (writes the tables between marks of
           docs/reproduce/claims.md and docs/results.md)
Hardware:  a second; it reads experiments/results and runs nothing.

An effect is a difference in points, the mean over seeds. Its 95 % interval is Student's over pairs
of runs with the same seed. A claim holds if the interval lies above zero and falls if it lies
below; otherwise the runs leave it open.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import at_seeds
import class_priors
import detection_benchmark
import feature_density
import gsce_family
import mmc_at
import mmc_attacks
import numpy as np
import robust_overfitting
import speedrun
from effects import effect
from origins import RESULTS
from scipy import stats

from robustjax import files
from robustjax.writing import replacing

DOCS = Path(__file__).parents[1] / "docs"


class Row(NamedTuple):
    """A line of the table.

    Attributes:
      claim: what a paper says.
      published: its figure, if it has one.
      ours: what we measured.
      verdict: holds, falls or open.
      file: the results file, below experiments/results.
    """

    claim: str
    published: str
    ours: str
    verdict: str
    file: str


def read(name: str) -> dict[str, Any]:
    """A results file."""
    return files.read_json(RESULTS / f"{name}.json")


TRICKS = {  # claim, the figure of the paper, takeaway, with it, without it
    "weight decay of 5e-4 in place of 1e-4 makes more robust": (
        "weight decay", "5e-4", "1e-4", "up to 7 points"),
    "label smoothing of .1 helps": ("label smoothing", "0.1", "0", "moderate"),
    "the learning rate has to grow with the batch (256)": (
        "batch size", "256, lr .2", "256, lr .1", ""),
    "BatchNorm in eval mode while crafting helps": (
        "BatchNorm while crafting", "eval", "train", ""),
    "an attack that stops early costs worst-case robustness": (
        "early-stopped attack", "never", "0, 1, 2 steps later", ""),
    "a smooth activation (silu) helps a narrow network": (
        "activation", "silu, width x 4", "relu, width x 4", "most where capacity is short"),
}  # fmt: skip


def bag_of_tricks() -> Iterator[Row]:
    """The takeaways on a net that does not overfit, under AutoAttack."""
    name = "bag_of_tricks_cifar10_cpu"
    table = read(name)["takeaways"]
    for claim, (takeaway, one, other, published) in TRICKS.items():
        seeds = [[s["autoattack"] for s in table[takeaway][key]] for key in (one, other)]
        yield Row(claim, published, *effect(*seeds), name)


REMEDIES = {
    "weight decay of 1e-2": "weight decay 1e-2",
    "weight averaging": "weights averaged",
    "label smoothing": "labels smoothed by .3",
    "a smooth activation (silu)": "silu",
    "perturbed weights (AWP)": "weights perturbed",
    "crops and flips": "crops and flips",
}


def overfitting() -> Iterator[Row]:
    """Robust overfitting, and what is left of it with each remedy, under AutoAttack."""
    name = "robust_overfitting_cifar10_cpu"
    table = read(name)["rows"]

    def accuracies(row: str, weights: str) -> list[float]:
        return [seed[weights]["autoattack-fast"] for seed in table[row]]

    base = {weights: accuracies("baseline", weights) for weights in ("best", "last")}
    yield Row(
        "adversarial training overfits: early stopping beats the last epoch (Rice et al. 2020)",
        "", *effect(base["best"], base["last"]), name,
    )  # fmt: skip
    for remedy, row in REMEDIES.items():
        if row in table:
            for weights, when in (("last", "at the last epoch"), ("best", "with early stopping")):
                found = effect(accuracies(row, weights), base[weights])
                yield Row(f"{remedy} helps a network that overfits, {when}", "", *found, name)
    for claim, row in (
        ("an attack that stops early costs robustness, with early stopping of training",
         "attack stopped early"),
        ("a perturbation that grows (eps warm-up) costs robustness, with early stopping",
         "eps warmed up"),
    ):  # fmt: skip
        if row in table:
            yield Row(claim, "", *effect(base["best"], accuracies(row, "best")), name)


ROBUST, CLEAN = at_seeds.COLUMNS[-1], at_seeds.COLUMNS[0]
METHODS = (  # claim, what is compared, what should be better, and than which row
    ("TRADES is more robust than PGD-AT (Zhang et al. 2019)", ROBUST, "TRADES", "PGD-AT"),
    ("MART is more robust than PGD-AT (Wang et al. 2020)", ROBUST, "MART", "PGD-AT"),
    ("perturbed weights (AWP) help PGD-AT (Wu et al. 2020)", ROBUST, "AWP", "PGD-AT"),
    ("ALP is more robust than PGD-AT (Kannan et al. 2018)", ROBUST, "ALP", "PGD-AT"),
    ("level sets are more robust than PGD-AT (Atzmon et al. 2019)", ROBUST, "level sets", "PGD-AT"),
    ("unlabelled images make TRADES more robust (RST, Carmon et al. 2019)",
     ROBUST, "RST", "TRADES"),
    ("unlabelled images make more robust than PGD-AT (UAT++, Alayrac et al. 2019)",
     ROBUST, "UAT++", "PGD-AT"),
    ("N-FGSM is more robust than Fast AT (de Jorge et al. 2022)", ROBUST, "N-FGSM", "Fast AT"),
    ("SCORE is more robust than TRADES (Pang et al. 2022)", ROBUST, "SCORE", "TRADES"),
    ("SCORE is more accurate on clean images than TRADES", CLEAN, "SCORE", "TRADES"),
    ("HAT is more accurate on clean images than TRADES (Rade & Moosavi-Dezfooli 2022)",
     CLEAN, "HAT", "TRADES"),
    ("FAT is more accurate on clean images than PGD-AT (Zhang et al. 2020)",
     CLEAN, "FAT", "PGD-AT"),
    ("FAT costs worst-case robustness", ROBUST, "PGD-AT", "FAT"),
)  # fmt: skip


def methods() -> Iterator[Row]:
    """Methods of adversarial training on one recipe."""
    name = "at_seeds_cifar10_cpu"
    table = read(name)["rows"]
    for claim, column, better, worse in METHODS:
        if {better, worse} <= table.keys():
            pair = ([seed[column] for seed in table[row]] for row in (better, worse))
            yield Row(claim, "", *effect(*pair), name)


def mmlda() -> Iterator[Row]:
    """MMLDA on a long tail."""
    name = "class_priors_cifar10_cpu"
    found = {
        row: [class_priors.summary(seed) for seed in seeds]
        for row, seeds in read(name)["rows"].items()
    }
    for claim, better, worse in (
        ("MMLDA classifies biased data better than softmax cross-entropy", "MMLDA", "SCE"),
        ("class priors in MMLDA's loss help on biased data", "MMLDA with priors", "MMLDA"),
    ):
        pair = ([seed["all, as trained"] for seed in found[row]] for row in (better, worse))
        yield Row(claim, "", *effect(*pair), name)


def mmc() -> Iterator[Row]:
    """MMC, naturally and adversarially trained."""
    name = "mmc_cifar10_gpu"
    found = read(name)
    ours, theirs = found["rows"]["MMC-10"][0], found["published"]["MMC-10"]
    order = ["SCE", "Center", "MMLDA", "L-GM", "MMC-10 (rand)", "MMC-10"]
    weak = [found["rows"][row][0]["pgd-10-tar@8"] for row in order]
    yield Row(
        "PGD-10 targeted at 8/256: SCE, Center < MMLDA < L-GM < MMC (rand) < MMC",
        f"{theirs[1]:.1f} % for MMC",
        f"{' < '.join(f'{100 * w:.1f}' for w in weak[1:])} %, one seed",
        "holds" if weak[1:] == sorted(weak[1:]) else "falls",
        name,
    )
    yield Row(
        "MMC is robust without adversarial training",
        "not attacked on margins",
        f"{100 * ours['worst@8']:.1f} % in the worst case at 8/256",
        "holds" if ours["worst@8"] > 0.05 else "falls",
        name,
    )
    rows = read("mmc_at_cifar10_cpu")["rows"]
    seeds = {loss: mmc_at.best_of(rows[loss]) for loss in ("MMC", "SCE")}
    for column, what in (("pgd-10", "under PGD-10"), ("worst case", "in the worst case")):
        pair = [[seed[column] for seed in seeds[loss]] for loss in ("MMC", "SCE")]
        published = "56.3 against 55.4 %" if column == "pgd-10" else ""
        claim = f"adversarial training on MMC beats that on SCE {what}, each at its best rate"
        yield Row(claim, published, *effect(*pair), "mmc_at_cifar10_cpu")
    rows = read("mmc_attacks_cifar10_cpu")["rows"]
    for column, what in (("transfer", "transferred images"), ("spsa", "SPSA")):
        for row in ("MMC", "RCE"):
            pair = [[seed[column] for seed in rows[name]] for name in (row, "SCE")]
            claim = f"{row} resists {what} better than SCE, without adversarial training"
            yield Row(claim, "", *effect(*pair), "mmc_attacks_cifar10_cpu")
    density = read("theory/features")["numbers"]["median_log_density"]
    values = [density[loss]["test"] for loss in ("MMC", "MMLDA", "SCE")]
    yield Row(
        "MMC's features lie denser than those of the softmax losses",
        "",
        "median log density {:.1f}, MMLDA {:.1f}, SCE {:.1f}".format(*values),
        "holds" if values[0] > max(values[1:]) else "falls",
        "theory/features",
    )
    name = "feature_density_cifar10_cpu"
    tests = {
        row: np.array([seed["test"] for seed in seeds]) for row, seeds in read(name)["rows"].items()
    }
    yield Row(
        "MMC's features lie denser than those of the softmax losses (CIFAR-10)",
        "",
        "mean of three seeds {:.1f}, MMLDA {:.1f}, SCE {:.1f}".format(
            *(tests[row].mean() for row in ("MMC", "MMLDA", "SCE"))
        ),
        "holds" if (tests["MMC"] > np.maximum(tests["MMLDA"], tests["SCE"])).all() else "falls",
        name,
    )


def rce() -> Iterator[Row]:
    """Reverse cross-entropy with the K-density."""
    name = "rce_mnist_gpu"
    found = read(name)
    hidden = [
        found["cw"][net]["attacks"]["C&W-hc"]["on"][net]["K-density"]["accepted_wrong"]
        for net in ("CE", "RCE")
    ]
    yield Row(
        "RCE: confident C&W images are detected (the attacker does not know the detector)",
        "",
        "accepted and wrong {:.0f} %, with cross-entropy {:.0f} %".format(
            *(100 * share for share in reversed(hidden))
        ),
        "holds" if hidden[1] < hidden[0] else "falls",
        name,
    )
    name = "rce_domain_mnist_cpu"
    far = {net: row["z2 over z1, quartiles"][1] for net, row in read(name)["nets"].items()}
    yield Row(
        "RCE: to be misclassified and look normal a feature moves farther (three digits, 2-D)",
        "",
        "{:.1f} times as far as to be misclassified, with cross-entropy {:.1f}".format(
            far["RCE"], far["CE"]
        ),
        "holds" if far["RCE"] > far["CE"] else "falls",
        name,
    )
    for data, density in (("mnist_gpu", "K-density"), ("cifar10_cpu", "k-density")):
        of = read(f"rce_{data}")["wb"]
        ce, own = (of[net]["attacks"]["C&W-wb"]["on"][net] for net in ("CE", "RCE"))
        yield Row(
            f"RCE: C&W-wb, which knows the detector, is detected more often ({data.split('_')[0]})",
            "",
            "accepted {:.0f} % of {} that reach their class, ".format(
                100 * own[density]["fpr"], own["pairs"]
            )
            + f"with cross-entropy {100 * ce[density]['fpr']:.0f} % of {ce['pairs']}",
            "holds" if own[density]["fpr"] < ce[density]["fpr"] else "falls",
            f"rce_{data}",
        )


def fast_at() -> Iterator[Row]:
    """A single step on MNIST."""
    names = sorted(path.stem for path in RESULTS.glob("mnist-published-net-fast-at-seed-*.json"))
    ours = [100 * read(name)["report"]["worst_case"] for name in names]
    bare, torch = (
        [100 * seed["autoattack-fast"] for seed in read(name)["seeds"]]
        for name in ("mnist_bare_loop", "mnist_fast_at_torch")
    )
    shown = [", ".join(f"{value:.1f}" for value in values) for values in (ours, bare, torch)]
    between = stats.ttest_ind([*ours, *bare], torch, equal_var=False).confidence_interval()
    yield Row(
        "a single step from an unclipped start makes MNIST robust (Wong et al. 2020)",
        "82.9 % (the published network)",
        f"{shown[0]} %; the recipe in a bare loop of JAX {shown[1]} %, in one of PyTorch "
        f"{shown[2]} %; JAX less PyTorch {np.mean([*ours, *bare]) - np.mean(torch):+.0f} "
        f"({between.low:+.0f} to {between.high:+.0f})",
        "holds" if min(ours) > 50 else "open",
        names[0].replace("0", "*"),
    )


PARTS: tuple[tuple[str, Callable[[], Iterator[Row]]], ...] = (
    ("Bag of Tricks, a network that does not overfit", bag_of_tricks),
    ("Robust overfitting, 1,000 images", overfitting),
    ("Methods on one recipe", methods),
    ("Max-Mahalanobis LDA", mmlda),
    ("Max-Mahalanobis center loss", mmc),
    ("Reverse cross-entropy", rce),
    ("Fast adversarial training", fast_at),
)


def claims() -> str:
    """The table in Markdown, a part after another."""
    lines = []
    for title, rows in PARTS:
        lines += [f"\n## {title}\n", "| claim | published | ours | verdict | results |"]
        lines.append("| --- | --- | --- | --- | --- |")
        lines += [
            f"| {r.claim} | {r.published} | {r.ours} | **{r.verdict}** | `{r.file}.json` |"
            for r in rows()
        ]
    return "\n".join(lines).lstrip() + "\n"


def put(page: Path, name: str, text: str) -> None:
    """Put a text between `<!-- name -->` and `<!-- end of name -->`."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, _, rest = page.read_text().partition(start)
    with replacing(page) as file:
        file.write((before + start + text + end + rest.partition(end)[2]).encode())


TABLES = {  # page, name -> the lines of a table, and the results that it shows
    ("reproduce/max_mahalanobis", "priors"): (class_priors.lines, "class_priors_cifar10_cpu"),
    ("reproduce/mmc", "mmc-at"): (mmc_at.lines, "mmc_at_cifar10_cpu"),
    ("reproduce/mmc", "attackers"): (mmc_attacks.lines, "mmc_attacks_cifar10_cpu"),
    ("reproduce/mmc", "family"): (gsce_family.lines, "gsce_family_mnist_cpu"),
    ("reproduce/mmc", "density"): (feature_density.lines, "feature_density_cifar10_cpu"),
    ("results", "seeds"): (at_seeds.lines, "at_seeds_cifar10_cpu"),
    ("results", "overfitting"): (robust_overfitting.lines, "robust_overfitting_cifar10_cpu"),
    ("results", "speedrun"): (speedrun.lines, "speedrun_cifar10_cpu"),
}


def tables() -> dict[tuple[Path, str], str]:
    """Page and name of each table, and its text."""
    detectors = detection_benchmark.table(read("detection_benchmark_mnist_cpu")["rows"], 0.3)
    texts = {
        ("reproduce/claims", "claims"): claims(),
        ("results", "detectors"): detectors + "\n",
    }
    texts |= {
        at: "\n".join(lines(read(name)["rows"])) + "\n" for at, (lines, name) in TABLES.items()
    }
    return {(DOCS / f"{page}.md", name): text for (page, name), text in texts.items()}


def main() -> None:
    """Write the tables into their pages."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    for (page, name), text in tables().items():
        put(page, name, text)


if __name__ == "__main__":
    main()
