"""Evaluated runs, as the rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robustjax.checks import checked, in_body
from robustjax.files import check_content, read_json

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


def _method(path: Path, encoded: Any) -> str:
    """The class name, and for a wrapper the inner method: AWP(TRADES)."""
    check_content(path, {"method": encoded}, {"method": METHOD})
    inner = encoded["fields"].get("inner")
    return f"{encoded['type']}({_method(path, inner)})" if inner else encoded["type"]
