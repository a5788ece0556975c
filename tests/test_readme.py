"""The Python of README and docs runs as it stands, in the order of its page, on a tiny network.

A block that needs a package says so in a comment above it, `<!-- needs: torch -->`, and is skipped
by name where the package is missing.
"""

import ast
import contextlib
import dataclasses
import importlib.util
import inspect
import json
import os
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import attacks, data, detection, evaluation, models, training
from robustjax.attacks._engine import ledger
from robustjax.evaluation import diagnostics, draws, model_diagnostics
from robustjax.threats import Linf

ROOT = pathlib.Path(__file__).parent.parent
README, DOCS = ROOT / "README.md", ROOT / "docs"
PAGES = {page.relative_to(DOCS).as_posix(): page for page in sorted(DOCS.rglob("*.md"))}
PAGES = {"README.md": README} | PAGES
BLOCK = re.compile(r"^(?:<!-- needs: (\w+) -->\n)?```python\n(.*?)^```", re.M | re.S)
BLOCKS = {name: found for name, page in PAGES.items() if (found := BLOCK.findall(page.read_text()))}

DIGITS = data.load("digits", "train").head(200)
IMAGES, LABELS = np.asarray(data.to_float(DIGITS.images)), DIGITS.labels
FIRST = np.random.default_rng(0).normal(size=(64, 40)).astype(np.float32) / 4
READOUT = np.linalg.lstsq(np.tanh(IMAGES.reshape(-1, 64) @ FIRST), 10 * np.eye(10)[LABELS])[0]


def network(weights, images):
    """Logits and features of digits: random features and a readout."""
    first, readout = weights
    hidden = jnp.tanh(images.reshape(len(images), -1) @ first)
    return {"logits": hidden @ readout, "features": (hidden,)}


def logits(weights, images):
    return network(weights, images)["logits"]


WEIGHTS = FIRST, READOUT.astype(np.float32)
MODEL = jax.tree_util.Partial(network, WEIGHTS)
LOGITS_FN = jax.tree_util.Partial(logits, WEIGHTS)
evaluate, fit, load = evaluation.evaluate, training.fit, models.load
RECIPE = training.Recipe()
os.environ.setdefault("KERAS_BACKEND", "jax")


def quickly(logits_fn, images, labels, attacks_of, key, **how):
    """The same evaluation of a few images, with one step instead of an ensemble."""
    short, one = (attacks.PGD, attacks.APGD), attacks.FGSM(Linf(8 / 255))
    named = {name: a if isinstance(a, short) else one for name, a in attacks_of.items()}
    return evaluate(logits_fn, images, labels, named, key, **how)


def briefly(method, train, validation, *, model, recipe=RECIPE, **how):
    """The same training on a few images, of a narrow network in place of a named one."""
    model = {"name": "cnn", "width": 2} if isinstance(model, dict) else model
    recipe = dataclasses.replace(recipe, epochs=1, batch_size=32)
    return fit(method, train.head(64), validation.head(32), model=model, recipe=recipe, **how)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run, in place of those that the commands of a page have trained."""
    run = tmp_path_factory.mktemp("pages") / "run"
    briefly(training.Natural(), DIGITS, DIGITS, model={}, out=run)
    return run


def write_files():
    """net.onnx and net.keras, where these packages can write them."""
    with contextlib.suppress(ModuleNotFoundError):
        from onnx import helper, save_model

        images = helper.make_tensor_value_info("x", 1, ("b", 1, 8, 8))
        output = helper.make_tensor_value_info("y", 1, ("b", 64))
        flatten = [helper.make_node("Flatten", ["x"], ["y"])]
        graph = helper.make_graph(flatten, "net", [images], [output])
        save_model(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), "net.onnx"
        )
    with contextlib.suppress(ModuleNotFoundError):
        from keras import Input, Sequential, layers

        Sequential([Input((8, 8, 1)), layers.Flatten(), layers.Dense(10)]).save("net.keras")


@pytest.fixture
def names(monkeypatch, tmp_path, registries, trained):
    """What every page takes as given, all of it small; what a page registers is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation, "evaluate", quickly)
    monkeypatch.setattr(training, "fit", briefly)
    monkeypatch.setattr(data, "load", lambda name, split: DIGITS)
    monkeypatch.setattr(
        models,
        "load",
        lambda run, **how: load(run if pathlib.Path(run).exists() else trained, **how),
    )
    return {
        "logits_fn": LOGITS_FN,
        "model": MODEL,
        "images": IMAGES[:8],
        "labels": LABELS[:8],
        "train_images": IMAGES,
        "train_labels": LABELS,
        "validation_images": IMAGES[100:],
        "predictions": LABELS[:8],
        "mask": np.ones((8, 8, 1), bool),
        "eps": np.full((8, 8, 1), 0.1),
        "key": jax.random.key(0),
        "my_factory": models.create,
        "my_function": data.load,
    }


