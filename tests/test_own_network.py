"""A network of one's own through fit, resume, load, evaluate and detect."""

import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from foreign import killed_after_a_save
from tiny import CLASSES, RECIPE, SHAPE, examples

from robustjax import cli, data, detection, evaluation, files, losses, models, parallel
from robustjax.attacks import PGD
from robustjax.config import config
from robustjax.models.adapt import FACTORIES
from robustjax.threats import Linf
from robustjax.training import AWP, HE, PGDAT, TRADES, YOPO, Natural, Recipe, fit
from robustjax.training.methods.base import Aux
from robustjax.training.step import IN_AXES, OUT_AXES, create_state, make_step

HERE = __name__


class Small(nn.Module):
    """Batch normalisation of Flax's own, dropout, and features that it tells."""

    num_classes: int
    width: int = 4
    rate: float = 0.2
    act: object = nn.relu

    @nn.compact
    def __call__(self, x, train: bool = False):
        h = nn.Conv(self.width, (3, 3), strides=2)(x)
        h = self.act(nn.BatchNorm(use_running_average=not train)(h)).reshape(len(x), -1)
        return nn.Dense(self.num_classes)(nn.Dropout(self.rate, deterministic=not train)(h)), h


class Bare(nn.Module):
    """Neither statistics nor draws, and one argument."""

    classes: int = 10

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes, name="head")(x.reshape(len(x), -1))


def small(num_classes, width=3):
    return Small(num_classes, width)


def number():
    return 3


ATTACK = PGD(Linf(0.1), steps=1)
SHORT = Recipe(epochs=1, batch_size=64, lr=0.05, augment=data.Augment(pad=0, flip=False))


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train").head(256), data.load("digits", "validation").head(64)


def train(digits, out, model, method=None, **changes):
    method = method or PGDAT(ATTACK, bn="batch")
    return fit(
        method, *digits, **{"recipe": SHORT, "progress": False} | changes, model=model, out=out
    )


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    """A run of four steps that nobody interrupts."""
    out = tmp_path_factory.mktemp("own") / "whole"
    return train(digits, out, Small(10))


def test_a_run_is_loaded_by_what_it_says(whole, digits):
    about = files.read_json(whole.folder / "config.json")
    assert about["model"] == {"name": f"{HERE}:Small", "num_classes": 10}
    assert about["variables"]["params/Dense_0/kernel"] == "float32 (64, 10)"
    logits_fn, features_fn, _ = models.load(whole.folder, "last")
    images = data.to_float(digits[1].images)
    variables = jax.device_get(whole.state.variables)
    logits, features = Small(10).apply(variables, images)
    np.testing.assert_allclose(logits_fn(images), logits, atol=1e-5)
    np.testing.assert_allclose(features_fn(images), features, atol=1e-5)
    assert variables["batch_stats"]["BatchNorm_0"]["mean"].any()


def test_an_interrupted_run_resumes_bit_for_bit(whole, digits, tmp_path, monkeypatch):
    killed_after_a_save(
        lambda **how: train(digits, tmp_path / "run", Small(10), **how), monkeypatch, 2
    )
    with pytest.raises(ValueError, match=r"its model.width is None, not 5"):
        train(digits, tmp_path / "run", Small(10, 5), resume=True)
    resumed = train(digits, tmp_path / "run", Small(10), resume=True)
    assert resumed.start == 2
    equal(*(jax.device_get(r.state.variables) for r in (resumed, whole)))


def test_evaluate_and_detect_take_the_run(whole, capsys):
    run, few = str(whole.folder), ["--n", "16", "--batch-size", "16"]
    cli.main(["evaluate", run, "--attacks", "fgsm", "--curve", "none", *few])
    assert files.read_json(whole.folder / "report.json")["n"] == 16
    words = ["--detectors", "uncertainty", "k-density", "--attacks", "fgsm", "--no-adaptive"]
    cli.main(["detect", run, *words, "--fit", "128", *few])
    found = files.read_json(whole.folder / "detection.json")["found"]
    assert found.keys() == {"uncertainty", "k-density"}


def test_evaluation_and_detection_take_it_from_python(whole, digits):
    logits_fn, _, _ = models.load(whole.folder)
    images, labels = np.asarray(data.to_float(digits[1].images)), digits[1].labels
    report = evaluation.evaluate(logits_fn, images, labels, {"pgd": ATTACK}, jax.random.key(0))
    assert report.robust["pgd"] <= report.clean + 1e-6
    detector = detection.DETECTORS["k-density"]
    detector.fit(models.with_layers(logits_fn), images, labels)


def local():
    class Inside(Bare):
        pass

    return Inside()


