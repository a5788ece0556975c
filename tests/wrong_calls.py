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
import importlib
import inspect
import io
import json
import os
import pathlib
import re
import resource
import select
import subprocess
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
HANG = 60.0
"""Seconds after which a call is ended."""
MEMORY = 6 << 30
"""Bytes that it may take."""


# ---- the right calls


def modules():
    """Public modules by the name that users write; an older checkout may lack some."""
    names = [*rj.__all__, *(f"attacks.{part}" for part in PARTS), "training.schedules"]
    found = {name: _module(f"robustjax.{name}") for name in names}
    return {name: module for name, module in found.items() if module}


def _module(path):
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        return None


PARTS = ("starts", "steps", "stops", "targets", "transforms")
"""Modules of the attacks that users name."""


@functools.cache
def public():
    """Name -> function or class; no abstract class or protocol, which nobody calls."""
    found = {}
    for place, module in modules().items():
        own = [n for n, v in vars(module).items() if getattr(v, "__module__", 0) == module.__name__]
        for name in getattr(module, "__all__", own):
            value = getattr(module, name)
            kind = inspect.isclass(value) or inspect.isfunction(value)
            if kind and not name.startswith("_") and not _left_out(f"{place}.{name}", value):
                found[f"{place}.{name}"] = value
    return found


def _left_out(name, value):
    """What nobody calls with arguments of their own, and records: tuples with names and results.

    Whoever takes a record checks it.
    """
    if not inspect.isclass(value):
        hidden = "." in name.removeprefix("training.schedules").partition(".")[2]
        nothing = not inspect.signature(value).parameters
        return name in LEFT_OUT or nothing or (hidden and not name.endswith("register"))
    abstract = inspect.isabstract(value) or getattr(value, "_is_protocol", False)
    return abstract or name in LEFT_OUT or name in RECORDS or issubclass(value, tuple)


RECORDS = {
    *("evaluation.DetectionReport", "evaluation.Report", "evaluation.Transfer", "detection.Rates"),
    *("training.Result", "training.TrainState", "training.Net", "training.Batch", "training.Aux"),
    *("training.Crafted", "training.Gradients", "models.Classifier", "attacks.targets.Goal"),
}
"""Results, and what training hands to a method."""


LEFT_OUT = {
    "parallel.barrier": "waits for other processes",
    "parallel.initialize": "once a process",
    "parallel.use_all_cores": "once a process",
    "config.static": "takes any default",
    "report.figure": "a context that users never enter",
    "training.Terminated": "an exception",
}


TEXTS = {}
"""Docstrings to use instead of a name's own."""


def example(name):
    """The arguments of the first call of this name in its own example."""
    value = public()[name]
    made = inspect.unwrap(value.__init__ if inspect.isclass(value) else value)
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
            runner.run(test, out=lambda _: None, clear_globs=False)
        finally:
            sys.setprofile(None)

    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    names = {"__name__": "__main__", "jax": jax, "jnp": jnp, "np": np, "rj": rj}
    own = vars(sys.modules[inspect.unwrap(value).__module__])
    text = TEXTS.get(name) or value.__doc__ or ""
    run(doctest.DocTestParser().get_doctest(text, {**own, **names}, name, None, 0))
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
        found = BY_HAND[name]() if name in BY_HAND else example(name)
    finally:
        tempfile.TemporaryDirectory = kept
    if found is None:
        raise KeyError(name)
    return dict(found)


class Kept(tempfile.TemporaryDirectory):
    """A folder that stays, so that a call can be made again."""

    def cleanup(self):
        self._finalizer.detach()


def two_images():
    """A key and two images."""
    images = {"image": jnp.ones((8, 8, 1)) / 2, "other": jnp.zeros((8, 8, 1))}
    return {"key": jax.random.key(0)} | images


def a_pool():
    """Images without labels, and a folder for them."""
    images, out = np.full((2, 4, 4, 3), (0, 9, 0), np.uint8), tempfile.mkdtemp()
    return {"logits_fn": lambda x: x.mean((1, 2)), "images": images, "out": f"{out}/pool"}


def a_run():
    """Training on eight images."""
    digits = rj.data.load("digits", "train").head(8)
    recipe, out = rj.training.Recipe(epochs=1, batch_size=8), tempfile.mkdtemp()
    given = {"method": rj.training.Natural(), "train": digits, "validation": digits}
    return given | {"model": "cnn", "out": f"{out}/run", "recipe": recipe, "progress": False}


