"""Keras models as functions, against Keras's own prediction."""

import os

import jax
import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras")
from keras import layers

from robustjax import attacks, models
from robustjax.promotion import usual
from robustjax.threats import Linf

IMAGES = np.random.default_rng(0).uniform(size=(3, 8, 8, 3)).astype(np.float32)


def network(*last):
    inputs = keras.Input((8, 8, 3))
    h = layers.Conv2D(4, 3, padding="same", strides=2)(inputs)
    h = layers.ReLU()(layers.BatchNormalization()(h))
    h = layers.Dropout(0.5)(layers.Flatten()(h))
    h = layers.Dense(5)(h)
    for layer in last:
        h = layer(h)
    return keras.Model(inputs, h)


def test_it_computes_what_keras_does_and_new_weights_compile_nothing():
    model, traced = network(), []
    run = jax.jit(lambda f, x: traced.append(1) or f(x))
    before = run(models.from_keras(model), IMAGES)
    for variable in model.variables[:6]:
        variable.assign(np.random.default_rng(1).uniform(0.1, 1, variable.shape))
    logits_fn = models.from_keras(model)
    found = run(logits_fn, IMAGES)
    with usual():
        np.testing.assert_allclose(found, model(IMAGES, training=False), atol=1e-5)
    assert not np.allclose(found, before) and len(traced) == 1
    z = attacks.perturb(attacks.FGSM(Linf(0.1)), logits_fn, jax.random.key(0), IMAGES, [0, 1, 2])
    assert np.isclose(np.abs(z - IMAGES).max(), 0.1)


def test_a_softmax_is_refused_and_the_error_tells_what_to_do():
    model = network(layers.Dense(4, activation="softmax", name="top"))
    with pytest.raises(ValueError, match=r"get_layer\('top'\).activation = None"):
        models.from_keras(model)
    model.get_layer("top").activation = None
    with usual():
        np.testing.assert_allclose(models.from_keras(model)(IMAGES), model(IMAGES), atol=1e-6)
    with pytest.raises(ValueError, match="get_layer"):
        models.from_keras(
            keras.Sequential(
                [keras.Input((8, 8, 3)), network(layers.Dense(4, activation="softmax"))]
            )
        )
    model = network(layers.Softmax())
    with pytest.raises(ValueError, match=r"keras.Model\(model.inputs, model.layers\[-2\].output"):
        models.from_keras(model)
    models.from_keras(keras.Model(model.inputs, model.layers[-2].output))


class Training(keras.Model):
    def __init__(self):
        super().__init__()
        self.norm, self.head = layers.BatchNormalization(), layers.Dense(3)

    def call(self, x):
        return self.head(self.norm(x, training=True)[:, 0, 0])


def test_what_stays_in_training_is_refused_where_it_is_called():
    model = Training()
    with usual():
        model(IMAGES)
    with pytest.raises(ValueError, match=r"updates .*moving_mean in evaluation, too"):
        models.from_keras(model)(IMAGES)


def test_what_is_no_keras_model_on_jax(monkeypatch):
    with pytest.raises(ValueError, match="has no weights yet: call it once"):
        models.from_keras(keras.Sequential([layers.Dense(3)]))
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match="Keras runs on torch: set KERAS_BACKEND=jax"):
        models.from_keras(layers.Dense(3))