def test_a_network_that_cannot_be_found_has_to_be_brought(digits, tmp_path):
    out = tmp_path / "run"
    train(digits, out, local(), Natural())
    about = files.read_json(out / "config.json")["model"]
    assert about["brought"] and "Inside" in about["name"]
    with pytest.raises(ValueError, match=r"of your own, .*Inside: load it with module=\.\.\."):
        models.load(out)
    images = jnp.zeros((2, 8, 8, 1))
    assert models.load(out, module=local())[0](images).shape == (2, 10)
    assert models.load(out, module=f"{HERE}:Bare")[0](images).shape == (2, 10)
    with pytest.raises(ValueError, match="does not fit the module: params/bias is missing"):
        models.load(out, module=nn.Dense(10))
    started = train(digits, tmp_path / "next", local(), Natural(), init_from=out)
    assert int(started.state.step) == 4


def test_import_paths_are_followed_for_those_who_import(digits, tmp_path, monkeypatch):
    out = tmp_path / "run"
    model = {"name": f"{HERE}:small", "width": 2, "mean": (0.3,), "std": (0.3,), "dtype": None}
    train(digits, out, model, Natural())
    logits_fn, _, about = models.load(out)
    assert about["model"]["width"] == 2 and about["variables"]["params/Conv_0/bias"][-4:] == "(2,)"
    assert logits_fn.func.model == models.adapt(Small(10, 2), (0.3,), (0.3,))
    monkeypatch.delitem(sys.modules, HERE)
    with pytest.raises(ValueError, match=f"import {HERE} first, or load it with module="):
        models.load(out)


def test_a_registered_network_is_known_by_its_name(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(FACTORIES, "registered-here", None)
    del FACTORIES["registered-here"]  # as it will be after the test
    models.register("registered-here", small)
    assert "registered-here" in models.names()
    train(digits, tmp_path / "run", "registered-here", Natural())
    assert models.load(tmp_path / "run")[0].func.model == models.adapt(Small(10, 3))
    models.register("registered-here", functools.partial(small, width=5))  # a cell run again
    assert models.network("registered-here", 3) == models.adapt(Small(3, 5))
    for name in ("cnn", "resnet-20", "wrn-28-10"):
        with pytest.raises(ValueError, match=f"the model '{name}' is robustjax's own"):
            models.register(name, small)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": f"{HERE}:small", "depth": 3}, r"small takes no depth; it takes num_classes, wid"),
        ("nowhere.at_all:small", r"there is no 'nowhere\.at_all:small': No module named"),
        (f"{HERE}:missing", "there is no .*missing"),
        (f"{HERE}:SHORT", "is no factory"),
        (f"{HERE}:number", "Flax .linen or NNX. or Equinox, a name or .* got int"),
        (Bare(7), "Bare returns 7 logits, but the data have 10 classes"),
    ],
)
def test_what_makes_no_network_is_refused(digits, tmp_path, model, message):
    with pytest.raises((ValueError, TypeError), match=message):
        train(digits, tmp_path / "run", model)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (HE(PGDAT(ATTACK)), "HE needs a model with head 'cosine', .* name one of"),
        (YOPO(Linf(0.1)), "Bare has no method `stem_output`, which this training method"),
    ],
)
def test_methods_that_ask_for_more_are_refused(digits, tmp_path, method, message):
    with pytest.raises(ValueError, match=message):
        train(digits, tmp_path / "run", Bare(), method)
    assert not (tmp_path / "run" / "config.json").exists()


@config
class Averaged(TRADES):
    """ReBAT's idea: stay near what the moving average of the weights says."""

    def loss(self, net, params, batch, crafted):
        adversarial, stats = net.train(params, crafted.x_adv)
        average = net.logits(net.ema, crafted.x_adv)
        apart = jax.vmap(losses.kl)(adversarial, average).mean()
        ce = jax.vmap(losses.cross_entropy)(adversarial, batch.target).mean()
        return ce + self.beta * apart, Aux(stats, {"apart": apart})


@functools.cache
def step_of(method, shards, width=4):
    """(state before, after, metrics) of two steps on so many devices."""
    network, batch = models.adapt(Small(CLASSES, width)), examples()
    labels = batch["label"][np.argsort(batch["index"])]
    key = jax.random.key(0)
    before = create_state(network, method, RECIPE, key, batch["image"], labels, CLASSES, shards)
    step = parallel.emulate(make_step(network, RECIPE, 20, CLASSES), IN_AXES, OUT_AXES)
    after = before
    for _ in range(2):
        after, metrics = step(after, method, key, parallel.split(batch, shards))
    return before, after, metrics


@pytest.mark.parametrize("method", [TRADES(attack=dataclasses.replace(TRADES().attack, steps=1))])
def test_devices_change_nothing(method):
    one, two = (step_of(method, shards)[1] for shards in (1, 2))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), one.variables, two.variables
    )


def test_a_method_reaches_the_average_of_the_weights_and_may_be_wrapped():
    attack = dataclasses.replace(TRADES().attack, steps=1)
    before, after, metrics = step_of(AWP(Averaged(attack=attack)), 1)
    assert float(metrics["apart"]) > 0 and float(metrics["loss"]) > 0
    assert jax.tree.structure(before.ema) == jax.tree.structure(after.ema)
    assert SHAPE == (8, 8, 2)
