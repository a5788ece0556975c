"""NNX modules of one's own as networks, and through a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from foreign import check_that_caches_hold_no_weights, killed_after_a_save

from robustjax import data, detection, evaluation, files, models, parallel
from robustjax.attacks import PGD
from robustjax.models import BN
from robustjax.threats import Linf
from robustjax.training import AWP, PGDAT, Recipe, fit
from robustjax.training.net import EXAMPLE

AXES = (EXAMPLE, parallel.AXIS)
IMAGES = jax.random.uniform(jax.random.key(0), (8, 4, 4, 2))


class Plain(nnx.Module):
    """Blocks in a list, batch normalisation, dropout, and features."""

    def __init__(self, rngs, channels=2, size=16, classes=3, rate=0.0):
        self.conv = nnx.Conv(channels, 3, (3, 3), rngs=rngs)
        self.norms = nnx.List([nnx.BatchNorm(3, momentum=0.8, rngs=rngs) for _ in range(2)])
        if rate:
            self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.rate, self.head = rate, nnx.Linear(3 * size, classes, rngs=rngs)

    def features(self, x):
        h = self.conv(x)
        for norm in self.norms:
            h = nnx.relu(norm(h)) ** 2
        h = h.reshape(len(x), -1)
        return self.dropout(h) if self.rate else h

    def __call__(self, x):
        return self.head(self.features(x))


def mapped(function, *arrays):
    run = jax.vmap(jax.vmap(function, axis_name=EXAMPLE), axis_name=parallel.AXIS)
    return parallel.merge(jax.jit(run)(*parallel.split(arrays, 2)))


def test_it_follows_the_modes_as_the_plain_batch_does():
    module = Plain(nnx.Rngs(0))
    network = models.adapt(module)
    variables = models.init(network, jax.random.key(1), IMAGES.shape[1:])
    assert set(variables) == {"params", "state"}
    assert variables["state"]["norms"]["1"]["mean"].shape == (3,)

    def own(x):
        return jnp.sin(network.apply(variables, x[None], BN("batch", AXES))[0]).sum()

    def whole(x):
        copy = nnx.clone(module)
        copy.train()
        return jnp.sin(copy(x)).sum()

    gradient = jax.jit(jax.grad(whole))(IMAGES)
    np.testing.assert_allclose(mapped(jax.grad(own), IMAGES), gradient, rtol=1e-3, atol=1e-4)
    assert jnp.abs(gradient).max() > 1e-2

    copy = nnx.clone(module)
    copy.train()
    expected = copy(IMAGES)
    (features, logits), kept = network.apply(
        variables, IMAGES, BN("commit"), method="both", mutable=True
    )
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    np.testing.assert_allclose(kept["state"]["norms"]["1"]["mean"], copy.norms[1].mean[...])
    copy.eval()
    variables = {"params": variables["params"], **kept}
    np.testing.assert_allclose(network.apply(variables, IMAGES, BN()), copy(IMAGES), atol=1e-5)
    np.testing.assert_allclose(
        network.apply(variables, IMAGES, BN(), method="features"), copy.features(IMAGES), atol=1e-5
    )
    assert features.shape == (8, 48)


def test_a_draw_is_the_examples_own():
    network = models.adapt(Plain(nnx.Rngs(0), rate=0.5))
    assert models.is_random(network, IMAGES.shape[1:])
    assert network == models.adapt(Plain(nnx.Rngs(1), rate=0.5))
    assert network != models.adapt(Plain(nnx.Rngs(0), rate=0.4))
    variables = models.init(network, jax.random.key(1), IMAGES.shape[1:])
    keys = jax.random.split(jax.random.key(3), 8)
    run = jax.jit(lambda x, keys: network.apply(variables, x, BN("batch"), keys))
    logits = run(IMAGES, keys)
    order = np.random.default_rng(0).permutation(8)
    again = run(IMAGES[order], keys[order])
    np.testing.assert_allclose(again, logits[order], atol=1e-5)
    still = network.apply(variables, IMAGES, BN())
    assert jnp.abs(still - network.apply(variables, IMAGES, BN(), keys)).max() > 1e-2
    np.testing.assert_array_equal(still, network.apply(variables, IMAGES, BN()))


def digits_net(num_classes=10):
    return Plain(nnx.Rngs(0), 1, 64, num_classes, 0.2)


def test_caches_hold_no_weights():
    check_that_caches_hold_no_weights(digits_net)


def test_a_run_trains_resumes_and_is_evaluated(tmp_path, monkeypatch):
    train, validation = data.load("digits", "train").head(128), data.load("digits", "validation")
    recipe = Recipe(epochs=1, batch_size=64, lr=0.05, augment=data.Augment(pad=0, flip=False))
    method = AWP(PGDAT(PGD(Linf(0.1), steps=1), bn="commit"))
    module = digits_net()
    before = np.asarray(module.head.kernel[...])
    how = {"out": tmp_path / "run", "recipe": recipe, "progress": False}
    result = fit(method, train, validation, model=module, **how)
    np.testing.assert_array_equal(module.head.kernel[...], before)  # nobody took its arrays
    assert files.read_json(tmp_path / "run/config.json")["model"]["brought"]

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
        logits_fn, features_fn, _ = models.load(tmp_path / "run", "last", module=bring)
    images, labels = np.asarray(data.to_float(validation.images)), validation.labels
    np.testing.assert_allclose(
        logits_fn(images),
        models.adapt(module).apply(jax.device_get(result.state.variables), images, BN()),
        atol=1e-5,
    )
    attack = PGD(Linf(0.1), steps=1)
    report = evaluation.evaluate(logits_fn, images, labels, {"pgd": attack}, jax.random.key(0))
    assert report.robust["pgd"] <= report.clean + 1e-6 and features_fn(images).shape[1] == 192
    fitted = detection.KDensity().fit(models.with_layers(logits_fn), images, labels)
    assert np.isfinite(detection.scores(fitted, images[:8])).all()
