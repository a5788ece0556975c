"""MagNet's autoencoder: the network by SciPy, Adam by hand, and what it is worth on digits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.signal import correlate2d
from scipy.special import expit

from robustjax import data
from robustjax.detection import Autoencoder, Confidence, ReconstructionError, auc, scores
from robustjax.detection.autoencoder import Layers

RNG = np.random.default_rng(0)
IMAGES = RNG.random((6, 4, 6, 2)).astype(np.float32)


def by_hand(layer, image):
    kernel, bias = np.asarray(layer["kernel"]), np.asarray(layer["bias"])
    maps = [
        sum(correlate2d(image[..., c], kernel[:, :, c, d], "same") for c in range(image.shape[-1]))
        for d in range(len(bias))
    ]
    return expit(np.stack(maps, -1) + bias)


@pytest.mark.parametrize("pool", [False, True])
def test_the_network_is_its_convolutions(pool):
    layers = Layers(pool)
    weights = layers.initial(jax.random.key(0), 2, 3)
    weights = jax.tree.map(lambda a: a + RNG.normal(size=a.shape).astype(np.float32), weights)
    channels = [layer["bias"].size for layer in weights]
    assert channels == ([3, 3, 3, 3, 2] if pool else [3, 3, 2])
    found = jax.jit(layers.outputs)(weights, IMAGES)
    for n, image in enumerate(IMAGES):
        h = image
        for i, layer in enumerate(weights):
            h = by_hand(layer, h)
            np.testing.assert_allclose(found[i][n], h, atol=1e-5)
            if pool and i == 0:
                h = h.reshape(2, 2, 3, 2, 3).mean((1, 3))
            if pool and i == 2:
                h = np.kron(h, np.ones((2, 2, 1)))
    np.testing.assert_array_equal(jax.jit(layers)(weights, IMAGES), found[-1])


def test_a_step_is_adam_on_the_mean_squared_error_and_the_penalty():
    found = Autoencoder(noise=0.0, penalty=0.5, epochs=1, seed=3).fit(IMAGES)
    layers = Layers(False)
    weights = layers.initial(jax.random.split(jax.random.key(3))[0], 2, 3)

    def loss(weights):
        outputs = layers.outputs(weights, jnp.asarray(IMAGES))
        squares = sum(jnp.sum(h**2) for h in outputs)
        return jnp.mean((outputs[-1] - IMAGES) ** 2) + 0.5 * squares / len(IMAGES)

    adam = optax.adam(1e-3)
    updates, _ = adam.update(jax.jit(jax.grad(loss))(weights), adam.init(weights))
    wanted = optax.apply_updates(weights, updates)
    for a, b in zip(jax.tree.leaves(found.args[0]), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_seed_decides_every_bit():
    config = {"epochs": 3, "batch_size": 4, "pool": True}
    one, same, other = (Autoencoder(seed=s, **config).fit(IMAGES) for s in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert (one(IMAGES) != other(IMAGES)).any()
    quiet = Autoencoder(noise=0.0, **config).fit(IMAGES)
    assert (one(IMAGES) != quiet(IMAGES)).any()


def test_it_gives_back_normal_images_and_so_tells_others_apart():
    normal = np.asarray(data.to_float(data.load("digits", "train").images[:600]))
    config = Autoencoder(epochs=60, batch_size=32, lr=0.02)
    fitted = ReconstructionError(config).fit(model, normal[:500], np.zeros(500, int))
    unseen, static = normal[500:], np.clip(normal[500:] + RNG.normal(0, 0.5, (100, 8, 8, 1)), 0, 1)
    error = -scores(fitted, unseen)
    assert error.mean() < 0.5 * np.abs(unseen - normal[:500].mean(0)).mean()
    assert auc(scores(fitted, unseen), scores(fitted, static)) > 0.9


def model(images):
    return images.reshape(len(images), -1)[:, :2]


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match="images of 5x6 pixels cannot be halved; leave `pool` off"):
        Autoencoder(pool=True).fit(np.zeros((2, 5, 6, 1), np.float32))
    with pytest.raises(ValueError, match="seed must be a whole number in"):
        Autoencoder(seed=-1).fit(np.zeros((2, 4, 4, 1), np.float32))
    with pytest.raises(ValueError, match="epochs must lie in"):
        Autoencoder(epochs=0)
    with pytest.raises(
        ValueError, match="autoencoder must be an Autoencoder or a Partial, got Confidence"
    ):
        ReconstructionError(Confidence()).fit(model, IMAGES, np.zeros(6, int))
