"""Table 16 of "Bag of tricks for adversarial training": robust nets without extra data.

Command:   python experiments/table16.py --scale full --data-dir DIR   (DIR: prepared TFDS sets;
           --only 'Rice et al. 2020' for one row; --scale smoke: the path alone, on digits)
Hardware:  smoke: a minute a row on two CPU cores; full: a GPU for days, in pieces as short as you
           like: a stopped run resumes in the middle of an epoch or of AutoAttack.
Claim:     TRADES with a weight decay of 5e-4 in place of 2e-4, and the baseline's schedule, is
           ahead of all that was published without extra data until then.
Measured:  nothing yet. Results go to results/table16_{data}_{scale}.json, row by row.
Source:    Pang et al., ICLR 2021, Table 16; mean and standard deviation of five seeds where it has
           one. The other rows are the authors' models: here their code's card retrains one, on
           49,000 images, evaluated at the best of its checkpoints on the other 1,000.

The table does not say which method the row of hypersphere embedding uses (here PGD-AT), nor how
LLR's deeper net was trained (here as the one in the code). Friendly training is its TRADES
variant with twice the radius, as in its authors' code. All is in float32: TRADES starts its
attack nearer to the image than bfloat16 can resolve.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import numpy as np
from runner import added, evaluated, launch, scaled, slug, trained, wanted

from robustjax import files


class Row(NamedTuple):
    """A row of the table.

    Attributes:
      train: the method and its flags.
      model: the network.
      eps: the radius it is evaluated at.
      clean, autoattack: as published, in percent.
      seeds: how many.
    """

    train: str
    model: str
    eps: str
    clean: str
    autoattack: str
    seeds: int = 1


OURS = "trades --card bot"
ROWS = {
    "Ours, WRN-34-20": Row(OURS, "wrn-34-20", "8/255", "86.43", "54.39"),
    "Ours": Row(OURS, "wrn-34-10", "8/255", "85.49±0.24", "53.94±0.10", 5),
    "Pang et al. 2020c": Row("pgd-at-he --card repo", "wrn-34-20", "8/255", "85.14", "53.74"),
    "Zhang et al. 2020": Row(
        "fat-trades --card repo --eps 0.062", "wrn-34-10", "8/255", "84.52", "53.51"
    ),
    "Rice et al. 2020": Row("early-stopping --card repo", "wrn-34-20", "8/255", "85.34", "53.42"),
    "Qin et al. 2019": Row("llr --card repo", "wrn-40-8", "8/255", "86.28", "52.84"),
    "Ours, 0.031": Row(
        f"{OURS} --eps 0.031 --attack.step-size 0.007",
        "wrn-34-10",
        "0.031",
        "85.45±0.09",
        "54.28±0.24",
        5,
    ),
    "Huang et al. 2020": Row("sat --card repo", "wrn-34-10", "0.031", "83.48", "53.34"),
    "Zhang et al. 2019b": Row("trades --card repo", "wrn-34-10", "0.031", "84.92", "53.08"),
}
SCALES = {  # flags of train, of evaluate
    "smoke": ("--model cnn --width 4 --activation relu --epochs 1", "--n 32"),
    "full": ("--checkpoint-every 100", "--n 10000"),
}
EVALUATION = "--attacks autoattack --curve none"


def measure(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate one net: its columns, and where they are from."""
    row, (train, evaluate) = ROWS[name], SCALES[options.scale]
    folder = options.runs / f"table16-{slug(options.data)}-{options.scale}"
    run = folder / f"{name.lower().replace(',', '').replace(' ', '-')}-seed-{seed}"
    words = [*row.train.split(), "--model", row.model, *train.split(), "--seed", str(seed)]
    trained(run, words, options)
    words = [*evaluate.split(), *EVALUATION.split(), "--eps", row.eps]
    found = evaluated(run, words, options)
    origin, settings = (files.read_json(run / f"{part}.json") for part in ("training", "config"))
    return {
        "clean": found["clean"],
        "autoattack": found["robust"]["autoattack"],
        "training": origin,
        "config": settings,
        "report": found,
    }


def cell(values: list[float]) -> str:
    """The mean in percent, with the standard deviation of several seeds."""
    spread = f"±{100 * np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.2f}{spread}"


def markdown(rows: dict[str, list[dict[str, Any]]], published: bool) -> str:
    """The table, the published figures in brackets."""
    lines = ["| | net | eps | clean | AutoAttack |", "| --- | --- | ---: | ---: | ---: |"]
    for name, seeds in rows.items():
        row, cells = ROWS[name], []
        for column in ("clean", "autoattack"):
            beside = f" ({getattr(row, column)})" if published else ""
            cells.append(cell([seed[column] for seed in seeds]) + beside)
        net = seeds[0]["config"]["model"]["name"]
        lines.append(f"| {name} | {net} | {row.eps} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(options: argparse.Namespace) -> None:
    """Make what is missing of the rows, and write the table of all that are there."""
    started = time.time()
    for name in wanted(options, ROWS):
        seeds = 1 if options.scale == "smoke" else ROWS[name].seeds
        made = [measure(name, seed, options) for seed in range(seeds)]
        rows = added(options.results, "rows", name, made, started)
    print(markdown(rows, slug(options.data) == "cifar10"))


if __name__ == "__main__":
    launch(main, scaled(__doc__, SCALES), "table16")
