"""Models that cannot be attacked as they are: one sentence each that says what to do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax import export

from robustjax.attacks import FGSM, AutoAttack, DeepFool, Restarts, perturb
from robustjax.attacks._core.success import fooled
from robustjax.attacks._engine.examples import check_examples
from robustjax.attacks._engine.layout import layout_of
from robustjax.attacks._engine.model import check_model
from robustjax.threats import Linf

IMAGES = np.random.default_rng(0).uniform(size=(3, 4, 4, 2)).astype(np.float32)
W = np.ones((32, 4), np.float32)
LABELS = np.zeros(3, int)
KEY = jax.random.key(0)


class Net(nn.Module):
    """Batch normalisation, perhaps over a mapped axis, and dropout."""

    axis: str | None = None
    rate: float = 0.0

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.BatchNorm(use_running_average=not train, axis_name=self.axis)(x)
        x = nn.Dropout(self.rate, deterministic=not train)(x)
        return nn.Dense(4)(x.mean((1, 2)))


def linen(net, **how):
    variables = net.init(KEY, IMAGES, train=False)
    return lambda x: net.apply(variables, x, **how)


class Linear(nnx.Module):
    def __init__(self, first):
        self.first, self.last = first, nnx.Linear(2, 4, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.last(self.first(x).mean((1, 2)))


class Dropped(eqx.Module):
    drop: eqx.nn.Dropout

    def __call__(self, x):
        return self.drop(x).mean((1, 2))


def normalised():
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(2, "batch", mode="batch")
    rows = jax.vmap(lambda x: norm(x, state)[0], axis_name="batch")
    return lambda x: rows(jnp.moveaxis(x, -1, 1)).mean((2, 3))


class Torch:
    def __call__(self, x):
        raise TypeError("conv2d() received an invalid combination of arguments: (Tensor input)")


def flat(x):
    return x.reshape(x.shape[0], -1) @ W


def exported(shape):
    return export.export(jax.jit(flat))(jax.ShapeDtypeStruct(shape, np.float32)).call


UPDATES = {"mutable": ["batch_stats"]}
TRAINING = "in training mode.*switch it to evaluation: train=False"
OUTSIDE = "it leaves JAX.*write it in jax.numpy"
MODELS = {
    "linen": (lambda: linen(Net()), TRAINING),
    "a linen module of training and its statistics": (
        lambda: linen(Net(), **UPDATES),
        r"leave statistics out \(mutable=False",
    ),
    "linen over an axis": (lambda: linen(Net(axis="batch"), **UPDATES), TRAINING),
    "linen with dropout": (lambda: linen(Net(rate=0.5), **UPDATES), TRAINING),
    "linen without variables": (lambda: Net(), "no weights of its own.*Partial"),
    "nnx": (lambda: Linear(nnx.BatchNorm(2, rngs=nnx.Rngs(0))), TRAINING),
    "nnx with dropout": (lambda: Linear(nnx.Dropout(0.5, rngs=nnx.Rngs(0))), TRAINING),
    "equinox": (normalised, TRAINING),
    "equinox with dropout": (lambda: jax.vmap(Dropped(eqx.nn.Dropout())), TRAINING),
    "exported": (lambda: exported(export.symbolic_shape("b, 4, 4, 2")), r"models\.from_exported"),
    "exported for eight": (lambda: exported((8, 4, 4, 2)), "export it with jax.export.symbolic"),
    "numpy": (lambda: lambda x: np.asarray(x).reshape(len(x), -1) @ W, OUTSIDE),
    "a python if": (lambda: lambda x: flat(x if x.sum() > 0 else -x), OUTSIDE),
    "torch": (Torch, OUTSIDE),
    "one image": (lambda: lambda x: x.reshape(32) @ W, "give jax.vmap"),
    "one image in a network": (
        lambda: lambda x: jnp.einsum("hwc,hwck->k", x, W.reshape(4, 4, 2, 4)),
        "it takes one image, not a batch; give jax.vmap",
    ),
    "a list of images": (lambda: lambda x: [flat(a[None])[0] for a in x], "jnp.stack a list"),
    "numbers in a list": (lambda: lambda x: [a.sum() for a in x], "jnp.stack a list"),
    "nothing": (lambda: lambda x: None, r"it returned \[\]"),
    "text": (lambda: lambda x: "cat", "it leaves JAX"),
    "a class": (lambda: Net, "must be a function of a batch.*got the class Net"),
    "variables": (lambda: {"w": W}, "must be a function of a batch.*got dict"),
    "no arguments": (lambda: lambda: W, "takes 0 positional arguments"),
    "booleans": (lambda: lambda x: flat(x) > 0, "logits must be real numbers, got bool"),
    "classes": (lambda: lambda x: flat(x).argmax(-1), "returns classes .* the logits"),
    "a callback": (
        lambda: lambda x: jax.pure_callback(flat, jax.ShapeDtypeStruct((len(x), 4), "f4"), x),
        "vmap_method=",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_says_what_to_do(name):
    make, message = MODELS[name]
    with pytest.raises(ValueError, match=message) as error:
        check_model(make(), check_examples(IMAGES, LABELS), fooled)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 28, 28), (2, 3, 24, 32)])
def test_channels_first_are_refused(shape):
    images = np.full(shape, 0.5, np.float32)
    with pytest.raises(ValueError, match=r"channels first.*give images.transpose\(0, 2, 3, 1\)"):
        layout_of(images)
    assert layout_of(images.transpose(0, 2, 3, 1)).is_image


@pytest.mark.parametrize("shape", [(2, 1, 64, 12), (2, 3, 4, 4), (2, 1, 1, 64), (2, 4, 8, 8)])
def test_what_may_be_wide_and_low_is_not(shape):
    images = np.full(shape, 0.5, np.float32)
    np.testing.assert_array_equal(layout_of(images).pack(images), images)


def test_inside_jit_perturb_says_what_to_call():
    attack = FGSM(Linf(0.1))
    for run in (
        lambda x: perturb(attack, flat, KEY, x, LABELS),
        lambda w: perturb(attack, jax.tree_util.Partial(flat), KEY, IMAGES, LABELS) + w.sum(),
    ):
        with pytest.raises(ValueError, match=r"outside jax\.jit.*map the attack itself"):
            jax.jit(run)(IMAGES)


@pytest.mark.parametrize(
    "attack",
    [FGSM(Linf(0.1)), DeepFool(Linf(0.1)), Restarts(FGSM(Linf(0.1)), 2), AutoAttack(Linf(0.1))],
    ids=lambda attack: type(attack).__name__,
)
@pytest.mark.parametrize("model", [flat, lambda x: x.mean((1, 2)) @ W[:2]])
def test_an_attack_that_is_called_itself_takes_one_image(attack, model):
    x = jnp.asarray(IMAGES[0])
    with pytest.raises(ValueError, match=r"pass lambda x: logits_fn\(x\[None\]\)\[0\], or call"):
        jax.eval_shape(lambda x: attack(model, KEY, x, 0), x)
    with pytest.raises(ValueError, match=r"takes one image.*map it over a batch, jax\.vmap"):
        attack(model, KEY, jnp.asarray(IMAGES), LABELS)


def test_an_error_of_another_kind_stays_as_it_is():
    def broken(x):
        raise ValueError("out of order")

    with pytest.raises(ValueError, match="out of order"):
        FGSM(Linf(0.1))(broken, KEY, jnp.asarray(IMAGES[0]), 0)
