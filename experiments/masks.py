"""Do the flags of an evaluation know a mask when they see one, and is their advice any good?

Command:   python experiments/masks.py
Hardware:  two minutes of one CPU core.
Claim:     of twenty defences that are known to be broken at least nineteen raise a flag; an attack
           that does what a flag advises leaves at most 2 of 64 images, where the undefended network
           keeps none; ten sound networks raise no flag.
Measured:  results/masks.json, shown in docs/masks.md, which this script writes too.
Source:    in the column `proposed by` of each defence; the accuracies under `broken by` are those
           that these authors published, for their networks.

The networks have one hidden layer, of random features, and a ridge readout; the images are the 8x8
digits of scikit-learn. The defences are in zoo/defences.py, the sound networks in zoo/sound.py.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import origins
from runner import parser
from zoo.defences import DEFENCES
from zoo.sound import SOUND
from zoo.study import BROKEN, of_defences, of_sound, undefended

from robustjax import files, report

PAGE = Path(__file__).parents[1] / "docs" / "masks.md"
RESULT = origins.RESULTS / "masks.json"
KINDS = {
    "returns probabilities": "probabilities",
    "output is random": "random",
    "exactly zero": "zero gradient",
    "a random step raises": "gradient leads nowhere",
    "does not change with the image": "logit saturates",
    "sees no gradient": "black box wins",
    "one fixed draw": "one draw",
    "fresh draws": "fixed and fresh part",
}
"""What a flag says -> its name in the table."""


def kinds(flags: list[str]) -> str:
    """The names of flags, each once."""
    return ", ".join(name for text, name in KINDS.items() if any(text in flag for flag in flags))


def page(found: dict[str, Any]) -> str:
    """The gallery in Markdown."""
    lines = [
        "# A gallery of masks",
        "",
        "Twenty defences that are known to be broken, each in a few lines of",
        "[experiments/zoo/defences.py](../experiments/zoo/defences.py): what PGD with 10 steps on",
        "the cross-entropy and Square with 100 queries leave, which flags `evaluate` raises, and",
        "what an attack leaves that follows their advice. The page and its data,",
        "experiments/results/masks.json, are written by `python experiments/masks.py`.",
        "",
        f"Accuracies in per cent on {found['n']} digits in Linf {BROKEN}, where the undefended "
        f"network keeps {found['undefended']:.0%}.".replace("0%", "none"),
        "`broken by` holds published accuracies, for the authors' networks.",
        "",
        "| defence | proposed by | broken by | clean | PGD | Square | flags | advice | under it |",
        "| --- | --- | --- | ---: | ---: | ---: | --- | --- | ---: |",
    ]
    for row in found["defences"]:
        numbers = [f"{100 * row[name]:.0f}" for name in ("clean", "pgd", "square")]
        words = [row["defence"], row["source"], row["broken"], *numbers, kinds(row["flags"])]
        words += [row["attack"] if row["advice"] else "", f"{100 * row['adapted']:.0f}"]
        lines.append(f"| {' | '.join(words)} |")
    lines += [
        "",
        "Sound networks ([experiments/zoo/sound.py](../experiments/zoo/sound.py)), for which every",
        "flag would be a false alarm:",
        "",
        "| network | eps | clean | PGD | Square | flags |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in found["sound"]:
        numbers = [f"{100 * row[name]:.0f}" for name in ("clean", "pgd", "square")]
        words = [row["network"], f"{row['eps']:g}", *numbers, "; ".join(row["flags"]) or "none"]
        lines.append(f"| {' | '.join(words)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    known = parser(__doc__)
    options = known.parse_args()
    origins.check(RESULT, options.dirty)
    began, n = time.time(), 64
    found = {
        "n": n,
        "undefended": undefended(n),
        "defences": list(of_defences(DEFENCES, n)),
        "sound": list(of_sound(SOUND, n)),
    }
    origin = report.provenance(report.command_line(), 0, began)
    files.write_json(RESULT, found | {"provenance": origin})
    PAGE.write_text(page(found))
    print(page(found))


if __name__ == "__main__":
    main()
