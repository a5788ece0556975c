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
import textwrap
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import tyro
from tyro.conf import arg
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
)

import robustjax as rj
from robustjax import checks, config

REGISTRY = ConstructorRegistry()
SECTION = r"\n\n(?=(?:Args|Attributes|Raises|References|Guarantees):|>>>)"
"""Where a docstring's description ends."""


def read(kind: Any, command: str, words: collections.abc.Sequence[str]) -> Any:
    """The options of a command from its words; `--help` prints and exits.

    Args:
      kind: their type, a dataclass or a union of dataclasses.
      command: its name, for the help.
      words: the words after the command's name.

    Raises:
      ValueError: raised by the options for invalid values.
    """

    def parsed(options: Any) -> Any:
        return options

    # As a part, not as the whole: tyro prints a page for errors of the whole.
    parsed.__annotations__ = {"options": Annotated[kind, arg(name="")]}
    about = re.split(SECTION, inspect.getdoc(kind) or "")[0]
    page = io.StringIO()
    try:
        with contextlib.redirect_stderr(page):
            return tyro.cli(
                parsed,
                prog=f"robustjax {command}",
                description="\n\n".join(textwrap.fill(part, 80) for part in about.split("\n\n")),
                args=list(words),
                config=(tyro.conf.AvoidSubcommands,),
                registry=REGISTRY,
            )
    except SystemExit as end:
        if end.code:
            print(f"robustjax: {one_line(page.getvalue(), command)}", file=sys.stderr)
        raise


def one_line(page: str, command: str) -> str:
    """What tyro's page about an error says, in one line: its reasons, and the flag that is meant.

    >>> page = "| Unrecognized options: --epoch, 3 |\\n| ----- |\\n| Perhaps you meant: |"
    >>> page += "\\n|     --epochs INT |\\n|         passes over the training set |"
    >>> one_line(page, "train natural")
    'Unrecognized options: --epoch, 3; did you mean --epochs? see robustjax train natural --help'
    """
    lines = [line.strip("│| ") for line in page.splitlines() if line[:1] in ("│", "|")]
    parts = re.split(r"\n[─-]+\n", "\n".join(lines))
    aside = ("Argument helptext", "For full helptext", "Perhaps you meant")
    reasons = [" ".join(part.split()) for part in parts if not part.startswith(aside)]
    meant = re.search(r"\nPerhaps you meant:\n(--\S+)", "\n".join(lines))
    question = f"did you mean {meant[1]}? " if meant else ""
    return f"{'; '.join(reasons)}; {question}see robustjax {command} --help"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackOptions:
    """Options of the commands that attack trained models.

    Args:
      threat: a norm, or a threat of your own: NAME[:FIELD=VALUE]; None: as in training.
      eps: its radius, pixels in [0, 1], e.g. 8/255; None: as in training.
      n: attack the first n test images.
      batch_size: of the attacks; None: chosen for the device. Results do not depend on it.
      seed: of the attacks.
      weights: the best on validation (the last of a run without early stopping), or the last.
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
      coordinator: host:port of process 0, for a run of several processes (jax.distributed).
      processes: the number of processes; each does its share of the work.
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
    a_function = get_origin(info.type) is collections.abc.Callable
    kind = rj.typing.Loss if a_function else info.type
    names = next((names for known, names in rj.spec.KINDS.items() if known == kind), None)
    if names is None:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(names) + "}[:FIELD=VALUE]",
        instance_from_str=lambda words: rj.spec.parse(words[0], names),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [rj.spec.write(value, names)],
    )
