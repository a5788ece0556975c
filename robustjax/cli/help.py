"""The help of a command: a page of the flags that most runs need, and one of them all."""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tyro import MISSING
from tyro.conf import Positional

import robustjax as rj
from robustjax.config import format_number

WIDTH = 100
INDENT = 30
"""The column at which a flag's text starts."""

NONE = re.compile(r"[;.,]? ?None: (.+?)(?:\.(?=\s|$)|;|$)")
"""What a text says of the value None."""


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of a command, or a positional argument.

    Attributes:
      name: as it is typed, e.g. attack.step-size.
      value: what follows it, e.g. NUMBER; empty for a switch.
      default: as text; None: there is none, and it must be given.
      text: what it means.
      part: the config that it belongs to: empty, 'attack', 'optimizer' ...
      positional: it is given without a name.
      known: the names that its value may have.
    """

    name: str
    value: str
    default: str | None
    text: str
    part: str = ""
    positional: bool = False
    known: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The flag and its value, as a help shows them."""
        if self.positional:
            return self.value
        head, dot, last = self.name.rpartition(".")
        return f"--{self.name} {self.value}" if self.value else f"--{head}{dot}[no-]{last}"

    @property
    def words(self) -> list[str]:
        """What may be typed for it."""
        if self.positional:
            return []
        head, dot, last = self.name.rpartition(".")
        return [f"--{self.name}", *([] if self.value else [f"--{head}{dot}no-{last}"])]


def flags_of(kind: Any, default: Any = None, part: str = "") -> Iterator[Flag]:
    """The flags of a dataclass and of the configs in its fields, as tyro makes them.

    Args:
      kind: the dataclass.
      default: an object of it, whose values are the defaults; None: those of its fields.
      part: the flag of the field that holds it.
    """
    types_of, texts = typing.get_type_hints(kind, include_extras=True), described(kind)
    for field in dataclasses.fields(kind):
        if not field.init:
            continue
        value = default_of(field) if default is None else getattr(default, field.name)
        wanted, flat, positional = _stripped(types_of[field.name])
        name = "" if flat else f"{part}.{field.name}".strip(".").replace("_", "-")
        if isinstance(value, rj.typing.Threat | rj.data.Augment):
            continue
        if dataclasses.is_dataclass(value) and names_of(wanted) is None:
            yield from flags_of(type(value), value, name)
        elif flat:
            yield from flags_of(wanted)
        else:
            text = " ".join(texts.get(field.name, "").split())
            written = None if value is MISSING else spelled(value, wanted)
            (one, *_) = typing.get_args(wanted) if is_tuple(wanted) else (wanted,)
            known = tuple(names_of(one) or ())
            value = metavar(wanted, name)
            if positional:  # RUN says more than PATH
                value = value.replace("PATH", field.name.removesuffix("s").upper())
            yield Flag(name, value, written, text, part, positional, known)


