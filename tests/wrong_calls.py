"""Calls of the public functions and classes with one argument broken, and what comes of them.

`calls(seed, count)` lists them: the right call is the one of a name's own example, and breaking it
is a pure function of the name and a number. As a script, this module makes those listed on its
input, one after the other, and says of each what became of it.
"""

import contextlib
import dataclasses
import dis
import doctest
import functools
import inspect
import io
import json
import pathlib
import re
import resource
import sys
import tempfile
import time
import warnings
import zlib

import jax
import jax.numpy as jnp
import numpy as np

import robustjax as rj

HERE = pathlib.Path(rj.__file__).parent
SECONDS = 5.0
"""That a wrong call may compute."""
MEMORY = 6 << 30
"""Bytes that it may take."""


# ---- the right calls


def modules():
    """Public modules by the name that users write."""
    found = {name: getattr(rj, name) for name in rj.__all__}
    parts = ("starts", "steps", "stops", "targets", "transforms")
    found |= {f"attacks.{name}": getattr(rj.attacks, name) for name in parts}
    return found | {"training.schedules": sys.modules["robustjax.training.schedules"]}


@functools.cache
def public():
    """Name -> function or class; no abstract class or protocol, which nobody calls."""
    found = {}
    for place, module in modules().items():
        own = [n for n, v in vars(module).items() if getattr(v, "__module__", 0) == module.__name__]
        for name in getattr(module, "__all__", own):
            value = getattr(module, name)
            kind = inspect.isclass(value) or inspect.isfunction(value)
            abstract = inspect.isabstract(value) or getattr(value, "_is_protocol", False)
            if kind and not name.startswith("_") and not abstract:
                found[f"{place}.{name}"] = value
    return {name: value for name, value in found.items() if name not in LEFT_OUT}


LEFT_OUT = {
    "parallel.barrier": "waits for other processes",
    "parallel.initialize": "once a process",
    "parallel.use_all_cores": "once a process",
    "config.static": "takes any default",
    "report.figure": "a context that users never enter",
    "training.Terminated": "an exception",
}


def example(name):
    """The arguments of the first call of this name in its own example."""
    value = public()[name]
    made = getattr(value, "__init__", None) if inspect.isclass(value) else inspect.unwrap(value)
    if inspect.isclass(value) and issubclass(value, tuple):
        made = value.__new__
    code, seen = getattr(made, "__code__", None), []

    def note(frame, event, _):
        if event == "call" and frame.f_code is code and not seen:
            info = inspect.getargvalues(frame)
            seen.append({n: info.locals[n] for n in info.args if n not in ("self", "_cls")})

    def run(test):
        sys.setprofile(note)
        try:
            runner.run(test, out=lambda _: None)
        finally:
            sys.setprofile(None)

    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    names = {"__name__": "__main__", "jax": jax, "jnp": jnp, "np": np, "rj": rj}
    own = vars(sys.modules[inspect.unwrap(value).__module__])
    run(doctest.DocTestParser().get_doctest(value.__doc__ or "", {**own, **names}, name, None, 0))
    return seen[0] if seen else None


@functools.cache
def right(name):
    """The arguments of a right call: parameter -> value."""
    value = public()[name]
    parameters = inspect.signature(value).parameters
    if inspect.isclass(value) and all(p.default is not p.empty for p in parameters.values()):
        return {p.name: p.default for p in parameters.values()}
    kept = tempfile.TemporaryDirectory
    tempfile.TemporaryDirectory = Kept
    try:
        found = example(name) or BY_HAND[name]()
    finally:
        tempfile.TemporaryDirectory = kept
    return dict(found)


class Kept(tempfile.TemporaryDirectory):
    """A folder that stays, so that a call can be made again."""

    def cleanup(self):
        self._finalizer.detach()


BY_HAND = {
    "data.prepare": lambda: {"name": "mnist"},
    "models.load": lambda: {"run_dir": "nowhere"},
    "training.Entry": lambda: {"method": rj.training.Natural(), "paper": "-", "group": "loss"},
}


