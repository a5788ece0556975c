"""Every public name has an example, and all examples run."""

import doctest
import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import robustjax
from robustjax.names import Names

NAMES = {"__name__": "__main__", "jax": jax, "jnp": jnp, "np": np, "rj": robustjax}
"""What an example may use without an import."""

MODULES = [
    module.name
    for module in pkgutil.walk_packages(robustjax.__path__, "robustjax.")
    if not module.name.endswith("__main__")
]


def public() -> dict[str, object]:
    """What users find: the public modules, what they list, or else what they define."""
    found = {}
    for name in robustjax.__all__:
        module = getattr(robustjax, name)
        listed = getattr(module, "__all__", None)
        if listed is None:
            listed = [
                own
                for own, value in vars(module).items()
                if not own.startswith("_") and getattr(value, "__module__", "") == module.__name__
            ]
        for own in listed:
            value = getattr(module, own)
            if inspect.ismodule(value):
                continue
            if inspect.isclass(value) or inspect.isfunction(value):
                found[f"{name}.{own}"] = value
    return found


@pytest.fixture
def forget_registrations(monkeypatch):
    """Take back what examples register."""
    added, register = [], Names.register

    def note(names, name, value):
        register(names, name, value)
        added.append((names, name))

    monkeypatch.setattr(Names, "register", note)
    yield
    for names, name in added:
        names.pop(name, None)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.usefixtures("forget_registrations")
def test_examples_run(module):
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    loaded = importlib.import_module(module)
    for test in finder.find(loaded, module, extraglobs=NAMES):
        if test.examples:
            said = []
            runner.run(test, out=said.append)
            assert not runner.failures, "".join(said)


COMPLETE = (
    "attacks",
    "centers",
    "config",
    "data",
    "detection",
    "evaluation",
    "losses",
    "models",
    "parallel",
    "report",
    "scale",
    "spec",
    "theory",
    "threats",
    "training",
    "typing",
)
"""The modules whose public names all have one; the others follow."""


@pytest.mark.parametrize("name", [name for name in public() if name.split(".")[0] in COMPLETE])
def test_a_public_name_has_an_example(name):
    assert ">>>" in (inspect.getdoc(public()[name]) or ""), f"{name} has no example"
