"""`robustjax transfer`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from tyro.conf import Positional

import robustjax as rj
from robustjax.cli.flags import AttackOptions, read
from robustjax.keys import seeded
from robustjax.writing import check_writable


@dataclasses.dataclass(frozen=True)
class TransferOptions(AttackOptions):
    """Attack every run with images crafted on every other run.

    The threat is that of the first run unless a flag names another.

    Args:
      runs: two or more run directories, trained on the same data.
      attack: a name with steps and restarts, e.g. mi-fgsm-10, dim-10, si-ni-fgsm.
      out: a JSON file for the result.
    """

    runs: Positional[tuple[Path, ...]]
    attack: str = "mi-fgsm-10"
    out: Path | None = None


def command(words: Sequence[str]) -> None:
    """`robustjax transfer` with these words."""
    options = read(TransferOptions, "transfer", words)
    rj.parallel.use_all_cores()
    transfer(options)


def transfer(options: TransferOptions) -> rj.evaluation.Transfer:
    """Craft on each run, test on all: success among images that both classify correctly."""
    started, names = time.time(), [run.name for run in options.runs]
    if len(set(names)) < max(2, len(names)):
        raise ValueError(
            "name two or more run directories with different names: robustjax transfer RUN RUN"
        )
    if options.out is not None:
        check_writable(options.out)
    loaded = [options.load(run) for run in options.runs]
    settings = [about for _, about in loaded]
    sets = {about["data"]["name"] for about in settings}
    if len(sets) > 1:
        raise ValueError(f"the runs were trained on different data: {', '.join(sorted(sets))}")
    threat = options.threat_of(settings[0])
    test = rj.data.load(sets.pop(), "test", options.data_dir).head(options.n)
    networks = {name: logits_fn for name, (logits_fn, _) in zip(names, loaded, strict=True)}
    found = rj.evaluation.transfer(
        rj.attacks.parse(options.attack, threat),
        networks,
        networks,
        test.images,
        test.labels,
        seeded(options.seed),
        indices=test.indices,
        batch_size=options.batch_size,
        progress=True,
    )
    result = found.to_json() | {
        "data": {"name": test.name, "split": test.split},
        "threat": rj.config.encode(threat),
        "weights": options.weights,
        "provenance": rj.report.provenance(rj.report.command_line(), options.seed, started),
    }
    print(f"success of {options.attack} in % among images that both models classify correctly")
    print(rj.report.transfer_table(result))
    if options.out is not None:
        rj.report.write_json(options.out, result)
    return found