BY_HAND = {
    "data.augment": lambda: {"key": jax.random.key(0), "image": jnp.ones((8, 8, 1)) / 2},
    "data.cutmix": lambda: two_images(),
    "data.mixup": lambda: two_images() | {"alpha": 0.4},
    "training.fit": lambda: a_run(),
    "training.pseudo_label": lambda: a_pool(),
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
        near = str(rng.choice(named))[:-1] + "z" if named else "extra"
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
    """Whether the value is right after all; each rule says why."""
    words, module = set(re.findall(r"\w+", kind)), name.partition(".")[0]
    arrays = bool(words & {"Array", "ndarray", "ArrayLike", "Any", "Eps", "Scalar"})
    if how == "traced":  # numbers are data; a class's whole numbers too, unless they are static
        return (
            arrays
            or "float" in words
            or ("int" in words and (parameter == "steps" or inspect.isclass(public()[name])))
        )
    if how in KINDS and words & KINDS[how]:
        return True
    if module == "outputs" and parameter == "output":  # any pytree, as a model may return
        return True
    endless = ("a nan in it", "an inf in it", "nan", "inf", "numpy nan", "jax nan", "-inf")
    if module in ("losses", "data") and how in endless and kind == "jax.Array":
        return True  # NaN in, NaN out: a network that has diverged; an unused class is -inf
    if f"{name}.{parameter}" in ANYTHING or parameter in ANYTHING:
        return True
    if (new is None and "None" in words) or (new is True and "bool" in words):
        return True
    if how == "a class" and "type" in words:
        return True
    if how in CALLABLE and words & {"Callable", "Factory"}:  # it takes as many arguments
        return True
    if how in ("inf", "-inf") and parameter in (
        "eps",
        "text",
        "threshold",
        "value",
    ):  # everywhere, or never
        return True
    empty = new == [] if isinstance(new, list) else is_array(new) and not new.size
    if parameter in ("positives", "negatives") and empty:  # NaN, as is said
        return name.startswith("detection.")
    if isinstance(new, str):
        if name.endswith("register") and parameter == "name":
            return bool(new)
        return bool(new) and (f"{name}.{parameter}" in FREE or parameter in FREE)
    if new is None and parameter in ("axes", "bounds"):  # everywhere, and no bounds
        return True
    if name == "report.example_grid" and how == "large" and np.asarray(old).dtype.kind == "i":
        return True  # a class has any number
    if parameter in ELEMENTWISE and how in NUMBERS:
        return new >= 0
    if parameter in ELEMENTWISE and isinstance(new, np.ndarray | np.generic | jax.Array):
        return new.dtype.kind == "f" and new.size > 0
    if module == "parallel" and parameter in ("tree", "array"):  # any tree of arrays
        leaves = jax.tree.leaves(new)
        return all(is_array(leaf) or isinstance(leaf, int | float) for leaf in leaves)
    if parameter in REAL and how in ("a matrix", "a jax matrix"):
        return np.ndim(old) == 2
    if name == "data.to_float" and getattr(new, "dtype", None) == np.uint8:  # of any shape
        return True
    if how == "minus it" and new.dtype == np.uint8:  # 8 bits, which are pixels
        return True
    if how == "halves of it" and np.asarray(old).max() <= 0.5:  # they are pixels still
        return np.asarray(old).dtype.kind == "f"
    if how == "one entry less" and parameter in FEWER:
        return len(new) > 1
    if how == "one axis more" and parameter == "probabilities":  # of any number of inputs
        return True
    if how in ("halves of it", "minus it", "large") and REAL & {parameter, f"{name}.{parameter}"}:
        return np.asarray(old).dtype.kind == "f"
    if how in NUMBERS and ("float" in words or (arrays and np.ndim(old) == 0)):
        return np.all(new >= 0) or parameter in SIGNED  # ranges are declared beside the types
    return how == "0" and parameter in ("cutout", "pad", "steps")  # without it


KINDS = {
    "an attack": {"Attack", "PGD", "GradientAttack"},
    "a threat": {"Threat"},
    "a schedule": {"Schedule"},
}
"""Wrong values -> the types that they have after all."""
CALLABLE = ("a class", "a function", "a schedule", "an attack")
"""Wrong values that can be called with something."""
NUMBERS = ("-1", "0", "2.5", "-2.5", "2**31", "2**63", "jax -1")
"""Wrong values that are finite numbers."""
SIGNED = {"auxiliary", "bias", "biases", "confidence", "high", "low", "margin", "text", "threshold"}
SIGNED |= {"value"}
"""Numbers that may be negative."""
ENDLESS = {"eps", "text", "threshold", "value"}
"""Numbers that may be infinite: everywhere, or never."""
REAL = {"centers", "features", "logits", "output", "queries", "target", "weights", "x", "z"}
FEWER = {"center", "centers", "features", "logits", "validation_images"}
"""Arrays that may have a row less."""
REAL |= {"biases", "shift", "weights", "losses.mart.clean", "losses.trades.clean"}
REAL |= {"image", "means", "other", "precisions"}
REAL |= {"losses.mart.adversarial", "losses.trades.adversarial", "reference_logits"}
"""Arrays of numbers that may have any size and sign."""
FREE = {
    *("data_dir", "evaluation.Record.run", "models.is_own.name", "models.save_weights.path"),
    *(
        "evaluation.Journal.folder",
        "report.accuracy_over_eps.norm",
        "spec.Names.kind",
        *("training.fit.out", "png", "attacks.register.cost", "attacks.register.paper"),
        *("outputs.part.name", "training.register.paper", "report.provenance.command"),
        *("training.pseudo_label.out", "data.Dataset.split", "data.Dataset.name"),
        *("data.default_augment.name", "data.Plan.name"),
    ),
    *("report.run_rows.run", "report.run_rows.configured", "report.run_rows.reported"),
    *("report.format_eps.eps", "spec.change.name", "spec.split.text"),
}
"""Text that may be anything: names that somebody chooses, folders that may be missing."""
ELEMENTWISE = {"error", "loss", "mass"}
"""Arrays of any shape."""
ANYTHING = {
    *("spec.write.config", "parallel.check_same.about"),
    *("config.encode.value", "config.decode.data", "report.write_json.data"),
    *("detection.Fitted.learned", "spec.settings_of.config", "config.number.default"),
}
"""Parameters that take every object."""


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


SPOKEN = {
    **dict.fromkeys(("output", "logits", "logits_fn", "clean", "adversarial"), "model"),
    "name": "extra data",
    "config": "unknown field",
    "output": "model|logits",
    "radius": "eps",
}
"""What messages call an argument."""


def names_it(call, error):
    """Whether the message says which argument, or shows its value."""
    text = str(error)
    words = re.escape(call.parameter).replace("_", "[_ -]").rstrip("s")
    new = call.arguments.get(call.parameter)
    if isinstance(new, str) and new:  # a part of a text that is read is told by itself
        new = re.split("[:=,]", new)[-1]
    return bool(re.search(f"{words}|{SPOKEN.get(call.parameter, words)}", text, re.I)) or (
        isinstance(new, str) and (new or "''") in text
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
    if found != "legal" and time.process_time() - began > SECONDS:
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


def documented(name):
    """The docstring of a name, whose example an older checkout may lack."""
    return inspect.unwrap(public()[name]).__doc__ or ""


def judge(seed, count, package=HERE.parent):
    """What became of each call: (outcome, call, message)."""
    process, found = None, []
    for name, number in calls(seed, count):
        process = process or _caller(package)
        process.stdin.write(json.dumps([name, number, documented(name)]) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], HANG)
        said = process.stdout.readline() if ready else ""
        if not said:
            process.kill()
            process, said = None, json.dumps(["crash" if ready else "hang", name, ""])
        found.append(json.loads(said))
    if process is not None:
        process.communicate()
    return found


def _caller(package):
    env = os.environ | {"PYTHONPATH": str(package), "JAX_PLATFORMS": "cpu"}
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, __file__], env=env, text=True, **piped)


def main():
    """Answer each line, [name, number, documentation], by a line of JSON."""
    answers, sys.stdout = sys.stdout, io.StringIO()
    for line in sys.stdin:
        name, number, TEXTS[name] = json.loads(line)
        try:
            call = broken(name, number)
        except KeyError:  # an older checkout has no such name, or another way to call it
            found, call, text = "absent", name, ""
        else:
            found, text = outcome(call)
        answers.write(json.dumps([found, str(call), text[:1000]]) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
