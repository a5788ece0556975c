"""The layers of every kind of network: in their order, with the logits of `apply`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from robustjax.detection import Mahalanobis, scores
from robustjax.models import activations, apply, create, init, with_dropout, with_layers

IMAGES = np.random.default_rng(0).random((6, 8, 8, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "options", "shapes"),
    [
        ("cnn", {}, [(4, 4, 2), (2, 2, 4), (32,)]),
        ("resnet-8", {}, [(8, 8, 2), (8, 8, 2), (4, 4, 4), (2, 2, 8), (8,)]),
        ("wrn-10-1", {"remat": True}, [(8, 8, 2), (8, 8, 2), (4, 4, 4), (2, 2, 8), (8,)]),
        (
            "cnn",
            {"head": "max-mahalanobis", "feature_dim": 5},
            [(4, 4, 2), (2, 2, 4), (5,)],
        ),
    ],
)
def test_layers_are_in_order_and_end_in_the_features(name, options, shapes):
    model = create(name, num_classes=3, width=2, **options)
    variables = init(model, jax.random.key(0), IMAGES.shape[1:])
    watched = activations(model, variables)
    logits_fn, features_fn = apply(model, variables)
    output = jax.jit(watched)(IMAGES)
    assert [a.shape for a in output["features"]] == [(6, *shape) for shape in shapes]
    np.testing.assert_allclose(output["logits"], jax.jit(logits_fn)(IMAGES), atol=1e-5)
    np.testing.assert_allclose(output["features"][-1], jax.jit(features_fn)(IMAGES), atol=1e-5)
    assert len(jax.tree.leaves(watched)) == len(jax.tree.leaves(variables))
    same = jax.jit(with_layers(logits_fn))(IMAGES)
    jax.tree.map(np.testing.assert_array_equal, same, output)


def test_blocks_are_sorted_by_number():
    model = create("resnet-8", num_classes=3, width=1)
    many = model.clone(body=model.body.clone(widths=(1,), blocks=(11,)))
    variables = init(many, jax.random.key(0), IMAGES.shape[1:])
    layers = jax.eval_shape(activations(many, variables), IMAGES)["features"]
    assert len(layers) == 1 + 11 + 1
    changed = jax.tree.map(lambda a: a, variables)
    changed["params"]["body"]["stage1_block10"]["conv1"]["kernel"] *= 2
    before, after = (
        jax.jit(activations(many, v))(IMAGES)["features"] for v in (variables, changed)
    )
    same = [bool((a == b).all()) for a, b in zip(before, after, strict=True)]
    assert same == [True] * 10 + [False] * 3  # the stem and nine blocks


def test_a_detector_of_every_layer():
    model = create("cnn", num_classes=2, width=2)
    watched = activations(model, init(model, jax.random.key(0), IMAGES.shape[1:]))
    fitted = Mahalanobis().fit(watched, IMAGES, np.arange(6) % 2)
    assert len(fitted.learned) == 3 and np.isfinite(scores(fitted, IMAGES)).all()


def test_an_auxiliary_head_is_beside_the_network_and_changes_nothing_of_it():
    model = create("cnn", num_classes=3, width=2, auxiliary=True)
    variables = init(model, jax.random.key(0), IMAGES.shape[1:])
    plain = model.clone(auxiliary=None)
    alone = init(plain, jax.random.key(0), IMAGES.shape[1:])
    for part in ("stem", "body", "head"):
        jax.tree.map(
            np.testing.assert_array_equal, variables["params"][part], alone["params"][part]
        )
    head, old = variables["params"]["auxiliary"], variables["batch_stats"]["auxiliary"]["norm"]
    old |= {"mean": old["mean"] + 0.1, "var": old["var"] * 2}
    output, without = jax.jit(activations(model, variables))(IMAGES), activations(plain, alone)
    assert "auxiliary" not in jax.eval_shape(without, IMAGES)
    np.testing.assert_array_equal(output["logits"], jax.jit(without)(IMAGES)["logits"])
    hidden = output["features"][-1] @ head["hidden"]["kernel"] + head["hidden"]["bias"][None]
    assert hidden.shape == (6, 16)
    hidden = np.maximum((hidden - old["mean"][None]) / np.sqrt(old["var"] + 1e-5)[None], 0)
    wanted = hidden @ head["last"]["kernel"][:, 0] + head["last"]["bias"]
    np.testing.assert_allclose(output["auxiliary"], wanted, atol=1e-5)


def test_a_network_with_its_dropout_left_on():
    model = create("cnn", num_classes=3, width=2, dropout=0.3)
    logits_fn, _ = apply(model, init(model, jax.random.key(0), IMAGES.shape[1:]))
    drawing, keys = jax.jit(with_dropout(logits_fn)), jax.random.split(jax.random.key(1), 2000)
    one, same, other = (drawing(key, IMAGES) for key in keys[np.array([0, 0, 1])])
    np.testing.assert_array_equal(one["drawn"], same["drawn"])
    assert (one["drawn"] != other["drawn"]).all()
    for output in (one, other):
        np.testing.assert_allclose(output["logits"], jax.jit(logits_fn)(IMAGES), atol=1e-5)
    alike = drawing(keys[0], IMAGES[np.zeros(3, int)])["drawn"]
    np.testing.assert_array_equal(alike, alike[:1].repeat(3, 0))
    drawn = jax.jit(jax.vmap(drawing, (0, None)))(keys, IMAGES)["drawn"]
    error = drawn.std(0) / np.sqrt(len(keys))
    assert (np.abs(drawn.mean(0) - one["logits"]) < 5 * error).all()
    with pytest.raises(ValueError, match="no dropout to leave on"):
        with_dropout(apply(model.clone(dropout=0.0), logits_fn.args[0])[0])


@pytest.mark.parametrize("view", [with_layers, with_dropout])
def test_only_networks_of_ours_can_be_looked_into(view):
    with pytest.raises(ValueError, match=r"must come from models.apply.*models\.load"):
        view(Partial(jnp.dot, jnp.eye(2)))
