"""`robustjax methods`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from tyro.conf import Positional

import robustjax as rj
from robustjax.cli.flags import read
from robustjax.cli.train import TrainOptions
from robustjax.config import format_number
from robustjax.report.cells import align


@dataclasses.dataclass(frozen=True)
class MethodsOptions:
    """List the training methods and their cards.

    The first table shows each method's paper, group, the state that it carries, and the cost of a
    training step at its defaults: FB is a forward and a backward pass over the batch, F a forward
    pass only. The second shows the cards of `train METHOD --card NAME`, as the flags that differ
    from the card bot, the unified baseline, which every method has.

    Args:
      names: methods to list; none: all.
      markdown: print the tables as Markdown.
    """

    names: Positional[tuple[str, ...]] = ()
    markdown: bool = False


def command(words: Sequence[str]) -> None:
    """`robustjax methods` with these words."""
    methods(read(MethodsOptions, "methods", words))


def methods(options: MethodsOptions) -> None:
    """Print the two tables.

    Raises:
      ValueError: an unknown name.
    """
    catalogue = rj.training.CATALOGUE
    listed = options.names or tuple(catalogue)
    entries = [(name, catalogue.find(name)) for name in listed]
    rows = [("method", "paper", "group", "state", "cost")]
    rows += [(name, e.paper, e.group, e.state, e.cost) for name, e in entries]
    print(align(rows, len(rows[0]), options.markdown), end="\n\n")
    rows = [("method", "card", "changes to the card bot")]
    rows += [
        (name, card, " ".join(changes(name, card)) or "-")
        for name in listed
        for card in rj.training.cards_of(name)
        if card != "bot"
    ]
    print(align(rows, len(rows[0]), options.markdown))


def changes(method: str, name: str) -> list[str]:
    """The flags of `train` that turn the method's card bot into another card."""
    bot, other = (rj.training.cards_of(method)[card] for card in ("bot", name))
    words = [*between(bot.method, other.method), *between(bot.recipe, other.recipe)]
    usual = {field.name: field.default for field in dataclasses.fields(TrainOptions)}
    for option in {**bot.options, **other.options}:
        old, new = (card.options.get(option, usual[option]) for card in (bot, other))
        words += [] if old == new else flag(option, new)
    return words


def between(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """The flags that turn one config into another of the same type."""
    for field in dataclasses.fields(new):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after:
            continue
        if isinstance(after, rj.typing.Threat):
            yield from flag("eps", after.eps)
        elif dataclasses.is_dataclass(after) and names_of(after) is None:
            yield from between(before, after, f"{path}{field.name}.")
        else:
            yield from flag(path + field.name, after)


def flag(name: str, value: Any) -> list[str]:
    """The words that set a flag of `train` to this value."""
    path, dot, last = name.replace("_", "-").rpartition(".")
    if isinstance(value, bool):
        return [f"--{path}{dot}{last if value else 'no-' + last}"]
    if names := names_of(value):
        text = rj.spec.write(value, names)
    else:
        text = format_number(value) if isinstance(value, float) else str(value)
    return [f"--{path}{dot}{last}", text]


def names_of(value: Any) -> rj.spec.Names[Any] | None:
    """The names of values of this type; None if each of its fields has its own flag."""
    for names in (*rj.spec.KINDS.values(), rj.data.AUGMENTATIONS):
        if type(value) in map(type, names.values()):
            return names
    return None
