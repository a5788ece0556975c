"""What the code says of itself: imports go down and one way; a test file names what it tests."""

import ast
import functools
import graphlib
import pathlib

import pytest

import robustjax

ROOT = pathlib.Path(robustjax.__file__).parent
RANK = {
    "checks": -1,
    "config": 0,
    "lazy": 0,
    "deterministic": 0,
    "environment": 0,
    "keys": 0,
    "typing": 0,
    "parallel": 1,
    "progress": 0,
    "warn": 0,
    "convolutions": 0,
    "promotion": 0,
    "writing": 0,
    "archives": 1,
    "files": 1,
    "names": 1,
    "outputs": 1,
    "spec": 2,
    "checkpoint": 2,
    "centers": 2,
    "losses": 2,
    "threats": 2,
    "attacks": 3,
    "models": 3,
    "data": 3,
    "detection": 4,
    "training.": 4,  # all of its parts but the loop and its validation, which evaluate
    "evaluation": 5,
    "theory": 5,
    "report": 6,
    "training": 7,
    "scale": 8,
    "": 9,  # the package itself, whose parts load when they are first used
    "cli": 10,
    "__main__": 11,
}


def name_of(path: pathlib.Path) -> str:
    """robustjax/losses/__init__.py -> robustjax.losses."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
MODULES = [name for name in FILES if name != "robustjax"]


def unit(module: str) -> str:
    """The key in RANK: robustjax.losses.softmax -> losses, robustjax.training.net -> training. ."""
    folder, *rest = module.split(".")[1:] or [""]
    return (
        "training."
        if folder == "training" and rest not in ([], ["loop"], ["validation"])
        else folder
    )


@functools.cache
def imports(module: str) -> frozenset[str]:
    """The modules that a module names; `from a.b import c` is a.b.c where that is one of ours."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in FILES else node.module for name in names}
    return frozenset(found)


def ours(module: str) -> set[str]:
    return {name for name in imports(module) if name.split(".")[0] == "robustjax"}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    own = unit(module)
    for name in ours(module):
        assert unit(name) == own or RANK[unit(name)] < RANK[own], f"{module} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_some_packages_stay_out(module):
    outside = {name.split(".")[0] for name in imports(module)}
    assert not outside & {"torch", "tensorflow"}
    if unit(module) in ("attacks", "detection", "evaluation", "losses", "threats"):
        assert "flax" not in outside


ROOMS = {
    "attacks": {
        "_core": 0,
        "starts": 1,
        "steps": 1,
        "stops": 1,
        "successes": 1,
        "targets": 1,
        "transforms": 1,
        "_gradient": 2,
        "_minimum_norm": 2,
        "_black_box": 3,
        "_ensembles": 4,
        "_engine": 4,
        "_registry": 5,
        "": 6,
    },
    "models": {
        "nets": 0,
        "trees": 0,
        "wrappers": 0,
        "exported": 0,
        "adapters": 1,
        "architectures": 1,
        "classifier": 1,
        "heads": 1,
        "onnx": 1,
        "activations": 2,
        "adapt": 2,
        "factory": 3,
        "weights": 4,
        "pytorch": 4,
        "": 5,
    },
}
"""Inside `attacks`: what climbs a loss stands on its parts, ensembles and the engine on both.

Inside `models`: networks know nothing of files, of other libraries, or of their own names.
"""


def room(module: str) -> tuple[str, str] | None:
    """robustjax.attacks._core.success -> (attacks, _core); None where there are no rooms."""
    folder, *rest = module.split(".")[1:] or [""]
    return (folder, (rest or [""])[0]) if folder in ROOMS else None


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) is not None])
def test_rooms_know_the_rooms_below(module):
    folder, own = room(module)
    for name in ours(module):
        of, other = room(name) or (None, None)
        if of == folder and other != own:
            rank = ROOMS[folder]
            assert rank[other] < rank[own], f"{module} imports {name}"


def test_imports_go_one_way():
    graph = {module: ours(module) for module in MODULES}
    assert {"robustjax.cli.flags", "robustjax"} <= graph["robustjax.cli.train"]
    assert {"robustjax.files", "robustjax.data"} <= graph["robustjax.training.identity"]
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the modules of a circle


LAWS = {
    "attack_contract": "what every attack obeys",
    "attacks_that_fail": "no attack is silent where it did not work",
    "custom_objectives": "objectives and success of a user's own",
    "detection_attacks": "attacks on classifier and detector, against the exact optimum",
    "detection_contract": "what every detector obeys",
    "any_inputs": "inputs of any shape, outputs of any kind",
    "evaluating_processes": "several processes return what one returns",
    "distance_heads": "attacks on a head of distances, where the truth is known",
    "doctests": "every example of a docstring",
    "evaluation_invariance": "an evaluation is the same, bit for bit, however it is run",
    "exact_relu": "attacks against what a mixed-integer program proves",
    "layering": "this file",
    "method_contract": "what every training method obeys",
    "notebook": "the notebooks run",
    "threats_linear": "attacks on linear models, against the exact optimum of every threat",
    "threats_open": "a user's own threat, through everything that knows threats",
    "old_runs": "runs of an older version are read",
    "oracle_training": "training steps against PyTorch",
    "other_tasks": "regression, segmentation, several labels: a loss and a success of one's own",
    "own_loop": "the steps of docs/how_to/own_loop.md",
    "own_network": "a user's network through fit, load, evaluate and detect",
    "package": "import robustjax",
    "readme": "README and the pages of docs",
    "registration": "what a user registers is found by its name",
    "same_bits": "a network's results do not depend on the images beside it, whatever the network",
    "types": "what a user writes type-checks",
}
"""Test files that are not of one module, and what they hold."""
TESTS = [
    path.stem.removeprefix("test_") for path in pathlib.Path(__file__).parent.glob("test_*.py")
]


def subjects() -> set[str]:
    """Names of modules, packages and experiments: attacks/_gradient/pgd.py -> attacks_pgd."""
    checkout = pathlib.Path(__file__).parents[1]  # experiments lie here, never beside a wheel
    experiments = (checkout / "experiments").rglob("*.py")
    relative = [path.relative_to(ROOT.parent) for path in ROOT.rglob("*.py")]
    relative += [path.relative_to(checkout) for path in experiments]
    found = set()
    for path in relative:
        *folders, stem = path.with_suffix("").parts
        public = [folder for folder in folders if not folder.startswith("_")]
        found |= {"_".join(public), "_".join([*public, stem.lstrip("_")])}
    return found


@pytest.mark.parametrize("name", TESTS)
def test_a_test_file_names_a_module_or_a_law(name):
    """A module's file may leave out the first folders: methods_mart, loop."""
    if name.startswith("examples_"):
        return
    of_module = any(f"_{subject}".endswith(f"_{name}") for subject in subjects())
    assert of_module != (name in LAWS), f"test_{name}.py: name a module, or list it as a law"
