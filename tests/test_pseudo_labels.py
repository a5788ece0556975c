"""Labels by a model: written, read again, never half."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import data
from robustjax.data import pools
from robustjax.training import pseudo_label
from robustjax.writing import locked

IMAGES = np.random.default_rng(0).integers(0, 256, (21, 4, 3, 1)).astype(np.uint8)
WEIGHTS = np.random.default_rng(1).normal(size=(12, 5)).astype(np.float32)


def linear(weights, x):
    return x.reshape(len(x), -1) @ weights


MODEL = jax.tree_util.Partial(linear, jnp.asarray(WEIGHTS))


@pytest.mark.parametrize("soft", [False, True])
def test_round_trip(tmp_path, soft, monkeypatch):
    monkeypatch.setattr(pools, "CHUNK", 8)
    pseudo_label(MODEL, IMAGES, tmp_path / "pool", soft=soft, batch_size=4)
    pool = data.load_extra(f"arrays:{tmp_path / 'pool'}", 5)
    logits = (IMAGES / 255.0).reshape(21, -1) @ WEIGHTS.astype(np.float64)
    want = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_array_equal(pool.images, IMAGES)
    np.testing.assert_array_equal(pool.labels, want.argmax(1))
    confidence = np.load(tmp_path / "pool" / "train_confidence.npy")
    np.testing.assert_allclose(confidence, want.max(1), rtol=1e-5)
    assert (pool.targets is not None) == soft
    if soft:
        np.testing.assert_allclose(pool.targets, want, rtol=1e-4)
        pseudo_label(MODEL, IMAGES, tmp_path / "again", soft=True, batch_size=16)
        again = data.load_extra(f"arrays:{tmp_path / 'again'}", 5)
        np.testing.assert_array_equal(again.targets, pool.targets)


def test_an_interrupted_pool_cannot_be_trained_on(tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "CHUNK", 8)
    seen = []

    def dies(x):
        seen.append(1)
        if len(seen) > 1:
            raise RuntimeError("killed")
        return linear(WEIGHTS, x)

    monkeypatch.setattr(
        "robustjax.training.pseudo_labels.over_tiles",
        lambda function, shared, rows, batch_size: np.asarray(
            jax.nn.softmax(dies(rows["image"] / np.float32(255)))
        ),
    )
    with pytest.raises(RuntimeError, match="killed"):
        pseudo_label(MODEL, IMAGES, tmp_path, soft=True)
    with pytest.raises(FileNotFoundError, match="has no images"):
        data.load_extra(f"arrays:{tmp_path}", 5)
    monkeypatch.undo()
    pseudo_label(MODEL, IMAGES, tmp_path, soft=True)  # starts over
    np.testing.assert_array_equal(data.load_extra(f"arrays:{tmp_path}", 5).images, IMAGES)
    with pytest.raises(ValueError, match="holds images already"):
        pseudo_label(MODEL, IMAGES, tmp_path)


def test_targets_of_a_killed_run_do_not_stay(tmp_path, monkeypatch):
    """Killed before the images get their name; then another model labels them, without targets."""

    def killed(path, target):
        if "images" in path.name:
            raise KeyboardInterrupt
        return os.replace(path, target)

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr("pathlib.Path.replace", killed)
        pseudo_label(MODEL, IMAGES, tmp_path, soft=True)
    assert (tmp_path / "train_targets.npy").exists()
    pseudo_label(jax.tree_util.Partial(linear, -jnp.asarray(WEIGHTS)), IMAGES, tmp_path)
    pool = data.load_extra(f"arrays:{tmp_path}", 5)
    assert pool.targets is None
    logits = (IMAGES / 255.0).reshape(21, -1) @ -WEIGHTS.astype(np.float64)
    np.testing.assert_array_equal(pool.labels, logits.argmax(1))


def test_two_do_not_write_one_pool(tmp_path):
    message = "pseudo-label of another process"
    with locked(tmp_path, "a run"), pytest.raises(ValueError, match=message):
        pseudo_label(MODEL, IMAGES, tmp_path)


def test_other_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="images must be uint8"):
        pseudo_label(MODEL, IMAGES / 255, tmp_path)
