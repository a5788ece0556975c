"""Parsing of flags (numbers, configs by name, the threat), and the flags that commands share."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import importlib
import inspect
import io
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import arg
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
)

import robustjax as rj
from robustjax import checks, config
from robustjax.cli.help import Flag, flags_of, meant, names_of, page

REGISTRY = ConstructorRegistry()
SECTION = r"\n\n(?=(?:Args|Attributes|Raises|References|Guarantees):|>>>)"
"""Where a docstring's description ends."""


def read(kind: Any, command: str, words: collections.abc.Sequence[str]) -> Any:
    """The options of a command from its words; `--help` and `--help-all` print and exit.

    Args:
      kind: their type, a dataclass; its `GROUPS`, if it has any, are those of the short help.
      command: its name, for the help.
      words: the words after the command's name.

    Raises:
      ValueError: raised by the options for invalid values.
    """

    def parsed(options: Any) -> Any:
        return options

    flags = list(flags_of(kind))
    for asked in words:
        if asked in ("-h", "--help", "--help-all"):
            about = re.split(SECTION, inspect.getdoc(kind) or "")[0]
            print(page(command, about, flags, getattr(kind, "GROUPS", {}), asked == "--help-all"))
            sys.exit()
    # As a part, not as the whole: tyro prints a page for errors of the whole.
    parsed.__annotations__ = {"options": Annotated[kind, arg(name="")]}
    errors = Boxed()
    try:
        with contextlib.redirect_stdout(errors), contextlib.redirect_stderr(errors):
            return tyro.cli(
                parsed,
                prog=f"robustjax {command}",
                args=list(words),
                config=(tyro.conf.AvoidSubcommands,),
                registry=REGISTRY,
            )
    except SystemExit as end:
        if end.code:
            print(f"robustjax: {one_line(errors.getvalue(), command, flags)}", file=sys.stderr)
        raise


class Boxed(io.StringIO):
    """Text whose encoding lets tyro draw the boxes that `one_line` reads."""

    encoding = "utf-8"


def one_line(errors: str, command: str, flags: collections.abc.Sequence[Flag] = ()) -> str:
    """What tyro's page about an error says, in one line: its reasons, and the flag that is meant.

    >>> errors = "| Unrecognized options: --epoch 3 |\\n| ----- |\\n| Perhaps you meant: |"
    >>> one_line(errors, "train natural", [Flag("epochs", "INT", "110", "")])
    'unknown flag --epoch; did you mean --epochs? see robustjax train natural --help'
    """
    lines = [line.strip("│| ") for line in errors.splitlines() if line[:1] in ("│", "|")]
    parts = re.split(r"\n[─-]+\n", "\n".join(lines))
    aside = ("Argument helptext", "For full helptext", "Perhaps you meant")
    reasons = (" ".join(part.split()) for part in parts if not part.startswith(aside))
    return f"{' '.join(_told(reason, flags) for reason in reasons)} see robustjax {command} --help"


