"""The container and the architectures: shapes, parameter counts, stem and rest, precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import models
from robustjax.models import BN

# one small network of every family: (name, width, image shape)
FAMILIES = {
    "cnn": ("cnn", 2, (8, 8, 1)),
    "resnet-18": ("resnet-18", 2, (8, 8, 3)),
    "resnet": ("resnet-8", 2, (8, 8, 1)),
    "resnet-v2": ("resnet-v2-8", 2, (7, 7, 1)),
    "resnet-tf": ("resnet-tf-8", 2, (7, 7, 1)),
    "preact-resnet-18": ("preact-resnet-18", 2, (8, 8, 3)),
    "wrn": ("wrn-10-2", 2, (8, 8, 3)),
}


def build(family, **options):
    name, width, shape = FAMILIES[family]
    return models.create(name, num_classes=4, width=width, **options), shape


@pytest.fixture(scope="session", params=FAMILIES)
def network(request):
    """(model, variables, images): one compiled `init` a family."""
    model, shape = build(request.param, mean=(0.5,) * FAMILIES[request.param][2][-1])
    images = jax.random.uniform(jax.random.key(1), (3, *shape))
    return model, models.init(model, jax.random.key(0), shape), images


def test_rest_of_the_stem_output_is_the_network(network):
    model, variables, x = network

    @jax.jit
    def three(variables, x):
        h = model.apply(variables, x, BN("batch"), method="stem_output")
        z = model.apply(variables, x, BN("batch"), method="features")
        rest = model.apply(variables, h, BN("batch"), method="rest")
        return rest, model.apply(variables, x, BN("batch")), z

    rest, logits, features = three(variables, x)
    np.testing.assert_allclose(rest, logits, rtol=1e-6, atol=1e-6)
    assert logits.shape == (3, 4) and logits.dtype == jnp.float32
    assert features.ndim == 2 and features.dtype == jnp.float32
    head = variables["params"]["head"]
    np.testing.assert_allclose(features @ head["kernel"] + head["bias"][None], logits, atol=1e-5)


def test_every_parameter_matters(network):
    """No dead weights: each parameter array has a gradient."""
    model, variables, x = network

    @jax.jit
    def gradient(params):
        def loss(params):
            return jnp.sum(model.apply(variables | {"params": params}, x, BN("batch")) ** 2)

        return jax.grad(loss)(params)

    params = jax.tree.map(lambda p: p + 0.1, variables["params"])
    for path, g in jax.tree_util.tree_leaves_with_path(gradient(params)):
        assert jnp.abs(g).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet-20", 269_722),  # He et al. (2016), option A, by arithmetic
        ("resnet-110", 1_727_962),
        ("resnet-tf-32", 464_154),  # by arithmetic: see test_nets_resnet.py
        ("resnet-tf-56", 853_018),
        ("resnet-18", 11_173_962),
        ("preact-resnet-18", 11_172_170),
        ("wrn-28-10", 36_479_194),
        ("wrn-34-10", 46_160_474),  # without the dead block of a well-known port
    ],
)
def test_parameter_counts(name, count):
    model = models.create(name, num_classes=10)
    shapes = jax.eval_shape(lambda key: models.init(model, key, (32, 32, 3)), jax.random.key(0))
    assert sum(p.size for p in jax.tree.leaves(shapes["params"])) == count


@pytest.mark.parametrize(
    "name", ["cnn", "resnet-8", "resnet-v2-8", "resnet-tf-8", "preact-resnet-18", "wrn-10-1"]
)
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3)])
def test_every_network_takes_every_image_size(name, shape):
    model = models.create(name, num_classes=10)
    variables = jax.eval_shape(lambda key: models.init(model, key, shape), jax.random.key(0))
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    logits = jax.eval_shape(lambda v, x: model.apply(v, x, BN("running")), variables, images)
    assert logits.shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "standard_deviation", "bound"),
    [
        ("preact-resnet-18", 1 / np.sqrt(3 * 9 * 32), 1 / np.sqrt(9 * 32)),  # uniform, fan in
        ("wrn-10-1", np.sqrt(2 / (9 * 32)), np.inf),  # normal, fan out
    ],
)
def test_initial_kernels_have_their_standard_spread(name, standard_deviation, bound):
    body = models.create(name, num_classes=10, width=16).body
    kernel = body.kernel_init(jax.random.key(0), (3, 3, 32, 32), jnp.float32)
    np.testing.assert_allclose(kernel.std(), standard_deviation, rtol=0.02)
    assert jnp.abs(kernel).max() <= bound
    if bound == np.inf:
        assert jnp.abs(kernel).max() > 3 * standard_deviation  # not truncated


@pytest.fixture(scope="session")
def small():
    """A small residual network in float32, bfloat16 and with remat, its variables and images."""
    options = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    nets = {
        "float32": build("wrn", **options)[0],
        "bfloat16": build("wrn", dtype="bfloat16", **options)[0],
        "remat": build("wrn", remat=True, **options)[0],
    }
    shape = FAMILIES["wrn"][2]
    x = jax.random.uniform(jax.random.key(1), (4, *shape))
    return nets, models.init(nets["float32"], jax.random.key(0), shape), x


def value_and_gradient(model, variables, x):
    @jax.jit
    def both(params, x):
        def loss(params):
            out, new = model.apply(
                variables | {"params": params}, x, BN("commit"), mutable=["batch_stats"]
            )
            return jnp.sum(out**2), (out, new)

        return jax.value_and_grad(loss, has_aux=True)(params)

    return both(variables["params"], x)


def test_remat_changes_nothing_but_memory(small):
    nets, variables, x = small
    plain, remat = (value_and_gradient(nets[k], variables, x) for k in ("float32", "remat"))
    assert jax.tree.structure(plain) == jax.tree.structure(remat)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(remat), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * (1 + float(jnp.abs(a).max())))
    jaxpr = str(jax.make_jaxpr(lambda x: nets["remat"].apply(variables, x, BN("running")))(x))
    assert jaxpr.count("remat2[") == 3  # its blocks


def test_bfloat16_computes_in_bfloat16_and_answers_in_float32(small):
    nets, variables, x = small
    (_, (logits, stats)), gradient = value_and_gradient(nets["bfloat16"], variables, x)
    exact = jax.jit(lambda x: nets["float32"].apply(variables, x, BN("batch")))(x)
    assert {a.dtype for a in jax.tree.leaves((logits, stats, gradient))} == {jnp.dtype("float32")}
    difference = jnp.abs(logits - exact).max() / jnp.abs(exact).max()
    assert 1e-5 < difference < 0.1
    hidden = nets["bfloat16"].apply(variables, x, BN("running"), method="stem_output")
    assert hidden.dtype == jnp.bfloat16


def test_a_small_perturbation_survives_bfloat16(small):
    """A change of 1e-3 near one half is below bfloat16's step there, unless normalised first."""
    nets, variables, x = small
    x = jnp.full_like(x, 0.5)

    def stem(x):
        return nets["bfloat16"].apply(variables, x, BN("running"), method="stem_output")

    assert jnp.bfloat16(0.5 + 1e-3) == jnp.bfloat16(0.5)
    assert jnp.abs(stem(x + 1e-3) - stem(x)).max() > 0


