"""The Python of README and docs runs as it stands, on a tiny model and with short attacks."""

import inspect
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from watched import IMAGES, LABELS, MODEL

from robustjax import attacks, data, detection, evaluation, models, training
from robustjax.data import Dataset
from robustjax.threats import Linf

ROOT = pathlib.Path(__file__).parent.parent
README, DOCS = ROOT / "README.md", ROOT / "docs"
PAGES = [README, *(DOCS / f"{name}.md" for name in ("attacks", "training", "centers", "detection"))]
SPLIT = Dataset((255 * IMAGES).astype(np.uint8), LABELS, np.arange(60), "tiny", "train", 3)
evaluate, fit = evaluation.evaluate, training.fit


def quickly(logits_fn, images, labels, attacks_of, key, **how):
    """The same evaluation with one step instead of each attack's."""
    named = dict.fromkeys(attacks_of, attacks.FGSM(Linf(8 / 255)))
    return evaluate(logits_fn, images, labels, named, key, **how)


@pytest.fixture
def names(monkeypatch, tmp_path):
    """What the page takes as given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation, "evaluate", quickly)
    monkeypatch.setattr(training, "fit", inspect.signature(fit).bind)
    monkeypatch.setattr(data, "load", lambda name, split: SPLIT)
    monkeypatch.setattr(models, "load", lambda run: (MODEL, MODEL, {}))
    return {
        "logits_fn": lambda images: jnp.pad(MODEL(images)["logits"], ((0, 0), (0, 7))),
        "model": MODEL,
        "images": IMAGES[:8],
        "labels": LABELS[:8],
        "train_images": IMAGES,
        "train_labels": LABELS,
        "validation_images": IMAGES[8:],
        "predictions": LABELS[:8],
        "mask": np.ones((4, 4, 1), bool),
        "eps": np.full((4, 4, 2), 0.1),
        "key": jax.random.key(0),
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page, names):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
    for block in blocks:
        exec(block, names)
    assert blocks
    if page == README:
        assert isinstance(names["report"], evaluation.Report)
        assert jnp.abs(names["x_adv"] - names["images"]).max() <= 8 / 255 + 1e-6
    if page.stem == "detection":
        assert set(names["decisions"]) <= {*range(3), detection.NOT_SURE}


def test_the_readme_is_short_and_counts_right():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    counts = {"attacks": attacks.ATTACKS, "training methods": training.METHODS}
    for what, names in (counts | {"detectors": detection.DETECTORS}).items():
        assert f"{len(list(names))} {what}" in text


@pytest.mark.parametrize(
    ("owner", "start"),
    [(attacks, "| attacks |"), (detection, "The detectors are")],
    ids=["attacks", "detection"],
)
def test_lists_in_words_name_what_exists(owner, start):
    text = (DOCS / f"{owner.__name__.rpartition('.')[2]}.md").read_text()
    part = text[text.index(start) :].partition("\n\n")[0]
    for name in re.findall(r"`([A-Z]\w+)`", part):
        assert name in owner.__all__, name


@pytest.mark.parametrize("page", [README, *sorted(DOCS.rglob("*.md"))], ids=lambda page: page.stem)
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
    assert {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} <= {*listed}
