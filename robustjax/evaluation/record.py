"""The evaluations of a run on disk: results of one setting belong together, others stand beside.

report.json holds the results of the setting that was evaluated last, and under 'others' those of
the settings before. examples.npz holds their per-example tables: the last one's under plain names,
'setting' among them, the others' under '@SETTING/...'; adversarial.npz their images in the same
way. Every file is replaced whole, report.json last.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robustjax.archives import read_arrays, write_arrays
from robustjax.checks import checked
from robustjax.evaluation.diagnostics import side_by_side
from robustjax.evaluation.draws import compared
from robustjax.evaluation.worst_case import accuracies
from robustjax.files import check_content, digest, read_json, write_json
from robustjax.writing import check_writable

PER_ATTACK = ("robust", "reached", "rounded", "zero_gradient", "stages", "attacks", "curves")
"""Entries of a report that are a dictionary by attack."""
NAMES = ("worst_case_over", "minimum_norm")
"""Entries that are a list of attacks."""
IDENTITY = ("threat", "weights", "dtype", "data", "setting")
"""Entries that say what the results depend on beside the attacks."""

ENTRY = {name: Mapping for name in (*PER_ATTACK[:-1], "setting", "per_class")}
ENTRY |= {name: [str] for name in (*NAMES, "warnings")}
"""Entries that two results need to be joined; there need not be curves."""
DRAWS = {"n": int, "vote": bool, "accuracy": Mapping}
"""Those of 'draws' of a model that draws."""


class Record:
    """The evaluations of one run: what its folder holds, and what one more adds to it.

    >>> import tempfile
    >>> images, labels = np.float32([0.75, 0.25, 0.25, 0.5]).reshape(2, 1, 1, 2), [0, 1]
    >>> def model(images):  # two pixels, two logits
    ...     return images[:, 0, 0]
    >>> run, key = tempfile.mkdtemp(), jax.random.key(0)
    >>> for name in ("fgsm", "pgd-2"):
    ...     record = rj.evaluation.Record(run)
    ...     attacks = {name: rj.attacks.parse(name, rj.threats.Linf(0.2))}
    ...     found = rj.evaluation.evaluate(model, images, labels, attacks, key, diagnose=False)
    ...     content = record.join(found.to_json(), found.flat_examples())
    ...     record.write(content, found.flat_examples())
    >>> content["robust"], content["worst_case_over"]
    ({'fgsm': 0.5, 'pgd-2': 0.5}, ['fgsm', 'pgd-2'])
    """

    @checked
    def __init__(self, run: str | os.PathLike):
        """Read what is there, and try the paths, before an hour is spent on a new result.

        Raises:
          OSError: a file cannot be written.
          ValueError: a file is damaged.
        """
        self.report = Path(run) / "report.json"
        self.examples = Path(run) / "examples.npz"
        self.images = Path(run) / "adversarial.npz"
        for path in (self.report, self.examples, self.images):
            check_writable(path)
        self._entries()

    def join(self, result: dict[str, Any], columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The content of report.json with one more result, which `write` takes.

        Args:
          result: `Report.to_json()` with the entries of `IDENTITY` and 'provenance'.
          columns: `Report.flat_examples()`.

        Guarantees:
          Attacks of one setting in two calls give the report of one call with all of them, except
          that nobody attacked all of them with a fixed draw (`Report.draws`).
          No earlier result is dropped but that of the same attack in the same setting.
        """
        entries, tables = self._entries(), read_tables(self.examples)
        name = identity(result)
        earlier = [entry for entry in entries if identity(entry) == name]
        others = [entry for entry in entries if identity(entry) != name]
        for entry in earlier:
            if _fits(entry, result, tables.get(name, {})):
                result = _joined(entry, result, {**tables[name], **columns})
            else:
                others.append(entry)
        return result | {"others": others}

    def write(
        self,
        content: dict[str, Any],
        columns: Mapping[str, np.ndarray],
        images: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Write `content` of `join`, and its columns and images beside those that are there.

        Args:
          content, columns: as for `join`.
          images: per attack (N, H, W, C), for adversarial.npz; None: nothing new for it.
        """
        update_table(self.examples, identity(content), columns)
        if images is not None or self.images.exists():
            update_table(self.images, identity(content), images or {})
        write_json(self.report, content)

    def _entries(self) -> list[dict[str, Any]]:
        """The results of every setting, the last one first."""
        if not self.report.exists():
            return []
        content = read_json(self.report, {})
        others = content.pop("others", [])
        check_content(self.report, {"others": others}, {"others": [Mapping]})
        for entry in (content, *others):
            if "setting" in entry:  # an older version's stands beside the others as it is
                self._check(entry)
        return [content, *others]

    def _check(self, entry: dict[str, Any]) -> None:
        """Raise ValueError unless a result has what joining it with another one reads."""
        check_content(self.report, entry, ENTRY)
        rows = [{"attacked": int, "backwards": int}]
        check_content(self.report, entry, {"stages": dict.fromkeys(entry["worst_case_over"], rows)})
        if entry.get("draws"):  # older results of models that do not draw have no such entry
            check_content(self.report, entry, {"draws": DRAWS})
            rows = {name: {"fixed": (float, type(None))} for name in entry["draws"]["accuracy"]}
            check_content(self.report, entry, {"draws": {"accuracy": rows}})


def identity(entry: Mapping[str, Any]) -> str:
    """Sixteen hex digits of what a result depends on beside the attacks.

    The number of devices is not part of it, nor are the software's versions of a report that an
    older robustjax wrote, which does not say.
    """
    about = {name: entry.get(name) for name in IDENTITY}
    if draws := entry.get("draws"):
        about |= {"draws": draws["n"], "vote": draws["vote"]}
    setting = about["setting"]
    if isinstance(setting, Mapping):
        devices = {k: v for k, v in setting.get("devices", {}).items() if k != "count"}
        about["setting"] = {**setting, "devices": devices}
    return digest(about)[:16]


def read_tables(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """The columns of every setting in a file that `update_table` wrote: setting -> its columns.

    Of any other file, a damaged one too, none.
    """
    try:
        arrays = read_arrays(path)
        front = f"{int(arrays.pop('setting')[0]):016x}"
    except (FileNotFoundError, ValueError, LookupError):  # nothing, or an older version's
        return {}
    tables: dict[str, dict[str, np.ndarray]] = {}
    for name, column in arrays.items():
        group, _, rest = name.partition("/")
        setting, column_name = (group[1:], rest) if group.startswith("@") else (front, name)
        tables.setdefault(setting, {})[column_name] = column
    return tables


def update_table(path: Path, setting: str, columns: Mapping[str, np.ndarray]) -> None:
    """Put columns into a file of tables; this setting comes first, under plain names.

    A file that holds no tables is renamed: examples.npz to examples_earlier.npz.
    """
    tables = read_tables(path)
    if path.exists() and not tables:  # not of this version, or damaged: set it aside
        path.replace(path.with_name(f"{path.stem}_earlier{path.suffix}"))
    own = {**tables.pop(setting, {}), **columns}
    beside = {f"@{other}/{n}": c for other, table in tables.items() for n, c in table.items()}
    rows = len(next(iter(own.values()), [None]))
    column = np.full(rows, int(setting, 16), np.uint64)
    write_arrays(path, {"setting": column, **own, **beside})


def _fits(entry: Mapping[str, Any], result: Mapping[str, Any], table: Mapping[str, Any]) -> bool:
    """Whether two results of one setting can be joined: no attack differs, no column is missing."""
    shared = set(entry["attacks"]) & set(result["attacks"])
    same = all(entry["attacks"][name] == result["attacks"][name] for name in shared)
    columns = ["wrong", *(f"{name}/counts" for name in entry["attacks"])]
    return same and all(column in table for column in columns)


def _joined(
    old: dict[str, Any], new: dict[str, Any], columns: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """One result of one setting; where both have an attack, the new one's."""
    found = new | {name: {**old.get(name, {}), **new.get(name, {})} for name in PER_ATTACK}
    found |= {name: _union(old[name], new[name]) for name in NAMES}
    again = tuple(f"{name}: " for name in new["attacks"])
    kept = [text for text in old["warnings"] if not text.startswith(again)]
    beside = {text for entry in (old, new) for text in _side_by_side(entry, columns)}
    kept = [text for text in _union(kept, new["warnings"]) if text not in beside]
    found["warnings"] = kept + _side_by_side(found, columns)
    found["earlier_provenance"] = [*old.get("earlier_provenance", []), old.get("provenance")]
    names = list(found["attacks"])
    table: dict[str, Any] = {k: columns[k] for k in ("label", "wrong", "seen") if k in columns}
    for name in names:
        parts = ("fooled", "counts", "wrong", "seen")
        table[name] = {k: columns[f"{name}/{k}"] for k in parts if f"{name}/{k}" in columns}
    numbers = accuracies(table, names, len(new["per_class"].get("clean", ())))
    accuracy = numbers.pop("accuracy")
    if draws := new["draws"]:
        rows = old["draws"]["accuracy"] | draws["accuracy"]
        fixed = {name: row["fixed"] for name, row in rows.items() if name != "worst_case"}
        rows = compared(draws, accuracy, fixed, len(columns["label"]))
        found["draws"] = {**draws, "accuracy": rows}
    return found | numbers | {"worst_case": accuracy["worst_case"]}


def _side_by_side(entry: Mapping[str, Any], columns: Mapping[str, np.ndarray]) -> list[str]:
    """The flags of attacks beside each other, which depend on which attacks a result has."""
    right = columns.get("seen", columns["wrong"]) <= 0.5
    won = {name: columns[f"{name}/fooled"] & right for name in entry["worst_case_over"]}
    return side_by_side(won, {name: entry["stages"][name] for name in won})


def _union(old: Iterable[str], new: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*old, *new]))