def test_normalisation_is_inside():
    model, shape = build("resnet", mean=(0.1,), std=(0.25,))
    bare, _ = build("resnet")
    variables = models.init(model, jax.random.key(0), shape)
    x = jax.random.uniform(jax.random.key(1), (2, *shape))
    by_hand = (x - 0.1) / 0.25
    ours = model.apply(variables, x, BN("running"), method="stem_output")
    theirs = bare.apply(variables, by_hand.astype(jnp.float32), BN("running"), method="stem_output")
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_bn_modes_reach_every_layer(small):
    nets, variables, x = small
    before = variables["batch_stats"]
    for mode, changes in (("running", False), ("batch", False), ("commit", True)):
        run = functools.partial(nets["float32"].apply, bn=BN(mode), mutable=["batch_stats"])
        _, new = jax.jit(run)(variables, x)
        for a, b in zip(*map(jax.tree.leaves, (before, new["batch_stats"])), strict=True):
            assert bool((a == b).all()) is not changes


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), "must be float32"),
        (np.zeros((8, 8, 3), np.float32), "must be float32 .*8, 8, 3"),
        (np.zeros((2, 8, 8, 1), np.float32), "mean has 3 values for images of 1 channels"),
    ],
)
def test_images_of_the_wrong_kind_are_refused(small, images, message):
    nets, variables, _ = small
    with pytest.raises(ValueError, match=message):
        nets["float32"].apply(variables, images, BN("running"))


def test_dropout_before_the_head_hangs_on_the_keys_alone():
    plain, shape = build("cnn")
    model, _ = build("cnn", dropout=0.25)
    variables = models.init(model, jax.random.key(0), shape)
    x, keys = (
        jax.random.uniform(jax.random.key(1), (3, *shape)),
        jax.random.split(jax.random.key(2), 3),
    )

    @jax.jit
    def run(x, keys):
        z, logits = model.apply(variables, x, BN("batch"), keys, method="both")
        seen = jax.vmap(lambda key, z: model.apply({}, key, z, method="drop"))(keys, z)
        by_hand = model.apply(variables, seen, method="answer")
        return z, seen, by_hand, logits, model.apply(variables, x, BN("batch"), keys)

    z, seen, by_hand, logits, called = run(x, keys)
    for found in (logits, called):
        np.testing.assert_allclose(found, by_hand, rtol=1e-6)
    np.testing.assert_allclose(seen[seen != 0], (z / 0.75)[seen != 0], rtol=1e-6)
    dropped = np.mean(seen[z != 0] == 0)
    assert 0.1 < dropped < 0.4 and len({tuple(row) for row in np.asarray(seen == 0).tolist()}) == 3
    np.testing.assert_array_equal(run(x[::-1], keys[::-1])[3], logits[::-1])
    without = jax.jit(
        lambda x: (plain.apply(variables, x, BN("batch")), model.apply(variables, x, BN("batch")))
    )
    np.testing.assert_array_equal(*without(x))


def test_a_dropout_of_zero_is_no_layer():
    model, shape = build("cnn", dropout=0.0)
    x, key = jnp.zeros((2, *shape)), jax.random.key(0)
    variables = models.init(model, jax.random.key(0), shape)

    def program(*keys):
        return str(jax.make_jaxpr(lambda v, x: model.apply(v, x, BN("batch"), *keys))(variables, x))

    assert program(key) == program()
    half, _ = build("cnn", dropout=0.5)
    both = (jax.tree.structure(models.init(m, key, shape)) for m in (model, half))
    assert len(set(both)) == 1


@pytest.mark.parametrize(
    ("method", "missing"), [("taught", "no teacher"), ("trust", "no auxiliary head")]
)
def test_a_part_that_the_network_does_not_have_is_named(method, missing):
    model = models.create("cnn", num_classes=3, width=2)
    with pytest.raises(ValueError, match=missing):
        model.apply({"params": {}}, jnp.zeros((1, 8, 8, 1)), BN(), method=method)
