"""The few words of pickle that weights need, which describe tensors and run nothing.

`pickle.Unpickler` trusts its input with memory and time: one instruction may ask for any amount of
either. Here an instruction builds a number, a text, a container, or the description of a tensor.
"""

from __future__ import annotations

import io
import itertools
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

from typing_extensions import override

MOST = 200_000
"""Instructions in a file; a tensor takes about 50, its optimizer's state again as many."""

LONGEST = 1 << 24
"""Bytes of a pickle: a network's takes a thousandth of this."""

KEYS = 1 << 31
"""Whole numbers below this may be keys; larger ones can be chosen to make a dictionary slow."""

STORAGES = (
    "DoubleStorage",
    "FloatStorage",
    "HalfStorage",
    "BFloat16Storage",
    "LongStorage",
    "IntStorage",
    "ShortStorage",
    "CharStorage",
    "ByteStorage",
    "BoolStorage",
)


class Refused(ValueError):
    """The file is intact but holds something other than weights."""


class Storage(NamedTuple):
    """Numbers that lie elsewhere in the file: the name of their type, their key and how many."""

    kind: str
    key: str
    numel: int


class Tensor(NamedTuple):
    """A view of a storage, in numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Kind(NamedTuple):
    """A type of numbers, which only `find` makes."""

    name: str


class Source(io.BytesIO):
    """Bytes of which one instruction takes few."""

    @override
    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= LONGEST:
            raise ValueError("an instruction is too long")
        return super().read(size)

    @override
    def readline(self, size: int | None = -1) -> bytes:
        return super().readline(LONGEST)


_MARK = object()


def load(file: Source, storages: dict[str, Storage]) -> Any:
    """What the pickle at the file's position describes; leaves the file where it ends.

    Args:
      file: the pickle, and what follows it.
      storages: gets all that the pickle names, by their keys.

    Raises:
      Refused: it needs code, or more than weights do.
      Exception: it is damaged.

    Guarantees:
      Time and memory are those of an honest file of this length. No key of a dictionary is other
      than a text or a whole number.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def last(n: int) -> list[Any]:
        if n > len(stack) or any(item is _MARK for item in stack[len(stack) - n :]):
            raise ValueError("the stack is empty")
        taken = stack[len(stack) - n :]
        del stack[len(stack) - n :]
        return taken

    def marked() -> list[Any]:
        taken = list(itertools.takewhile(lambda item: item is not _MARK, reversed(stack)))
        if len(taken) == len(stack):
            raise ValueError("a mark is missing")
        del stack[len(stack) - len(taken) - 1 :]
        return taken[::-1]

    begin = file.tell()
    for number, (word, argument, at) in enumerate(pickletools.genops(file)):
        value: Any = argument
        if number > MOST or (at or 0) - begin > LONGEST:
            raise Refused("holds more than weights; save `model.state_dict()` alone")
        match word.name:
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[value] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[value])
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[word.name])
            case "MARK":
                stack.append(_MARK)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(last(int(word.name[-1]))))
            case "TUPLE":
                stack.append(tuple(marked()))
            case "LIST":
                stack.append(marked())
            case "DICT":
                stack.append(_fill({}, marked()))
            case "SETITEM":
                _fill(stack[-3], last(2))
            case "SETITEMS":
                pairs = marked()
                _fill(stack[-1], pairs)
            case "APPEND":
                items = last(1)
                _list(stack[-1]).extend(items)
            case "APPENDS":
                items = marked()
                _list(stack[-1]).extend(items)
            case "BINPERSID":
                storage = _storage(*_few(*last(1)))
                if storages.setdefault(storage.key, storage) != storage:
                    raise ValueError("a storage has two descriptions")
                stack.append(storage)
            case "GLOBAL":
                stack.append(_find(*value.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(_find(*last(2)))
            case "REDUCE":
                function, arguments = last(2)
                if not callable(function):
                    raise ValueError("it calls what is no function")
                stack.append(function(*_few(arguments)))
            case "BUILD":  # the attributes of a dictionary, such as a state_dict's _metadata
                last(1)
                _fill(stack[-1], [])
            case "POP":
                stack.pop()
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                (content,) = last(1)
                return content
            case name if value is not None and name.startswith(VALUES):
                stack.append(value)
            case name:
                raise Refused(f"needs the instruction {name}, which weights do not")
    raise ValueError("it ends too early")


VALUES = ("BININT", "INT", "LONG", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BIN")
VALUES += ("UNICODE", "BINUNICODE", "BINBYTES")


def _find(module: Any, name: Any) -> _Kind | Callable:
    """What stands for a name of PyTorch; no other is looked at."""
    if type(module) is not str or type(name) is not str:
        raise ValueError("a name is no text")
    if module == "torch" and name in STORAGES:
        return _Kind(name)
    whole = f"{module[:60]}.{name[:60]}"
    if whole not in FUNCTIONS:
        raise Refused(
            f"needs {whole}, which would run code from the file; load it where you trust it and "
            "save `model.state_dict()`"
        )
    return FUNCTIONS[whole]


def _few(arguments: Any) -> tuple[Any, ...]:
    if type(arguments) is not tuple or len(arguments) > 8:
        raise ValueError("arguments are missing or too many")
    return arguments


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise ValueError("it appends to what is no list")
    return value


def _fill(target: Any, items: list[Any]) -> dict[Any, Any]:
    if type(target) is not dict or len(items) % 2:
        raise ValueError("it sets items of what is no dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) is not str and not (type(key) is int and abs(key) < KEYS):
            raise ValueError("a key of a dictionary is neither a text nor a whole number")
        target[key] = value
    return target


def _storage(tag: Any, kind: Any, key: Any, place: Any, numel: Any, view: Any = None) -> Storage:
    known = tag == "storage" and type(kind) is _Kind and type(key) is str
    if not known or not counts(numel) or view is not None:
        raise ValueError("a storage is not described as PyTorch does")
    return Storage(kind.name, key, numel)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Tensor:
    known = type(storage) is Storage and type(shape) is type(stride) is tuple
    if not known or not len(shape) == len(stride) <= 8 or not counts(offset, *shape, *stride):
        raise ValueError("a tensor is not described as PyTorch does")
    reach = sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if 0 not in shape and offset + reach >= storage.numel:
        raise ValueError("a tensor extends beyond its storage")
    return Tensor(storage, offset, shape, stride)


def _parameter(data: Any, *rest: Any) -> Any:
    return data


def _dictionary(*pairs: Any) -> dict[Any, Any]:
    """Empty, and filled by later instructions, or of pairs, as Python 2 wrote it."""
    made: dict[Any, Any] = {}
    for pair in _list(*pairs) if pairs else ():
        _fill(made, _list(pair))
    if pairs:
        pairs[0].clear()  # a file that names them again must not cost as much again
    return made


def counts(*values: Any) -> bool:
    """Whether all are whole numbers that a file can have so many of."""
    return all(type(value) is int and 0 <= value < 1 << 48 for value in values)


FUNCTIONS: dict[str, Callable] = {
    "collections.OrderedDict": _dictionary,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
