"""Linen modules of one's own as networks: modes of batch normalisation, draws, features."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from robustjax import models, parallel
from robustjax.models import BN
from robustjax.training.net import EXAMPLE, Net

SHAPE, K = (4, 4, 2), 3
IMAGES = jax.random.uniform(jax.random.key(0), (8, *SHAPE))
LABELS = jnp.arange(8) % K


class Block(nn.Module):
    @nn.compact
    def __call__(self, h, train):
        return nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.8)(h))


class Plain(nn.Module):
    """Batch normalisation in all places: told at the call or before, shared, recomputed."""

    axis: str | None = "another's"

    def setup(self):
        self.conv, self.head = nn.Conv(4, (3, 3)), nn.Dense(K)
        self.shared = nn.BatchNorm(axis_name=self.axis)
        self.block = nn.remat(Block, static_argnums=2)()

    def features(self, x, train=False):
        h = self.shared(self.conv(x), use_running_average=not train)
        h = self.block(self.shared(h**2, use_running_average=not train), train)
        return h.mean((1, 2))

    def __call__(self, x, train=False):
        return self.head(self.features(x, train))


@functools.cache
def network(module=None):
    adapted = models.adapt(module or Plain())
    variables = models.init(adapted, jax.random.key(1), SHAPE)
    return adapted, variables["params"], {n: t for n, t in variables.items() if n != "params"}


def plain(params, stats, x):
    """(logits, new statistics) of the whole batch by Flax alone."""
    run = functools.partial(Plain(None).apply, train=True, mutable=["batch_stats"])
    return jax.jit(run)({"params": params, **stats}, x)


def mapped(function, *arrays):
    """`function` of single examples, on two devices: (8, ...) -> (8, ...)."""
    run = jax.vmap(jax.vmap(function, axis_name=EXAMPLE), axis_name=parallel.AXIS)
    return parallel.merge(jax.jit(run)(*parallel.split(arrays, 2)))


AXES = (EXAMPLE, parallel.AXIS)


def test_gradients_of_single_examples_are_those_of_the_plain_batch():
    adapted, params, stats = network()

    def loss(logits, label):
        return -jax.nn.log_softmax(logits)[label]

    def total(x):
        return jax.vmap(loss)(plain(params, stats, x)[0], LABELS).sum()

    def one(x, label):
        def own(x):
            return loss(
                adapted.apply({"params": params, **stats}, x[None], BN("batch", AXES))[0], label
            )

        return jax.grad(own)(x)

    found = mapped(one, IMAGES, LABELS)
    np.testing.assert_allclose(found, jax.jit(jax.grad(total))(IMAGES), atol=1e-5)
    assert jnp.abs(found).max() > 1e-2


@pytest.mark.parametrize("mode", ["running", "batch", "commit", "capture"])
def test_each_mode_reads_and_leaves_what_it_says(mode):
    adapted, params, stats = network()
    logits, new = plain(params, stats, IMAGES)
    if mode == "running":
        logits, new = Plain().apply({"params": params, **stats}, IMAGES), stats

    def one(x):
        out, kept = adapted.apply(
            {"params": params, **stats}, x[None], BN(mode, AXES), mutable=["batch_stats"]
        )
        return out[0], kept

    found, kept = mapped(one, IMAGES)
    np.testing.assert_allclose(found, logits, atol=1e-5)
    kept = jax.tree.map(lambda a: a[0], kept)
    if mode == "capture":  # the block's statistics of the batch replace the running ones
        block = new["batch_stats"]["block"]["BatchNorm_0"]
        for name, before in (("mean", 0.0), ("var", 1.0)):
            want = (block[name] - 0.8 * before) / 0.2
            got = kept["batch_stats"]["block"]["BatchNorm_0"][name]
            np.testing.assert_allclose(got, want, atol=1e-5)
    else:
        want = new if mode == "commit" else stats
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), kept, want)
    if mode in ("running", "batch"):
        jax.tree.map(np.testing.assert_array_equal, kept, stats)


class Frozen(nn.Module):
    """Batch normalisation that is told to keep to its statistics, in training, too."""

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True)(x)
        return nn.Dense(K)(nn.BatchNorm(use_running_average=False)(x).reshape(len(x), -1))


def test_frozen_layers_stay_frozen_and_evaluation_never_sees_a_batch():
    adapted, params, stats = network(Frozen())
    variables = {"params": params, **stats}
    _, kept = adapted.apply(variables, IMAGES, BN("commit"), mutable=True)
    frozen, moving = (kept["batch_stats"][f"BatchNorm_{i}"]["mean"] for i in (0, 1))
    assert not frozen.any() and moving.any()
    alone = adapted.apply(variables, IMAGES[:1], BN())
    np.testing.assert_allclose(adapted.apply(variables, IMAGES, BN())[:1], alone, atol=1e-6)


class Noisy(nn.Module):
    """Dropout, noise of one's own, and batch normalisation behind them; two arguments switch."""

    @nn.compact
    def __call__(self, x, *, deterministic: bool, use_running_average: bool = True):
        h = nn.Dropout(0.5, deterministic=deterministic)(nn.Conv(3, (3, 3))(x))
        if not deterministic:
            h += 0.1 * jax.random.normal(self.make_rng("noise"), h.shape)
        h = nn.BatchNorm(use_running_average)(h)
        return {"logits": nn.Dense(K)(h.reshape(len(h), -1)), "features": h}


