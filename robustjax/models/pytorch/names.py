"""Which tensor of PyTorch's is which of our arrays: tables of names, and what they find in a file.

A table maps PyTorch's names of modules (or of a single tensor) to ours, with {} for a number:
{"layer{}.{}.conv1": "body/stage{}_block{}/conv1"}. Ours count from 1, whatever PyTorch's begin with
and leave out. Several of PyTorch's names may stand for one of ours: the first is for errors.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn

LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
"""Our names of arrays where PyTorch has others."""

UNUSED = (
    r"(.*\.)?sub_block1\..*",  # TRADES' wide ResNet has a block that it never calls
    r"(.*\.)?(num_batches_tracked|batch_num|flag_update_statistics)",
    r"(.*\.)?(relative_position_index|attn_mask)",
)
"""Tensors that no forward pass in evaluation mode reads, or that the others determine."""


class Settings(NamedTuple):
    """What the weights do not tell."""

    activation: str
    shortcut: str | None = None
    patch: int | None = None
    heads: int | None = None
    tokens_norm: bool | None = None


class Parts(NamedTuple):
    """A network but for its head and normalisation, and the side of an image that it takes."""

    stem: nn.Module
    body: nn.Module
    side: int = 32


class Layout(NamedTuple):
    """How PyTorch's users name the parts of a network, and how it is built from their shapes.

    Attributes:
      title: for errors.
      names: PyTorch's -> ours; "stem" and "head" are among ours.
      build: the network of these shapes.
      activation: what its users take unless they say otherwise.
      asks: the arguments of `from_torch` that decide between networks with the same weights.
      when: whether shapes speak against it, where names do not.
    """

    title: str
    names: Mapping[str, str]
    build: Callable[[Weights, Settings], Parts]
    activation: str = "relu"
    asks: tuple[str, ...] = ()
    when: Callable[[Weights], bool] = lambda weights: True


def under(theirs: str, ours: str, names: Mapping[str, str]) -> dict[str, str]:
    """The table of a part: `names` behind two prefixes.

    >>> under("layer{}", "body/stage{}", {"conv": "conv1"})
    {'layer{}.conv': 'body/stage{}/conv1'}
    """
    return {f"{theirs}.{key}": f"{ours}/{value}" for key, value in names.items()}


class Place(NamedTuple):
    """A module, or a tensor, of PyTorch's that a table knows."""

    theirs: str
    ours: str
    numbers: tuple[int, ...]


def _place(name: str, layout: Layout) -> Place | None:
    """The place of a tensor: of its own name, or else of its module's."""
    for theirs in (name, name.rpartition(".")[0]):
        for template, numbers in _templates(theirs):
            if template in layout.names:
                return Place(theirs, layout.names[template], numbers)
    return None


@functools.lru_cache(1 << 14)
def _templates(name: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """A name with each choice of its numbers replaced by {}, few first; those numbers."""
    words = re.split(r"(\d+)", name)
    at = range(1, len(words), 2)
    if len(at) > MOST_NUMBERS:
        return ()
    found = []
    for count in range(len(at) + 1):
        for chosen in itertools.combinations(at, count):
            template = "".join("{}" if i in chosen else word for i, word in enumerate(words))
            found.append((template, tuple(int(words[i][:6]) for i in chosen)))
    return tuple(found)


MOST_NUMBERS = 5
"""Of a name that a layout knows."""


class Weights:
    """The tensors of a state by our names.

    Args:
      state: PyTorch's tensors, without the prefix of the whole network.
      layout: that they are read by.
    """

    def __init__(self, state: Mapping[str, np.ndarray], layout: Layout):
        self.state, self.layout = state, layout
        places = {name: _place(name, layout) for name in state}
        found = [place for place in places.values() if place]
        self.unknown = [name for name, place in places.items() if not place]
        self._ranks = _ranks(found)
        self._places = {self._ours(place): place.theirs for place in found}

    def channels(self) -> int:
        """Channels of the images: what the first convolution reads."""
        stems = ("stem", "stem/Dense_0", "stem/conv1", "body/embedding/conv1/conv")
        stem = next((stem for stem in stems if stem in self), "stem")
        return self.shape(stem, 4)[1]

    def name(self, path: str) -> str:
        """PyTorch's name of one of our arrays, also where it is missing."""
        if path in self._places:
            return self._places[path]
        module, _, leaf = path.rpartition("/")
        theirs = self._places.get(module) or self._guess(module)
        return f"{theirs}.{LEAVES.get(leaf, leaf)}" if theirs else self._guess(path) or path

    def __contains__(self, module: str) -> bool:
        return module in self._places

    def shape(self, module: str, axes: int) -> tuple[int, ...]:
        """The shape of a module's weight, or of a tensor, that decides how large a network is."""
        name = self.name(module)
        name = name if name in self.state else self.name(f"{module}/kernel")
        if name not in self.state:
            raise ValueError(f"these weights have no {name}")
        shape = self.state[name].shape
        if len(shape) != axes or 0 in shape:
            raise ValueError(f"{name} must have {axes} axes and hold numbers, got shape {shape}")
        return shape

    def blocks(self) -> list[int]:
        """The number of blocks in each stage."""
        counts: dict[int, int] = {}
        for path in self._places:
            if match := re.match(r"body/stage(\d+)_block(\d+)", path):
                stage, block = map(int, match.groups())
                counts[stage] = max(block, counts.get(stage, 0))
        return [counts[stage] for stage in sorted(counts)]

    def _ours(self, place: Place) -> str:
        group = _group(place.ours)
        ranks = self._ranks[group]
        numbers = (ranks[place.numbers[:i]] for i in range(1, len(place.numbers) + 1))
        return place.ours.format(*numbers)

    def _guess(self, path: str) -> str | None:
        """What PyTorch would call a part of ours that it does not have."""
        for theirs, ours in self.layout.names.items():
            if match := re.fullmatch(ours.replace("{}", r"(\d+)"), path):
                wanted, numbers = [int(n) for n in match.groups()], ()
                ranks = self._ranks.get(_group(ours), {})
                for rank in wanted:
                    inside = {r: at for at, r in ranks.items() if at[:-1] == numbers}
                    numbers = inside.get(rank, (*numbers, rank - 1))
                return theirs.format(*numbers)
        return None


def _group(ours: str) -> str:
    """The part of a name of ours that its numbers count."""
    return ours[: ours.rfind("}") + 1]


def _ranks(places: Iterable[Place]) -> dict[str, dict[tuple[int, ...], int]]:
    """What a number means, for each group and the numbers before it: its place among them."""
    seen: dict[str, set[tuple[int, ...]]] = {}
    for place in places:
        numbers = place.numbers
        seen.setdefault(_group(place.ours), set()).update(
            numbers[:i] for i in range(1, len(numbers) + 1)
        )
    ranks: dict[str, dict[tuple[int, ...], int]] = {}
    for group, numbers in seen.items():
        counts: dict[tuple[int, ...], int] = {}
        ranks[group] = {}
        for at in sorted(numbers):
            counts[at[:-1]] = counts.get(at[:-1], 0) + 1
            ranks[group][at] = counts[at[:-1]]
    return ranks


def some(names: Iterable[Any]) -> str:
    """The first names of many, for an error."""
    names = list(map(str, names))
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