def default_of(field: dataclasses.Field) -> Any:
    """The default of a field; tyro's MISSING if it has none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return MISSING if field.default is dataclasses.MISSING else field.default


def _stripped(kind: Any) -> tuple[Any, bool, bool]:
    """A type without its annotations; whether its flags have no prefix, or it is positional."""
    if typing.get_origin(kind) is not typing.Annotated:
        return kind, False, False
    inner, *notes = typing.get_args(kind)
    positional = typing.get_args(Positional[int])[1] in notes
    return inner, any(getattr(note, "name", None) == "" for note in notes), positional


def described(kind: type) -> dict[str, str]:
    """Name -> text of the Args and Attributes of a class and of the classes that it extends.

    >>> described(rj.attacks.PGD)["rel_step"]
    'the travel of all steps together, in units of eps.'
    """
    found: dict[str, str] = {}
    for cls in reversed(kind.__mro__):
        about = inspect.cleandoc(cls.__doc__ or "")
        for section in re.findall(r"^(?:Args|Attributes):\n((?:  .*\n?|\n(?=  ))*)", about, re.M):
            rows = re.findall(r"^  (\w[\w, ]*): (.*(?:\n   .*)*)", section, re.M)
            for names, text in rows:
                found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found


def names_of(kind: Any) -> rj.spec.Names[Any] | None:
    """The names that stand for values of a type on a command line; None if there are none.

    >>> "gaussian" in names_of(rj.attacks.starts.Start), names_of(int)
    (True, None)
    """
    is_function = typing.get_origin(kind) is collections.abc.Callable
    wanted = rj.typing.Loss if is_function else kind
    return next((names for known, names in rj.spec.KINDS.items() if known == wanted), None)


def metavar(kind: Any, name: str) -> str:
    """What follows a flag of this type; empty for a switch.

    >>> metavar(float | None, "eps"), metavar(tuple[str, ...], "attacks"), metavar(bool, "resume")
    ('NUMBER', 'ATTACK ...', '')
    """
    if kind is bool:
        return ""
    if names_of(kind) is not None:
        return "NAME"
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "|".join(str(word) for word in args if word is not None)
    if is_tuple(kind):
        one = metavar(args[0], name.removesuffix("s"))
        return f"{one} ..." if args[-1] is ... else " ".join(metavar(arg, name) for arg in args)
    if args:  # a union
        return metavar(next(arg for arg in args if arg is not type(None)), name)
    if kind is str:
        return re.split(r"\W|_", name)[-1].upper()
    return {int: "INT", float: "NUMBER", Path: "PATH"}.get(kind, "VALUE")


def is_tuple(kind: Any) -> bool:
    """Whether a type is that of a tuple, such as tuple[int, ...]."""
    return typing.get_origin(kind) is tuple


def spelled(value: Any, kind: Any) -> str:
    """A value as one types it."""
    if (names := names_of(kind)) is not None and value is not None:
        return rj.spec.write(value, names)
    if isinstance(value, tuple):
        (one, *_) = typing.get_args(kind) or (None,)
        return " ".join(spelled(entry, one) for entry in value)
    if isinstance(value, bool):
        return "on" if value else ""
    return format_number(value) if isinstance(value, float) else str(value)


def explained(flag: Flag) -> tuple[str, str]:
    """What a flag means, and its default, which for None is what the text says of it.

    >>> explained(Flag("width", "INT", "None", "base width; None: its own. A second."))
    ('base width. A second', 'default: its own')
    """
    text = flag.text
    default = "required" if flag.default is None else f"default: {flag.default}"
    if flag.default == "None":
        said = NONE.search(text)
        text = NONE.sub(".", text, count=1)
        default = f"default: {said[1]}" if said else ""
    return text.strip().rstrip("."), default if flag.default != "" else ""


def summary(flag: Flag, width: int) -> str:
    """The first clause of a flag's text and its default, in one line.

    >>> summary(Flag("lr", "NUMBER", "0.1", "learning rate; it is scaled by the schedule."), 80)
    'learning rate (default: 0.1)'
    """
    text, default = explained(flag)
    first = re.split(r"[;.:](?:\s|$)", text.replace("e.g. ", "e.g.\0"))[0].replace("\0", " ")
    line = f"{first} ({default})" if default else first
    return line if len(line) <= width else textwrap.shorten(first, width, placeholder=" ...")


def page(
    command: str,
    about: str,
    flags: Sequence[Flag],
    groups: Mapping[str, Sequence[str]],
    full: bool,
) -> str:
    """The help of a command.

    Args:
      command: its name.
      about: what it does; the short page has the first paragraph.
      flags: all of them.
      groups: title -> the flags of the short page; empty: it has all.
      full: the page of all flags.
    """
    flags = sorted(flags, key=lambda flag: not flag.positional)
    given = [flag.shown for flag in flags if flag.positional]
    needed = [flag.shown for flag in flags if flag.default is None and not flag.positional]
    usage = " ".join(["usage: robustjax", command, *given, *needed, "[flags]"])
    paragraphs = about.split("\n\n")[: None if full else 1]
    blocks = [usage, *(textwrap.fill(" ".join(text.split()), WIDTH) for text in paragraphs)]
    sections = grouped(flags, groups or {"": [flag.name for flag in flags]})
    left = [flag for flag in flags if not any(flag in rows for rows in sections.values())]
    if full:
        for flag in left:
            sections.setdefault(flag.part or "more", []).append(flag)
    for title, rows in sections.items():
        blocks.append("\n".join([*filter(None, [title]), *(row(flag, full) for flag in rows)]))
    if not full:
        more = f" and {len(left)} more flags" if left else ""
        blocks.append(f"robustjax {command} --help-all explains these{more}.")
    return "\n\n".join(blocks)


def grouped(flags: Sequence[Flag], groups: Mapping[str, Sequence[str]]) -> dict[str, list[Flag]]:
    """The flags of each group, of those that the command has."""
    by_name = {flag.name: flag for flag in flags}
    found = {t: [by_name[n] for n in names if n in by_name] for t, names in groups.items()}
    return {title: rows for title, rows in found.items() if rows}


def row(flag: Flag, full: bool) -> str:
    """A flag with its summary in one line, or with all that is known of it."""
    head = f"  {flag.shown}"
    own_line = full and len(head) > INDENT - 2
    start = " " * INDENT if own_line else f"{head:{INDENT - 2}}  "
    if not full:
        return start + summary(flag, WIDTH - len(start))
    text, default = explained(flag)
    words = [text, f"(one of {', '.join(flag.known)})" if flag.known else "", f"({default})"]
    told = " ".join(word for word in words if word not in ("", "()"))
    lines = textwrap.wrap(told, WIDTH - INDENT, break_on_hyphens=False)
    indented = f"\n{' ' * INDENT}".join(lines)
    return f"{head}\n{start}{indented}" if own_line else start + indented


def meant(word: str, flags: Sequence[Flag]) -> str:
    """The flag that an unknown one may mean; empty if none is near.

    >>> flags = [Flag("attack.steps", "INT", "10", ""), Flag("epochs", "INT", "90", "")]
    >>> meant("--epoch", flags), meant("--steps", flags), meant("--xyz", flags)
    ('--epochs', '--attack.steps', '')
    """
    known = {typed: typed for flag in flags for typed in flag.words}
    known |= {f"--{typed.rpartition('.')[2]}": typed for typed in known if "." in typed} | known
    near = difflib.get_close_matches(word.partition("=")[0].replace("_", "-"), known, 1, 0.75)
    return known[near[0]] if near else ""