def test_a_draw_is_the_examples_own():
    adapted, params, stats = network(Noisy())
    variables, bn = {"params": params, **stats}, BN("commit")
    keys = jax.random.split(jax.random.key(3), len(IMAGES))
    assert models.is_random(adapted, SHAPE) and not models.is_random(network()[0], SHAPE)
    run = jax.jit(lambda x, keys: adapted.apply(variables, x, bn, keys, mutable=True))
    logits, kept = run(IMAGES, keys)
    order = np.random.default_rng(0).permutation(len(IMAGES))
    moved, again = run(IMAGES[order], keys[order])
    np.testing.assert_allclose(moved, logits[order], atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), kept, again)

    def one(x, key):
        net = Net(stats, jnp.float32(0.5), adapted, draws=key[None])
        return net.forward(params, x[None], "batch", axes=(EXAMPLE,))[0][0]

    np.testing.assert_allclose(mapped(one, IMAGES, keys), logits, atol=1e-5)
    same = jnp.broadcast_to(IMAGES[0], IMAGES.shape)
    rows = adapted.apply(variables, same, BN(), keys)
    assert len(np.unique(np.asarray(rows), axis=0)) == len(rows)
    still = adapted.apply(variables, IMAGES, BN())
    np.testing.assert_array_equal(still, adapted.apply(variables, IMAGES, BN()))


class OwnNorm(nn.Module):
    """Running means by a layer of one's own, which knows no axes."""

    @nn.compact
    def __call__(self, x, training=False):
        running = self.variable("state", "mean", jnp.zeros, x.shape[-1:])
        mean = x.mean((0, 1, 2)) if training else running.value
        if training:
            running.value = 0.5 * running.value + 0.5 * mean
        return nn.Dense(K)((x - mean.reshape(1, 1, 1, -1)).reshape(len(x), -1))


def test_statistics_of_a_layer_of_ones_own_are_averaged_or_refused():
    adapted, params, stats = network(OwnNorm())
    variables = {"params": params, **stats}

    def device(x):
        return adapted.apply(variables, x, BN("commit", (parallel.AXIS,)), mutable=True)[1]

    halves = parallel.split(IMAGES, 2)
    kept = jax.vmap(device, axis_name=parallel.AXIS, out_axes=None)(halves)
    np.testing.assert_allclose(kept["state"]["mean"], 0.5 * IMAGES.mean((0, 1, 2)), rtol=1e-5)
    with pytest.raises(
        ValueError, match="updates state/mean, and here it sees one image at a time"
    ):
        mapped(lambda x: adapted.apply(variables, x[None], BN("batch", AXES))[0], IMAGES)