def run(page, names):
    """Run the blocks of a page; the packages that are missing for some."""
    missing = {name for name, _ in BLOCKS[page] if name and importlib.util.find_spec(name) is None}
    if page == "how_to/onnx.md":
        write_files()
    for package, block in BLOCKS[page]:
        if package not in missing:
            exec(block, names)
    return missing


@pytest.mark.filterwarnings("ignore::UserWarning")  # flags, which the pages are about
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras saves
@pytest.mark.parametrize("page", BLOCKS)
def test_the_python_of_a_page_runs(page, names):
    missing = run(page, names)
    if page == "README.md":
        assert isinstance(names["report"], evaluation.Report)
        assert jnp.abs(names["x_adv"] - names["images"]).max() <= 8 / 255 + 1e-6
    if page == "detection.md":
        assert set(names["decisions"]) <= {*range(10), detection.NOT_SURE}
    if page == "how_to/extend.md":
        assert {"my-attack"} <= attacks.ATTACKS.keys() and "my-method" in training.METHODS
    if page == "how_to/inputs.md":
        assert (names["counts"] - np.round(names["counts"]) == 0).all()
        assert names["ours"](names["images"]).shape == (4, 3)
        assert names["report"].robust["pgd"] == 0  # each height can be moved by 0.1 |w|_1 > 0.25
    if missing:
        pytest.skip(f"{page} needs {', '.join(missing)}")


def test_the_readme_is_short_and_counts_right():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    counts = {"attacks": attacks.ATTACKS, "training methods": training.METHODS}
    for what, names in (counts | {"detectors": detection.DETECTORS}).items():
        assert f"{len(list(names))} {what}" in text


@pytest.mark.parametrize(
    ("owner", "page", "start"),
    [
        (attacks, "choose/attack.md", "| attacks |"),
        (detection, "detection.md", "The detectors are"),
    ],
    ids=["attacks", "detection"],
)
def test_lists_in_words_name_what_exists(owner, page, start):
    text = PAGES[page].read_text()
    part = text[text.index(start) :].partition("\n\n")[0]
    for name in re.findall(r"`([A-Z]\w+)`", part):
        assert name in owner.__all__, name


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_links_to_what_exists(page):
    text = page.read_text()
    for path, place in re.findall(r"\]\((?!https?:)([\w/.-]*)#?([\w-]*)\)", text):
        target = page.parent / path if path else page
        assert target.exists(), path
        heads = re.findall(r"^#+ (.*)$", target.read_text(), re.M) if place else ()
        assert not place or place in [
            re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in heads
        ]
    for path in re.findall(r"`((?:experiments|robustjax|tests)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), path


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"([\w/]+\.md)", (ROOT / "mkdocs.yml").read_text())
    assert PAGES.keys() - {"README.md"} <= {*listed}


def test_every_figure_is_in_the_gallery():
    results = ROOT / "experiments" / "results"
    shown = re.findall(r"\]\(\.\./experiments/results/(.*?)\)", PAGES["gallery.md"].read_text())
    figures = [path for kind in ("png", "gif") for path in results.rglob(f"*.{kind}")]
    assert sorted(shown) == sorted(path.relative_to(results).as_posix() for path in figures)


def sentences(module):
    """The long texts of a module, f-strings without their values, docstrings left out."""
    tree = ast.parse(inspect.getsource(module))
    docs = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    inside = [p for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for p in node.values]
    for node in ast.walk(tree):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        text = "".join(p.value for p in parts if isinstance(getattr(p, "value", 0), str))
        if len(text) > 45 and node not in docs and node not in inside:
            yield text


def test_every_flag_is_explained():
    quoted = re.findall(r"^\| `(.*?)` \|", PAGES["reference/flags.md"].read_text(), re.M)
    modules = (diagnostics, model_diagnostics, draws, ledger)
    found = [sentence for module in modules for sentence in sentences(module)]
    for words in quoted:
        assert any(words in sentence for sentence in found), words
    for sentence in found:
        assert any(words in sentence for words in quoted), sentence


def test_the_tables_of_pytorch_networks_are_those_of_the_results():
    results = ROOT / "experiments" / "results"
    page = PAGES["how_to/pytorch.md"].read_text()
    parity = json.loads((results / "parity.json").read_text())
    wanted = []
    for name, row in parity["networks"].items():
        difference = row["difference"]
        relative = difference / row["largest_logit"]
        million = row["parameters"] / 1e6
        wanted.append(f"| {name} | {million:.1f} M | {difference:.0e} | {relative:.0e} |")
        assert relative < (0.05 if "MeanSparse" in name else 1e-5), name
    assert [line for line in page.splitlines() if " M | " in line] == wanted
    bench = json.loads((results / "robustbench.json").read_text())
    read, entries = sum(row["read"] for row in bench["networks"]), len(bench["networks"])
    assert (read, entries) == (bench["read"], bench["entries"]) and read >= 0.95 * entries
    assert f"{read} of the {entries}\nnetworks" in page