# ---- breaking one


class Anything:
    """An object that is of no use to anybody."""


TRACED = object()
"""Stands for a tracer until the call is made, inside jit."""

WRONG = {
    "text": "text",
    "empty text": "",
    "bytes": b"bytes",
    "None": None,
    "a list": [],
    "nested lists": [[1.0], [2.0, 3.0]],
    "a dictionary": {},
    "a set": {1},
    "an object": Anything(),
    "a class": Anything,
    "a module": json,
    "a function": lambda: 0,
    "True": True,
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": -float("inf"),
    "-1": -1,
    "0": 0,
    "2.5": 2.5,
    "-2.5": -2.5,
    "2**31": 2**31,
    "2**63": 2**63,
    "10**400": 10**400,
    "complex": 1j,
    "numpy nan": np.float32("nan"),
    "jax nan": jnp.float32("nan"),
    "jax -1": jnp.int32(-1),
    "a matrix": np.ones((2, 7), np.float32),
    "a jax matrix": jnp.ones((2, 7)),
    "five axes": np.zeros((1, 2, 1, 2, 1)),
    "an empty array": np.zeros(0, np.float32),
    "an array of text": np.array(["a", "b"]),
    "an array of objects": np.array([None, Anything()]),
    "complex numbers": np.array([1j, 2j]),
    "an attack": rj.attacks.FGSM(),
    "a threat": rj.threats.L2(0.1),
    "a schedule": rj.training.schedules.OneCycle(),
    "traced": TRACED,
}

ARRAYS = {
    "one axis less": lambda a: a[0],
    "one axis more": lambda a: a[None],
    "one entry less": lambda a: a[:-1],
    "no entries": lambda a: a[:0],
    "text of it": lambda a: np.asarray(a).astype(str),
    "objects of it": lambda a: np.asarray(a).astype(object),
    "complex of it": lambda a: np.asarray(a) + 0j,
    "a nan in it": lambda a: _with(a, np.nan),
    "an inf in it": lambda a: _with(a, np.inf),
    "halves of it": lambda a: np.asarray(a) + 0.5,
    "minus it": lambda a: -np.asarray(a, np.float32).astype(np.asarray(a).dtype) - 1,
    "large": lambda a: _with(a, 2**31 - 1),
}


def _with(array, entry):
    array = np.array(array)
    if array.dtype.kind not in "iuf" or not array.size:
        raise IndexError
    if array.dtype.kind != "f" and not np.isfinite(entry):
        array = array.astype(np.float32)
    array.reshape(-1)[-1] = (
        min(entry, np.iinfo(array.dtype).max) if array.dtype.kind != "f" else entry
    )
    return array


def is_array(value):
    return isinstance(value, np.ndarray | jax.Array) and not _is_key(value)


def _is_key(value):
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


@dataclasses.dataclass
class Call:
    """A call with one argument broken."""

    name: str
    parameter: str
    how: str
    arguments: dict
    fits: bool

    def __str__(self):
        return f"{self.name}({self.parameter}: {self.how})"


def broken(name, number):
    """The call of this number."""
    rng = np.random.default_rng([number, zlib.crc32(name.encode())])
    given = right(name)
    parameters = inspect.signature(public()[name]).parameters
    named = [n for n in parameters if n in given]
    if rng.random() < 0.06 or not named:
        required = [n for n in named if parameters[n].default is inspect.Parameter.empty]
        if required and rng.random() < 0.5:
            left = str(rng.choice(required))
            return Call(name, left, "missing", {n: v for n, v in given.items() if n != left}, False)
        near = str(rng.choice(named))[:-1] + "x" if named else "extra"
        return Call(name, near, "unexpected", given | {near: 1}, False)
    which = str(rng.choice(named))
    old, kind = given[which], str(parameters[which].annotation)
    ways = list(WRONG)
    if is_array(old) and np.ndim(old):
        ways = list(ARRAYS) * 3 + ways
    if isinstance(old, str) and old:
        ways += ["misspelled"] * 10
    for _ in range(100):
        how = str(rng.choice(ways))
        try:
            new = ARRAYS[how](old) if how in ARRAYS else WRONG.get(how, f"{old}x")
        except (IndexError, ValueError, TypeError):
            continue
        if _same(new, old):
            continue
        return Call(name, which, how, given | {which: new}, fits(name, which, kind, how, old, new))
    raise AssertionError(name)