def test_features_are_told_by_a_method_or_beside_the_logits():
    for module, width in ((Plain(), 4), (Noisy(), 48)):
        adapted, params, stats = network(module)
        logits_fn, features_fn = models.apply(adapted, {"params": params, **stats})
        seen = models.with_layers(logits_fn)(IMAGES)
        assert features_fn(IMAGES).shape == (len(IMAGES), width)
        np.testing.assert_array_equal(seen["features"][0], features_fn(IMAGES))
        np.testing.assert_array_equal(seen["logits"], logits_fn(IMAGES))
    adapted, params, stats = network(OwnNorm())
    logits_fn, features_fn = models.apply(adapted, {"params": params, **stats})
    assert models.with_layers(logits_fn)(IMAGES).keys() == {"logits"}
    with pytest.raises(ValueError, match="give it a method `features`, or let it return"):
        features_fn(IMAGES)
    with pytest.raises(ValueError, match=r"OwnNorm.* has no method `rest`"):
        adapted.apply({"params": params, **stats}, IMAGES, BN(), method="rest")


def test_features_are_one_pass_with_the_logits():
    adapted, params, stats = network()
    apply = functools.partial(adapted.apply, {"params": params, **stats}, IMAGES, BN("commit"))
    (_, logits), kept = apply(method="both", mutable=True)
    alone, once = apply(mutable=True)
    np.testing.assert_array_equal(logits, alone)
    jax.tree.map(np.testing.assert_array_equal, kept, once)


def test_a_draw_of_a_network_is_what_uncertainty_looks_at():
    adapted, params, stats = network(Noisy())
    logits_fn, _ = models.apply(adapted, {"params": params, **stats})
    draw = models.with_dropout(logits_fn)
    one, other = (draw(jax.random.key(seed), IMAGES) for seed in (0, 1))
    np.testing.assert_array_equal(one["logits"], logits_fn(IMAGES))
    assert jnp.abs(one["drawn"] - other["drawn"]).max() > 1e-3


def test_images_are_normalised_before_the_module():
    adapted, params, stats = network()
    scaled = models.adapt(Plain(), mean=(0.5, 0.25), std=(0.2, 0.4))
    seen = (IMAGES - jnp.array([0.5, 0.25]).reshape(1, 1, 1, 2)) / jnp.array([0.2, 0.4]).reshape(
        1, 1, 1, 2
    )
    variables = {"params": params, **stats}
    np.testing.assert_allclose(
        scaled.apply(variables, IMAGES, BN()), adapted.apply(variables, seen, BN()), atol=1e-5
    )
    with pytest.raises(ValueError, match="mean has 1 values for images of 2 channels"):
        models.adapt(Plain(), mean=(0.5,)).apply(variables, IMAGES, BN())


class Array(nn.Module):
    table: np.ndarray

    def __call__(self, x):
        return x


class Asking(nn.Module):
    def __call__(self, x, temperature):
        return x / temperature


class Flat(nn.Module):
    def __call__(self, x):
        return x.mean()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Array(np.zeros(3)), "Array cannot be hashed, .* no arrays"),
        (Asking(), "Asking.__call__ asks for 'temperature'.* Give 'temperature' a default"),
        (
            lambda x: x,
            "Flax .linen or NNX. or Equinox, a name or 'package.module:factory', got function",
        ),
        (Plain, "got type"),
    ],
)
def test_what_is_no_network_is_refused(module, message):
    with pytest.raises(TypeError, match=message):
        models.adapt(module)


def test_an_output_without_logits_of_each_image_is_refused():
    with pytest.raises(ValueError, match=r"must return logits \(B, K\), .* returned \(\)"):
        models.adapt(Flat()).apply({}, IMAGES, BN())
