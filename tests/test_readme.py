"""README's Python runs as it stands on a tiny model; attacks are shortened, training is not run."""

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

PAGE = pathlib.Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
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


def test_the_python_of_the_page_runs(names):
    for block in BLOCKS:
        exec(block, names)
    assert isinstance(names["report"], evaluation.Report)
    assert jnp.abs(names["x_adv"] - names["images"]).max() <= 8 / 255 + 1e-6
    assert set(names["decisions"]) <= {*range(3), detection.NOT_SURE}


def test_the_page_names_what_exists():
    """Every attack and detector of the lists in words, and every file and folder."""
    text = PAGE.read_text()
    for owner in (attacks, detection):
        table = "| attacks |" if owner is attacks else "The detectors are"
        part = text[text.index(table) :].partition("\n\n")[0]
        for name in re.findall(r"`([A-Z]\w+)`", part):
            assert name in owner.__all__, name
    paths = re.findall(r"\]\(((?:docs|tests)/[\w/.]+)|`((?:experiments|robustjax)/[\w/.-]+)`", text)
    for path in (a or b for a, b in paths):
        assert (PAGE.parent / path).exists(), path
