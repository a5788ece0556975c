"""A network of `jax.export` is attacked as the function that it was made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from robustjax.attacks import PGD, Square, perturb
from robustjax.evaluation import evaluate
from robustjax.models import from_exported
from robustjax.threats import Linf

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(5, 4, 4, 1)).astype(np.float32)
W = RNG.normal(size=(16, 3)).astype(np.float32)
LABELS = (IMAGES.reshape(5, -1) @ W).argmax(-1)
STEP = PGD(Linf(0.1), steps=1)
KEY = jax.random.key(0)


def network(x):
    return {"logits": x.reshape(x.shape[0], -1) @ W, "mean": x.mean((1, 2, 3))}


def exported(shape="b, 4, 4, 1", function=network):
    struct = jax.ShapeDtypeStruct(export.symbolic_shape(shape), np.float32)
    return export.export(jax.jit(function))(struct)


def test_attacks_see_the_network_that_was_exported():
    model = from_exported(exported())
    want = perturb(STEP, network, KEY, IMAGES, LABELS)
    for batch_size in (None, 3):
        found = perturb(STEP, model, KEY, IMAGES, LABELS, batch_size=batch_size)
        np.testing.assert_allclose(found, want, atol=1e-6)
    report = evaluate(model, IMAGES, LABELS, {"pgd": STEP}, KEY)
    assert report.warnings == [] and report.clean == 1


def test_gradients_of_what_is_not_mapped_are_summed():
    model, other = from_exported(exported()), np.float32(RNG.normal(size=(2, 3)))
    weigh = lambda f: lambda x: jax.vmap(lambda w: (f(x)["logits"] * w[None]).sum())(other).sum()  # noqa: E731
    x = jnp.asarray(IMAGES)
    want, found = (jax.jit(jax.grad(weigh(f)))(x) for f in (network, model))
    np.testing.assert_allclose(found, want, rtol=1e-5)


def test_what_is_no_function_of_any_number_of_images_is_refused():
    one = export.export(jax.jit(network))(jax.ShapeDtypeStruct(IMAGES.shape, np.float32))
    with pytest.raises(ValueError, match="exported for a batch of 5 images"):
        from_exported(one)
    with pytest.raises(ValueError, match=r"of images \(B, H, W, C\) alone"):
        from_exported(exported("b, 16", lambda x: x @ W))


def test_what_is_stored_has_a_gradient_if_it_was_stored_with_one():
    pytest.importorskip("flatbuffers", reason="jax.export needs it to serialise")
    stored = from_exported(export.deserialize(exported().serialize(vjp_order=1)))
    perturb(STEP, stored, KEY, IMAGES, LABELS)
    silent = from_exported(export.deserialize(exported().serialize()))
    perturb(Square(Linf(0.1), queries=2), silent, KEY, IMAGES, LABELS)
    with pytest.raises(ValueError, match="VJP"):
        perturb(STEP, silent, KEY, IMAGES, LABELS)
