"""Tables: of several runs, of an ensemble's stages, of transfer and of detection."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from robustjax.checks import check_number, checked, in_body
from robustjax.files import check_content, read_json
from robustjax.report.warned import merged

MAYBE = (float, type(None))
"""A number, or null where there are no images to count."""
METHOD = {"type": str, "fields": Mapping}
THREAT = {"type": str, "fields": {"eps": (float, str, Mapping)}}
CONFIG = {"method": METHOD, "data": {"name": str}, "model": {"name": str}, "threat": THREAT}
REPORT = {
    "clean": float,
    "robust": Mapping,
    "worst_case": float,
    "stderr": {"worst_case": float},
    "warnings": [str],
}


@checked(host=True)
def read_run(path: str | Path) -> dict[str, Any]:
    """Read a run directory, or a results file with the same content, into one dictionary.

    Args:
      path: a folder with config.json and report.json, or a JSON file {"config": .., "report": ..}.

    Returns:
      run, method, data, model, threat, eps and report, those of the setting evaluated last.

    Raises:
      FileNotFoundError: a file is missing; the message has the command that makes it.
      ValueError: a file is damaged or was not written by robustjax.

    >>> import tempfile
    >>> threat = rj.config.encode(rj.threats.Linf(8 / 255))
    >>> method = {"type": "TRADES", "fields": {}}
    >>> config = {"method": method, "data": {"name": "cifar10"}, "model": {"name": "cnn"}}
    >>> report = {"clean": 0.81, "robust": {}, "worst_case": 0.81, "warnings": []}
    >>> report |= {"stderr": {"worst_case": 0.01}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/a.json"
    ...     rj.report.write_json(path, {"config": config | {"threat": threat}, "report": report})
    ...     rj.report.read_run(path)["method"]
    'TRADES'
    """
    return read_rows(path)[0]


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """`run_rows` of a run directory or a results file."""
    path = Path(path)
    if path.is_file():
        whole = read_json(path, {"config": Mapping, "report": Mapping})
        config, report = whole["config"], whole["report"]
    else:
        if not (path / "config.json").is_file():
            raise FileNotFoundError(f"{path} is not a run directory: it has no config.json")
        if not (path / "report.json").is_file():
            raise FileNotFoundError(
                f"{path} has no report.json yet; run: robustjax evaluate {path}"
            )
        config, report = read_json(path / "config.json"), read_json(path / "report.json")
    configured, reported = (
        path if path.is_file() else path / name for name in ("config.json", "report.json")
    )
    return run_rows(
        path.stem if path.is_file() else path.name, config, report, configured, reported
    )


@checked(host=True, config=in_body, report=in_body)
def run_rows(
    run: str,
    config: Mapping[str, Any],
    report: Mapping[str, Any],
    configured: str | Path = "config.json",
    reported: str | Path = "report.json",
) -> list[dict[str, Any]]:
    """The rows of one run for `rows_table`: one for each setting that it was evaluated in.

    Args:
      run: its name; the rows after the first add what differs from that.
      config, report: the contents of its config.json and report.json.
      configured, reported: where these were read, for messages.

    Raises:
      ValueError: `config` or `report` was not written by robustjax.

    >>> threat = rj.config.encode(rj.threats.Linf(8 / 255))
    >>> config = {"method": {"type": "TRADES", "fields": {}}, "data": {"name": "cifar10"}}
    >>> config |= {"model": {"name": "cnn"}, "threat": threat}
    >>> report = {"clean": 0.81, "robust": {}, "worst_case": 0.81, "warnings": []}
    >>> report |= {"stderr": {"worst_case": 0.01}, "n": 100, "setting": {}}
    >>> rows = rj.report.run_rows("a", config, report | {"others": [report | {"n": 50}]})
    >>> [row["run"] for row in rows]
    ['a', 'a (50 images)']
    """
    check_content(configured, config, CONFIG)
    check_content(reported, report, REPORT)
    others = report.get("others", [])
    check_content(reported, {"others": others}, {"others": [Mapping]})
    rows = []
    for entry in (report, *others):
        check_content(reported, entry, REPORT)
        threat = entry.get("threat") or config["threat"]
        robust = dict.fromkeys(entry["robust"], (float, type(None)))
        check_content(reported, {**entry, "threat": threat}, {"robust": robust, "threat": THREAT})
        if isinstance(threat["fields"]["eps"], Mapping):
            check_content(reported, threat["fields"]["eps"], {"shape": [int]})
        differs = _differences(report, entry)
        rows.append(
            {
                "run": f"{run} ({', '.join(differs)})" if differs else run,
                "method": _method(Path(configured), config["method"]),
                "data": config["data"]["name"],
                "model": config["model"]["name"],
                "threat": threat["type"],
                "eps": threat["fields"]["eps"],
                "report": entry,
            }
        )
    return rows


def _differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What differs in the setting, except for the threat, which has a column."""
    if other is first:
        return []
    if "setting" not in other:
        return ["of an older version"]
    then, now = map(_about, (other, first))
    differs = [name for name in DIFFERENCES if then.get(name) != now.get(name)]
    for name, said in {"data_sha256": {"n", "data"}, "surrogate": {"dtype"}}.items():
        if name in differs and said & set(differs):
            differs.remove(name)
    return [DIFFERENCES[name](then.get(name)) for name in differs]


def _about(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What a result depends on, as `DIFFERENCES` names it."""
    about = {**entry, **entry.get("setting", {})}
    weights, draws = about.get("weights_sha256"), about.get("draws")
    weights = weights if isinstance(weights, Mapping) else {"model": weights}
    draws = draws if isinstance(draws, Mapping) else {}
    about["weights_sha256"] = weights.get("model")
    about["surrogate"] = weights.get("surrogate", NONE)
    return about | {"draws": draws.get("n", 0), "vote": bool(draws.get("vote"))}


NONE = "no surrogate"
"""In the place of the digest of the weights of one, which may be null."""


DIFFERENCES: dict[str, Callable[[Any], str]] = {
    "n": lambda n: f"{n} images",
    "key": lambda key: f"seed {key[-1]}",
    "weights": lambda weights: f"{weights} weights",
    "dtype": str,
    "surrogate": lambda digest: NONE if digest == NONE else "on a surrogate",
    "draws": lambda n: f"{n} draws",
    "vote": lambda vote: "by vote" if vote else "no vote",
    "success": lambda success: f"success {success or 'fooled'}",
    "data": lambda data: f"on {data['name']}",
    "data_sha256": lambda _: "other images",
    "weights_sha256": lambda _: "other weights",
    "devices": lambda devices: f"on {devices['kind']}",
    "versions": lambda _: "other versions",
}
"""An entry of a setting -> how a row names one that differs from the first row's."""


@checked(host=True)
def table(runs: Sequence[str | Path], markdown: bool = False) -> str:
    """One aligned table of several runs, followed by missing reports and warnings, a line each.

    Accuracies are in percent. A run has a row for each setting that it was evaluated in (threat,
    images, seed, weights ...). Each attack of any row has a column, with "-" for the rows without
    it. The worst case, in which an example counts if it withstands all attacks under the threat,
    comes with its standard error; the lines below say which attacks these are.

    Args:
      runs: paths for `read_run`; a run without a report is named with the command that makes it.
      markdown: a Markdown table; otherwise plain columns.

    Raises:
      FileNotFoundError: no run has a report.

    >>> import tempfile
    >>> threat = rj.config.encode(rj.threats.Linf(8 / 255))
    >>> method = {"type": "TRADES", "fields": {}}
    >>> config = {"method": method, "data": {"name": "cifar10"}, "model": {"name": "cnn"}}
    >>> report = {"clean": 0.8125, "robust": {"pgd-10": 0.5}, "worst_case": 0.495, "warnings": []}
    >>> report |= {"stderr": {"worst_case": 0.016}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/a.json"
    ...     rj.report.write_json(path, {"config": config | {"threat": threat}, "report": report})
    ...     print(rj.report.table([path]))
    run  method  data     model  threat      clean  pgd-10  worst case
    ---  ------  -------  -----  ----------  -----  ------  ----------
    a    TRADES  cifar10  cnn    Linf 8/255   81.2    50.0  49.5 ± 1.6
    worst case over pgd-10
    """
    rows, missing = [], []
    for run in runs:
        try:
            rows += read_rows(run)
        except FileNotFoundError as error:
            missing.append(str(error))
    if missing and not rows:
        raise FileNotFoundError("; ".join(missing))
    return "\n".join([rows_table(rows, markdown), *missing])


@checked(host=True)
def rows_table(rows: Sequence[Mapping[str, Any]], markdown: bool = False) -> str:
    """The table of `table` for rows of `run_rows`.

    >>> threat = rj.config.encode(rj.threats.Linf(8 / 255))
    >>> config = {"method": {"type": "TRADES", "fields": {}}, "data": {"name": "cifar10"}}
    >>> config |= {"model": {"name": "cnn"}, "threat": threat}
    >>> report = {"clean": 0.8125, "robust": {}, "worst_case": 0.8125, "warnings": []}
    >>> report |= {"stderr": {"worst_case": 0.01}}
    >>> print(rj.report.rows_table(rj.report.run_rows("a", config, report)))
    run  method  data     model  threat      clean  worst case
    ---  ------  -------  -----  ----------  -----  ----------
    a    TRADES  cifar10  cnn    Linf 8/255   81.2  81.2 ± 1.0
    """
    notes = _worst_cases(rows)
    for row in rows:
        notes += [*_survivors(row), *_calls_an_image(row)]
    notes += [f"warning: {line}" for line in merged(rows)]
    gap = [""] if markdown and notes else []  # or they would be rows
    return "\n".join([align(row_cells(rows), numbers_from=5, markdown=markdown), *gap, *notes])


def row_cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The header and the lines of `rows_table`."""
    attacks = dict.fromkeys(name for row in rows for name in row["report"]["robust"])
    cells = [["run", "method", "data", "model", "threat", "clean", *attacks, "worst case"]]
    for row in rows:
        report = row["report"]
        robust = [percent(report["robust"].get(name)) for name in attacks]
        worst = percent(report["worst_case"], report["stderr"]["worst_case"])
        threat = f"{row['threat']} {format_eps(row['eps'])}"
        about = [row["run"], row["method"], row["data"], row["model"], threat]
        cells.append([*about, percent(report["clean"]), *robust, worst])
    return cells


def _worst_cases(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Over which attacks the worst case of each row is; one line if they are the same."""
    over = {row["run"]: ", ".join(_over(row["report"])) for row in rows}
    if len(set(over.values())) == 1:
        over = {"": next(iter(over.values()))}
    return [f"{run}: worst case over {o}".lstrip(": ") for run, o in over.items() if o]


def _over(report: Mapping[str, Any]) -> list[str]:
    return report.get("worst_case_over", list(report["robust"]))


def _survivors(row: Mapping[str, Any]) -> list[str]:
    """Which part of the successful images of a row are still that after rounding."""
    by_levels: dict[int, list[str]] = {}
    for name, rounded in row["report"].get("rounded", {}).items():
        by_levels.setdefault(rounded["levels"], []).append(f"{name} {percent(rounded['survive'])}")
    return [
        f"{row['run']}: % of successes that survive rounding to {levels} levels: {', '.join(found)}"
        for levels, found in by_levels.items()
    ]


def _calls_an_image(row: Mapping[str, Any]) -> list[str]:
    """What each attack of a row took, where it says so; reports of older versions have no n."""
    report, found = row["report"], []
    for name, stages in report.get("stages", {}).items():
        forwards, backwards = calls_an_image(stages, report.get("n", 0))
        if forwards is not None and backwards is not None:
            found.append(f"{name} {forwards:.0f} forward {backwards:.0f} backward")
    return [f"{row['run']}: model calls an image: {', '.join(found)}"] if found else []


@checked(host=True)
def calls_an_image(
    stages: Sequence[Mapping[str, Any]], n: int
) -> tuple[float | None, float | None]:
    """The forward and backward passes of an attack, divided by the number of evaluated images.

    Args:
      stages: the rows of the attack in a report's 'stages'.
      n: the report's 'n'.

    Returns:
      (forwards, backwards), each None where a stage does not say.

    >>> stages = [{"forwards": 40, "backwards": 20}, {"forwards": 60, "backwards": 0}]
    >>> rj.report.calls_an_image(stages, n=10)
    (10.0, 2.0)
    """
    if n < 1:
        return None, None
    totals = ([row[kind] for row in stages] for kind in ("forwards", "backwards"))
    forwards, backwards = (None if min(t, default=0) < 0 else sum(t) / n for t in totals)
    return forwards, backwards


@checked(host=True)
def stage_table(stages: Sequence[Mapping[str, Any]], markdown: bool = False) -> str:
    """The results of an ensemble's stages, in order; the inner stages of a stage share a row.

    Rank 2 is a stage towards the second most likely wrong class; stages of one name are numbered.

    Args:
      stages: the rows of one attack in a report's 'stages'.
      markdown: a Markdown table; otherwise plain columns.

    >>> apgd = {"attack": {"type": "APGD", "fields": {}}, "path": [0], "attacked": 100}
    >>> apgd |= {"accuracy": 0.62, "stderr": 0.05}
    >>> apgd |= {"forwards": 4200, "backwards": 4100, "seconds": 2.5}
    >>> print(rj.report.stage_table([apgd]))
    stage  attacked    accuracy  forwards  backwards  seconds
    -----  --------  ----------  --------  ---------  -------
    APGD        100  62.0 ± 5.0      4200       4100      2.5
    """
    return align(stage_cells(stages), numbers_from=1, markdown=markdown)


def stage_cells(stages: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The header and the lines of `stage_table`."""
    cells = []
    for _, group in itertools.groupby(stages, lambda row: row["path"][:1]):
        rows = list(group)
        calls = [_calls([row[kind] for row in rows]) for kind in ("forwards", "backwards")]
        accuracy = percent(rows[-1]["accuracy"], rows[-1]["stderr"])
        seconds = f"{sum(row['seconds'] for row in rows):.1f}"
        name = _stage_name([row["attack"] for row in rows])
        cells.append([name, str(rows[0]["attacked"]), accuracy, *calls, seconds])
    names = [name for name, *_ in cells]
    for i, row in enumerate(cells):
        if names.count(names[i]) > 1:
            row[0] += f", run {names[: i + 1].count(names[i])}"
    return [["stage", "attacked", "accuracy", "forwards", "backwards", "seconds"], *cells]


@checked(host=True)
def transfer_table(found: Mapping[str, Any], markdown: bool = False) -> str:
    """Success rates of transferred images: a row for each source model, a column for each target.

    Args:
      found: `evaluation.Transfer.to_json()`.
      markdown: a Markdown table; otherwise plain columns.

    >>> rates = {"cnn": {"value": 0.97, "stderr": 0.01}, "vit": {"value": 0.21, "stderr": 0.02}}
    >>> print(rj.report.transfer_table({"success": {"cnn": rates}}))
    crafted on         cnn         vit
    ----------  ----------  ----------
    cnn         97.0 ± 1.0  21.0 ± 2.0
    """
    check_content("found", found, {"success": Mapping})
    matrix = found["success"]
    for source, row in matrix.items():
        rates = {name: {"value": MAYBE, "stderr": MAYBE} for name in next(iter(matrix.values()))}
        check_content(f"found: {source}", row, rates)
    targets = list(next(iter(matrix.values())))
    cells = [["crafted on", *targets]]
    for source, row in matrix.items():
        rates = [percent(row[target]["value"], row[target]["stderr"]) for target in targets]
        cells.append([source, *rates])
    return align(cells, numbers_from=1, markdown=markdown)


@checked(host=True)
def detection_table(found: Mapping[str, Any], markdown: bool = False) -> str:
    """AUC / accepted and wrong, in percent: a row for each detector, a column for each attack.

    Args:
      found: `evaluation.DetectionReport.to_json()`.
      markdown: a Markdown table; otherwise plain columns.

    >>> row = {"auc": 0.93, "accepted_clean": 0.95, "accepted_wrong": 0.12}
    >>> print(rj.report.detection_table({"found": {"k-density": {"pgd-10": row}}}))
    detector   clean accepted       pgd-10
    ---------  --------------  -----------
    k-density            95.0  93.0 / 12.0
    """
    check_content("found", found, {"found": Mapping})
    rows = found["found"]
    attacks = list(next(iter(rows.values())))
    cells = [["detector", "clean accepted", *attacks]]
    for detector, row in rows.items():
        clean = next(iter(row.values()))["accepted_clean"]
        both = [f"{percent(e['auc'])} / {percent(e['accepted_wrong'])}" for e in row.values()]
        cells.append([detector, percent(clean), *both])
    return align(cells, numbers_from=1, markdown=markdown)


def _calls(counts: Sequence[int]) -> str:
    """The sum of the counts; "-" if an attack does not count (-1)."""
    return "-" if min(counts) < 0 else str(sum(counts))


def _stage_name(encoded: Sequence[Any]) -> str:
    """The type of the first attack, its loss, the targets other than the label, and the number."""
    first, *others = encoded
    if not isinstance(first, Mapping):
        return str(first)
    loss = first["fields"].get("loss")
    if isinstance(loss, Mapping):
        loss = " ".join([loss["type"], *(f"{number:g}" for number in loss["fields"].values())])
    ranks = [_rank(attack) for attack in encoded]
    target = (first["fields"].get("target") or {}).get("type")
    target = None if target == "TrueLabel" else target
    if others and None not in ranks and len(set(ranks)) == len(ranks):
        target, others = f"ranks {ranks[0]:g} to {ranks[-1]:g}", []
    elif ranks[0] is not None:
        target = f"rank {ranks[0]:g}"
    words = [first["type"], loss, target, f"x{len(encoded)}" if others else None]
    return " ".join(word for word in words if word)


def _rank(encoded: Any) -> float | None:
    """Which of the most likely wrong classes an attack goes to, if it goes to one."""
    fields = encoded["fields"] if isinstance(encoded, Mapping) else {}
    rank = ((fields.get("target") or {}).get("fields") or {}).get("rank")
    return rank if isinstance(rank, int | float) else None


@checked(host=True)
def format_eps(eps: float | str | Mapping[str, Any]) -> str:
    """A small multiple of 1/255 as a fraction, any other radius with three digits.

    An array, as `config.encode` writes it, by its shape.

    >>> rj.report.format_eps(8 / 255), rj.report.format_eps(0.3)
    ('8/255', '0.3')
    """
    if isinstance(eps, Mapping):
        check_content("eps", eps, {"shape": list})
    if not isinstance(eps, float | int):
        return f"of shape {tuple(eps['shape'])}" if isinstance(eps, Mapping) else str(eps)
    check_number("eps", eps)
    if not eps < 0.2:  # inf too
        return f"{eps:.3g}"
    levels = eps * 255
    whole = round(levels)
    return f"{whole}/255" if whole and abs(levels - whole) < 1e-3 else f"{eps:.3g}"


def _method(path: Path, encoded: Any) -> str:
    """The class name, and for a wrapper the inner method: AWP(TRADES)."""
    check_content(path, {"method": encoded}, {"method": METHOD})
    inner = encoded["fields"].get("inner")
    return f"{encoded['type']}({_method(path, inner)})" if inner else encoded["type"]


def percent(value: float | None, error: float | None = None) -> str:
    """A share in per cent, with its error if there is one.

    >>> percent(0.8125), percent(0.5, 0.015), percent(None)
    ('81.2', '50.0 ± 1.5', '-')
    """
    if value is None:
        return "-"
    return f"{100 * value:.1f}" + (f" ± {100 * error:.1f}" if error is not None else "")


def align(cells: Sequence[Sequence[str]], numbers_from: int, markdown: bool) -> str:
    """Aligned columns under a header, flush right from column `numbers_from` on.

    >>> print(align([["attack", "accuracy"], ["pgd-10", "50.0"]], numbers_from=1, markdown=True))
    | attack | accuracy |
    | ------ | -------: |
    | pgd-10 |     50.0 |
    """
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if not markdown and numbers_from >= len(widths):  # the last column may be long text
        widths[-1] = len(cells[0][-1])

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if i >= numbers_from else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    colon = ":" if markdown else "-"
    rule = ["-" * (w - 1) + (colon if i >= numbers_from else "-") for i, w in enumerate(widths)]
    return "\n".join(map(line, [cells[0], rule, *cells[1:]]))