def _told(reason: str, flags: collections.abc.Sequence[Flag]) -> str:
    """A reason of tyro's as robustjax would say it."""
    if missing := re.fullmatch(r"Missing from .*?: (.*)\(required\)", reason):
        needed = [flag for flag in flags if flag.default is None]
        named = [flag for flag in needed if any(f"{w} " in missing[1] for w in flag.words)]
        names = [flag.shown for flag in named or needed if named or flag.positional]
        return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} missing;"
    if unknown := re.match(r"Unrecognized options: (-[^\s,]+)", reason):
        near = meant(unknown[1], flags)
        return f"unknown flag {unknown[1]};{f' did you mean {near}?' if near else ''}"
    return f"{reason.rstrip('.')};"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackOptions:
    """Options of the commands that attack trained models.

    Args:
      threat: a norm, or a threat of your own: NAME[:FIELD=VALUE]; None: as in training.
      eps: its radius, pixels in [0, 1], e.g. 8/255; None: as in training.
      n: attack the first n test images.
      batch_size: of the attacks; None: chosen for the device. Results do not depend on it.
      seed: of the attacks.
      weights: the best on validation, or the last; a run without early stopping has the last only.
      model: package.module:factory, for a run with a network of your own.
      data_dir: the folder of prepared TFDS sets.
    """

    threat: str | None = None
    eps: float | None = None
    n: int = 1000
    batch_size: int | None = None
    seed: int = 0
    weights: Literal["best", "last"] = "best"
    model: str | None = None
    data_dir: str | None = None

    def __post_init__(self):
        checks.check_number("--n", self.n, 1, checks.LARGEST)
        checks.check_number("--batch-size", self.batch_size, 1, checks.LARGEST)
        checks.check_seed("--seed", self.seed)

    def load(self, run: Path, dtype: str | None = None) -> tuple[Any, dict[str, Any]]:
        """A run's classifier, and its config.json."""
        logits_fn, _, settings = rj.models.load(run, self.weights, dtype, module=self.model)
        try:
            self.threat_of(settings)
        except (ValueError, TypeError) as error:
            raise ValueError(f"the threat of {run / 'config.json'}: {error}") from error
        return logits_fn, settings

    def threat_of(self, settings: collections.abc.Mapping[str, Any]) -> rj.typing.Threat:
        """The threat to attack with, given a run's config.json."""
        importlib.import_module("robustjax.threats")  # `decode` finds only imported classes
        trained = config.decode(settings["threat"], rj.losses.NAMED)
        return choose_threat(self.threat, self.eps, trained)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """Options of the commands that several processes can share.

    Args:
      coordinator: host:port of process 0, if several processes run it (jax.distributed).
      processes: their number; each does its share of the work.
      process: the index of this process.
      distributed: detect these three from the environment, as on TPU pods and under Slurm.
    """

    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    distributed: bool = False

    def connect(self) -> None:
        """Connect to the run's other processes, if the flags say that there are any.

        Raises:
          ValueError: the flags are incomplete, or contradict --distributed.
        """
        flags = (self.coordinator, self.processes, self.process)
        named = sum(flag is not None for flag in flags)
        if named not in (0, 3) or (named and self.distributed):
            raise ValueError(
                "a run of several processes needs all of --coordinator, --processes and --process, "
                "or only --distributed, which detects them"
            )
        if named or self.distributed:
            rj.parallel.initialize(*flags)


def choose_threat(
    text: str | None, eps: float | None, default: rj.typing.Threat
) -> rj.typing.Threat:
    """The threat of the flags --threat and --eps, each of which defaults to that of `default`.

    Raises:
      ValueError: an unknown name, or an eps that the threat refuses.
    """
    threat = default
    if text is not None:
        name, settings = rj.spec.split(text)
        named = rj.threats.THREATS.find(name)
        same = type(named) is type(default)
        threat = rj.spec.change(default if same else named, settings, name)
    return threat if eps is None else rj.threats.with_radius(threat, eps)


@REGISTRY.primitive_rule
def number_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Read a float, which may be a fraction."""
    if info.type is not float:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="NUMBER",
        instance_from_str=lambda words: config.parse_number(words[0]),
        is_instance=lambda value: isinstance(value, int | float),
        str_from_instance=lambda value: [config.format_number(value)],
    )


@REGISTRY.primitive_rule
def path_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Read a path, which is not empty: `Path('')` would be the current folder."""
    if info.type is not Path:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: _path(words[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    )


def _path(text: str) -> Path:
    if not text:
        raise ValueError("a path cannot be empty; write . for the current folder")
    return Path(text)


@REGISTRY.primitive_rule
def named_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Read a loss, schedule, start, step or stop rule in the language of `robustjax.spec`."""
    names = names_of(info.type)
    if names is None:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(names) + "}[:FIELD=VALUE]",
        instance_from_str=lambda words: rj.spec.parse(words[0], names),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [rj.spec.write(value, names)],
    )