def _same(a, b):
    try:
        return bool(type(a) is type(b) and np.array_equal(a, b))
    except Exception:
        return False


def fits(name, parameter, kind, how, old, new):
    """Whether the documentation allows the value after all: a rule that no check is asked for."""
    words = set(re.findall(r"\w+", kind))
    arrays = bool(words & {"Array", "ndarray", "ArrayLike", "Any", "Eps", "Scalar"})
    if how == "traced":
        return arrays or "float" in words or ("int" in words and inspect.isclass(public()[name]))
    return False


# ---- making the call


def make(call):
    """Call it; positional where it may be."""
    value = public()[call.name]
    parameters = inspect.signature(value).parameters
    arguments, positional, named = dict(call.arguments), [], {}
    leading = True
    for n, p in parameters.items():
        if n not in arguments:
            leading = False
        elif leading and p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY):
            positional.append(arguments.pop(n))
    named = arguments
    if call.how != "traced":
        return value(*positional, **named)

    def inside(traced):
        here = [traced if v is TRACED else v for v in positional]
        value(*here, **{n: traced if v is TRACED else v for n, v in named.items()})
        return traced

    old = right(call.name)[call.parameter]
    numeric = isinstance(old, int | float | np.number) or is_array(old)
    return jax.jit(inside)(jnp.asarray(old, jnp.float32) if numeric else jnp.float32(1))


def raised(error):
    """Whether robustjax raised it: the last frame is ours and runs a raise statement."""
    trace = error.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    if not code.co_filename.startswith(str(HERE)):
        return False
    return code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def signature(error):
    """Whether Python says that an argument is missing or unexpected, before any code runs."""
    trace, files = error.__traceback__, []
    while trace:
        files.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return isinstance(error, TypeError) and "argument" in str(error) and files[-1] == __file__


def names_it(call, error):
    """Whether the message says which argument, or shows its value."""
    text = str(error)
    spoken = re.escape(call.parameter).replace("_", "[_ -]")
    new = call.arguments.get(call.parameter)
    return bool(re.search(spoken.rstrip("s"), text, re.I)) or (
        isinstance(new, str) and bool(new) and new in text
    )


def outcome(call):
    """What becomes of a call, and the message."""
    began, found = time.process_time(), None
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                result = make(call)
        found, text = ("legal" if call.fits else "accepted"), repr(result)[:200]
    except MemoryError as error:
        found, text = "memory", repr(error)
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
        if signature(error):
            found = "refused"
        elif not isinstance(error, ValueError | TypeError | FileNotFoundError) or not raised(error):
            found = f"foreign {type(error).__name__}"
        else:
            found = "refused" if names_it(call, error) else "not named"
    if time.process_time() - began > SECONDS:
        found = "slow"
    return found, text


def calls(seed, count):
    """(name, number) of each, the names in turn."""
    rng = np.random.default_rng(seed)
    names = list(public())
    found = []
    while len(found) < count:
        found += [(names[i], len(found) + seed * 1_000_003) for i in rng.permutation(len(names))]
    return found[:count]


def main():
    """Answer each line, [name, number], by a line of JSON."""
    answers, sys.stdout = sys.stdout, io.StringIO()
    for line in sys.stdin:
        name, number = json.loads(line)
        call = broken(name, number)
        found, text = outcome(call)
        answers.write(json.dumps([found, str(call), text[:1000]]) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
