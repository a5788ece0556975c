"""Weights on disk and run directories."""

import json

import jax
import numpy as np
import pytest

from robustjax import models

CONFIG = {
    "model": {"name": "resnet-8", "num_classes": 3, "width": 2, "mean": [0.5], "std": [0.25]},
    "image_shape": [8, 8, 1],
    "data": {"name": "digits"},
    "threat": {"type": "Linf", "fields": {"eps": 0.1}},
    "class_names": ["a", "b", "c"],
}


@pytest.fixture(scope="module")
def variables():
    return models.init(models.create(**CONFIG["model"]), jax.random.key(0), (8, 8, 1))


@pytest.fixture
def run(tmp_path, variables):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    models.save_weights(tmp_path / "weights.npz", variables)
    return tmp_path


def test_round_trip(run, variables):
    loaded = models.load_weights(run / "weights.npz")
    assert jax.tree.structure(loaded) == jax.tree.structure(variables)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(variables), strict=True):
        np.testing.assert_array_equal(a, b)


def test_numpy_alone_reads_them(run):
    with np.load(run / "weights.npz", allow_pickle=False) as file:
        assert file["params/stem/kernel"].shape == (3, 3, 1, 2)
        assert "batch_stats/body/norm/mean" in file.files


def test_load_gives_the_functions_of_the_run(run, variables):
    logits_fn, features_fn, config = models.load(run)
    assert config == CONFIG
    x = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1))
    expected, _ = models.apply(models.create(**CONFIG["model"]), variables)
    np.testing.assert_array_equal(logits_fn(x), expected(x))
    assert features_fn(x).shape == (2, 8)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(run, monkeypatch):
    before = (run / "weights.npz").read_bytes()

    def torn(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", torn)
    with pytest.raises(OSError, match="disk full"):
        models.save_weights(run / "weights.npz", {"params": {"w": np.zeros(3)}})
    assert (run / "weights.npz").read_bytes() == before
    assert sorted(p.name for p in run.iterdir()) == ["config.json", "weights.npz"]


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_torn_weights_are_refused_by_name(run, keep):
    whole = (run / "weights.npz").read_bytes()
    (run / "weights.npz").write_bytes(whole[:keep])
    with pytest.raises(ValueError, match=r"weights\.npz is damaged"):
        models.load(run)


def test_corrupted_weights_are_refused_by_name(run):
    whole = bytearray((run / "weights.npz").read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    (run / "weights.npz").write_bytes(whole)
    with pytest.raises(ValueError, match=r"weights\.npz"):
        models.load(run)


def test_missing_files_are_named(run, tmp_path_factory):
    with pytest.raises(FileNotFoundError, match=r"not a run directory: it has no config\.json"):
        models.load(tmp_path_factory.mktemp("empty"))
    (run / "weights.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"no weights at .*weights\.npz"):
        models.load(run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"config\.json is damaged"),
        ("[]", r"config\.json .* has no model, image_shape, data, threat, class_names"),
        ({"threat": None}, r"config\.json .* has no threat"),
        ({"model": {"name": "cnn", "classes": 3}}, "does not describe a model: .*classes"),
        ({"model": {"name": "vgg", "num_classes": 3}}, "'vgg'"),
    ],
)
def test_configs_that_describe_no_model_are_refused(run, text, message):
    if isinstance(text, dict):
        changed = CONFIG | text
        text = json.dumps({key: value for key, value in changed.items() if value is not None})
    (run / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        models.load(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 3}, r"is float32 \(2,\) in the file and float32 \(3,\) in the model"),
        ({"name": "resnet-14"}, "missing in the file"),
        ({"name": "cnn"}, "missing in the model"),
    ],
)
def test_weights_of_another_model_are_refused(run, change, message):
    config = CONFIG | {"model": CONFIG["model"] | change}
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        models.load(run)


def test_a_transplant_is_the_body_of_one_and_the_head_of_the_other(run, variables):
    about = CONFIG["model"] | {"num_classes": 5}
    new = models.init(models.create(**about), jax.random.key(9), (8, 8, 1))
    made = models.transplant(run, new)
    assert jax.tree.structure(made) == jax.tree.structure(new)
    for path, array in jax.tree_util.tree_leaves_with_path(made):
        source = new if "head" in jax.tree_util.keystr(path) else variables
        for key in path:
            source = source[key.key]
        np.testing.assert_array_equal(array, source)


@pytest.mark.parametrize("change", [{"width": 3}, {"name": "resnet-14"}, {"name": "cnn"}])
def test_another_body_takes_no_transplant(run, change):
    new = models.init(models.create(**CONFIG["model"] | change), jax.random.key(9), (8, 8, 1))
    with pytest.raises(ValueError, match="does not fit the model that is to start from it"):
        models.transplant(run, new)
