"""Equinox modules of one's own as networks, and through a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from foreign import check_that_caches_hold_no_weights, killed_after_a_save

from robustjax import data, detection, evaluation, models, parallel
from robustjax.attacks import PGD
from robustjax.models import BN
from robustjax.threats import Linf
from robustjax.training import AWP, PGDAT, Recipe, fit
from robustjax.training.net import EXAMPLE

eqx = pytest.importorskip("equinox")
AXES = (EXAMPLE, parallel.AXIS)
IMAGES = jax.random.uniform(jax.random.key(0), (8, 4, 4, 2))


class Plain(eqx.Module):
    """Without state."""

    first: eqx.nn.Conv2d
    head: eqx.nn.Linear

    def __init__(self, key, channels=2, size=48, classes=3):
        first, second = jax.random.split(key)
        self.first = eqx.nn.Conv2d(channels, 3, 3, padding=1, key=first)
        self.head = eqx.nn.Linear(size, classes, key=second)

    def features(self, x):
        return jax.nn.relu(self.first(x)).ravel()

    def __call__(self, x):
        return self.head(self.features(x))


class Stateful(eqx.Module):
    """Batch normalisation, dropout, and features beside the logits."""

    body: Plain
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    steps: jax.Array
    act: object = jax.nn.relu

    def __init__(self, key, rate=0.5, **sizes):
        self.body = Plain(key, **sizes)
        self.norm = eqx.nn.BatchNorm(3, axis_name="anybody's", mode="batch")
        self.dropout, self.steps = eqx.nn.Dropout(rate), jnp.arange(3)

    def __call__(self, x, state, key=None):
        h, state = self.norm(self.body.first(x), state)
        h = self.act(h).ravel()
        return (self.body.head(self.dropout(h, key=key)), h), state


def stateful(seed=0, **settings):
    return eqx.nn.make_with_state(Stateful)(jax.random.key(seed), **settings)


def mapped(function, *arrays):
    run = jax.vmap(jax.vmap(function, axis_name=EXAMPLE), axis_name=parallel.AXIS)
    return parallel.merge(jax.jit(run)(*parallel.split(arrays, 2)))


def test_it_follows_the_modes_as_the_plain_batch_does():
    module, state = stateful(rate=0.0)
    network = models.adapt((module, state))
    variables = models.init(network, jax.random.key(1), IMAGES.shape[1:])
    assert set(variables) == {"params", "buffers", "state"}
    keys = jax.random.split(jax.random.key(2), 8)

    def whole(x):
        norm = eqx.tree_at(lambda m: m.norm.axis_name, module, "everybody")
        run = jax.vmap(norm, (0, None, 0), (0, None), axis_name="everybody")
        (logits, _), after = run(jnp.moveaxis(x, -1, 1), state, keys)
        return jnp.sin(logits).sum(), after

    def own(x, key):
        bn = BN("batch", AXES)
        return jnp.sin(network.apply(variables, x[None], bn, key[None])[0]).sum()

    gradient, moved = jax.jit(jax.grad(whole, has_aux=True))(IMAGES)
    found = mapped(jax.grad(own), IMAGES, keys)
    np.testing.assert_allclose(found, gradient, rtol=1e-3, atol=1e-4)
    committed = jax.jit(lambda x: network.apply(variables, x, BN("commit"), keys, mutable=True))
    _, kept = committed(IMAGES)
    for a, b in zip(jax.tree.leaves(kept["state"]), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_array_equal(kept["buffers"]["steps"], [0, 1, 2])
    trained = {"params": variables["params"], **kept}
    features, logits = network.apply(trained, IMAGES, BN(), method="both")
    alone = network.apply(trained, IMAGES[:1], BN())
    np.testing.assert_allclose(logits[:1], alone, atol=1e-5)
    assert features.shape == (8, 48)
    with pytest.raises(ValueError, match="Equinox's BatchNorm cannot capture"):
        network.apply(variables, IMAGES, BN("capture"), keys)


def test_a_draw_is_the_examples_own():
    network = models.adapt(stateful())
    assert models.is_random(network, IMAGES.shape[1:])
    assert network == models.adapt(stateful(1)) != models.adapt(stateful(rate=0.4))
    variables = models.init(network, jax.random.key(1), IMAGES.shape[1:])
    keys = jax.random.split(jax.random.key(3), 8)
    run = jax.jit(lambda x, keys: network.apply(variables, x, BN("batch"), keys))
    logits = run(IMAGES, keys)
    order = np.random.default_rng(0).permutation(8)
    again = run(IMAGES[order], keys[order])
    np.testing.assert_allclose(again, logits[order], atol=1e-5)


def test_a_module_without_state_tells_its_features():
    module = Plain(jax.random.key(0))
    network = models.adapt(module)
    variables = models.init(network, jax.random.key(1), IMAGES.shape[1:])
    assert set(variables) == {"params"} and not models.is_random(network, IMAGES.shape[1:])
    logits_fn, features_fn = models.apply(network, variables)
    expected = jax.vmap(module)(jnp.moveaxis(IMAGES, -1, 1))
    np.testing.assert_allclose(logits_fn(IMAGES), expected, atol=1e-6)
    seen = models.with_layers(logits_fn)(IMAGES)
    np.testing.assert_array_equal(seen["features"][0], features_fn(IMAGES))


def digits_net():
    return stateful(channels=1, size=192, classes=10, rate=0.2)


def test_caches_hold_no_weights():
    check_that_caches_hold_no_weights(digits_net)


@pytest.mark.filterwarnings("ignore:one class predicted everywhere")  # after two steps
def test_a_run_trains_resumes_and_is_evaluated(tmp_path, monkeypatch):
    train, validation = data.load("digits", "train").head(128), data.load("digits", "validation")
    recipe = Recipe(epochs=1, batch_size=64, lr=0.05, augment=data.Augment(pad=0, flip=False))
    method = AWP(PGDAT(PGD(Linf(0.1), steps=1), bn="commit"))
    how = {"out": tmp_path / "run", "recipe": recipe, "progress": False}
    result = fit(method, train, validation, model=digits_net(), **how)

    def other(**about):
        where = how | {"out": tmp_path / "b"}
        return fit(method, train, validation, model=digits_net(), **where, **about)

    killed_after_a_save(other, monkeypatch)
    again = other(resume=True)
    assert again.start == 1 and int(again.state.step) == 2
    same = (jax.device_get(r.state.variables) for r in (again, result))
    jax.tree.map(np.testing.assert_array_equal, *same)
    with pytest.raises(ValueError, match="load it with module="):
        models.load(tmp_path / "run")
    for bring in (digits_net(), f"{__name__}:digits_net"):
        logits_fn, features_fn, _ = models.load(tmp_path / "run", module=bring)
    images, labels = np.asarray(data.to_float(validation.images)), validation.labels
    attack = PGD(Linf(0.1), steps=1)
    report = evaluation.evaluate(logits_fn, images, labels, {"pgd": attack}, jax.random.key(0))
    assert report.robust["pgd"] <= report.clean + 1e-6 and features_fn(images).shape[1] == 192
    fitted = detection.KDensity().fit(models.with_layers(logits_fn), images, labels)
    assert np.isfinite(detection.scores(fitted, images[:8])).all()
