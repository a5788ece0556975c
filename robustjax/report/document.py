"""What an evaluated run says, as blocks that `rendering` writes as HTML or Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustjax.files import read_json
from robustjax.report.cells import percent
from robustjax.report.runs import read_rows
from robustjax.report.tables import row_cells, stage_cells
from robustjax.report.warned import merged


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading: level 1 is the title of the page."""

    text: str
    level: int = 2


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    text: str


@dataclasses.dataclass(frozen=True)
class Flags:
    """Sentences that say what makes the numbers doubtful."""

    texts: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells under a header; numbers from column `numbers_from` on are flush right."""

    cells: Sequence[Sequence[str]]
    numbers_from: int = 1


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG file and what it shows."""

    path: Path
    caption: str


Block = Heading | Paragraph | Flags | Table | Picture

PICTURES = {
    "accuracy_over_eps.png": "Accuracy over the radius of the attack.",
    "examples.png": "Clean images, adversarial images, and the difference, amplified.",
    "training.png": "Training: loss and validation accuracy.",
}


def document(runs: Sequence[str | Path]) -> list[Block]:
    """The blocks of one page about evaluated runs: a table of all, then a section for each.

    Raises:
      FileNotFoundError: a run has no report; the message has the command that makes it.
    """
    folders = [Path(run) for run in runs]
    rows = [row for folder in folders for row in read_rows(folder)]
    blocks: list[Block] = [Heading("Robustness report", 1)]
    blocks.append(
        Paragraph(
            "Accuracies are percentages of all test images. The worst case counts an image if it "
            "withstands every attack under the threat."
        )
    )
    blocks.append(Table(row_cells(rows), 5))
    for folder in folders:
        blocks += section(folder)
    return blocks


def section(folder: Path) -> list[Block]:
    """The blocks of one run, in the setting that it was evaluated in last."""
    row, *others = read_rows(folder)
    report = row["report"]
    worst = percent(report["worst_case"], report["stderr"]["worst_case"])
    blocks: list[Block] = [
        Heading(row["run"]),
        Paragraph(
            f"{row['model']} trained by {row['method']} on {row['data']}; {report.get('n', '?')} "
            f"test images. Right on {percent(report['clean'])} % without an attack and on {worst} "
            "% in the worst case."
        ),
    ]
    if warnings := merged([row, *others]):
        blocks.append(Flags(warnings))
    where = folder if folder.is_dir() else folder.parent
    found = [Picture(where / name, text) for name, text in PICTURES.items()]
    blocks += [picture for picture in found if folder.is_dir() and picture.path.is_file()]
    for name, stages in report.get("stages", {}).items():
        if len(stages) > 1:
            blocks += [Heading(f"{name}, stage by stage", 3), Table(stage_cells(stages))]
    if (per_class := report.get("per_class", {})).get("clean"):
        heads = [name.replace("worst_case", "worst case") for name in per_class]
        names = _class_names(folder, len(per_class["clean"]))
        lines = [[n, *map(percent, v)] for n, *v in zip(names, *per_class.values(), strict=True)]
        blocks += [Heading("By class", 3), Table([["class", *heads], *lines])]
    blocks += [Heading("Where the numbers come from", 3), Table(_provenance(report), 2)]
    return blocks


def _class_names(folder: Path, count: int) -> list[str]:
    path = folder / "config.json"
    names = read_json(path).get("class_names") if path.is_file() else None
    return names if names and len(names) == count else [str(k) for k in range(count)]


def _provenance(report: Mapping[str, Any]) -> list[list[str]]:
    origin, setting = report.get("provenance", {}), report.get("setting", {})
    lines = [["what", "value"]]
    for name in ("command", "commit", "seed", "device", "date", "wall_time_s"):
        if name in origin:
            lines.append([name.replace("_s", " (s)").replace("_", " "), str(origin[name])])
    versions = origin.get("versions", {})
    lines.append(["versions", ", ".join(f"{name} {v}" for name, v in versions.items())])
    for name, digest in setting.get("weights_sha256", {}).items():
        lines.append([f"SHA-256 of the {name}'s weights", digest])
    if "data_sha256" in setting:
        lines.append(["SHA-256 of the images and labels", setting["data_sha256"]])
    return lines
