"""Every architecture: parameter counts, logits of a transcription in PyTorch, and the contract."""

import pathlib
import re

import architectures
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architectures import CLASSES, SHAPE, SMALL, build
from jax.interpreters import partial_eval

from robustjax import models
from robustjax.models import BN

GOLDEN = pathlib.Path(__file__).parent / "golden" / "architectures.npz"

# at 10 classes and 32x32: pytorch-cifar's, and the transcription's in torch_architectures.py
COUNTS = {
    "preact-resnet-50": 23_513_162,  # pytorch-cifar has no last BN: 4,096 fewer
    "senet-18": 11_260_354,
    "vgg-11": 9_231_114,
    "vgg-19": 20_040_522,
    "googlenet": 6_166_250,
    "densenet-121": 6_956_298,
    "resnext-29-2x64": 9_128_778,
    "resnext-29-32x4": 4_774_218,
    "regnetx-200mf": 2_321_946,
    "regnetx-400mf": 4_779_338,
    "regnety-400mf": 5_714_362,
    "dpn-26": 11_574_842,
    "mobilenet-v2": 2_296_922,
    "efficientnet-b0": 3_598_598,  # pytorch-cifar has a convolution more that it does not call
    "shufflenet-v2": 1_263_854,
    "vit-ti-4": 5_362_762,
    "vit-s-4": 21_342_346,
    "vit-b-4": 85_152_010,
}


def shapes(model, image_shape):
    return jax.eval_shape(
        lambda key: model.init(key, jnp.zeros((1, *image_shape)), BN("running")),
        jax.random.key(0),
    )


def parameters(name, image_shape=(32, 32, 3), classes=10):
    model = models.create(name, num_classes=classes)
    return sum(p.size for p in jax.tree.leaves(shapes(model, image_shape)["params"]))


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
    assert parameters(name) == COUNTS[name]


def test_parameter_counts_of_vit_on_imagenet():
    """Those of the implementation that everybody downloads, timm: patches of 16, 1,000 classes."""
    found = [parameters(f"vit-{size}-16", (224, 224, 3), 1000) for size in ("ti", "s", "b")]
    assert found == [5_717_416, 22_050_664, 86_567_656]


def test_parameter_counts_of_the_transcription():
    pytest.importorskip("torch")
    import torch_architectures

    assert {name: torch_architectures.count(name) for name in COUNTS} == COUNTS


@pytest.fixture(scope="module", params=SMALL)
def network(request):
    """(name, model, variables), of the same layers as the transcription's."""
    model = build(request.param)
    return request.param, model, architectures.drawn(model)


def test_logits_are_those_of_the_transcription(network):
    name, model, variables = network
    with np.load(GOLDEN) as file:
        theirs = file[name]
    ours = jax.jit(models.apply(model, variables)[0])(architectures.images())
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-6 * np.abs(theirs).max())
    assert np.abs(theirs[0] - theirs[1]).max() > 1e-5 * np.abs(theirs).max()


def test_the_golden_logits_are_what_the_transcription_gives():
    pytest.importorskip("torch")
    import torch_architectures

    with np.load(GOLDEN) as file:
        assert set(file) == set(SMALL)
        for name, logits in file.items():
            found = torch_architectures.logits(name)
            np.testing.assert_allclose(found, logits, atol=2e-5 * np.abs(logits).max())


def traced(model, variables, mode):
    """(variables, images) -> (logits, statistics) as a jaxpr, without running anything."""
    images = jnp.zeros((2, *SHAPE))

    def forward(variables):
        return model.apply(variables, images, BN(mode), mutable=["batch_stats"])

    return jax.make_jaxpr(forward)(variables).jaxpr


def test_every_parameter_is_used_and_modes_reach_every_statistic(network):
    name, model, variables = network
    assert ("batch_stats" in variables) is not name.startswith("vit")
    statistics = len(jax.tree.leaves(variables.get("batch_stats", {})))
    for mode in ("batch", "commit"):
        jaxpr = traced(model, variables, mode)
        assert len(jaxpr.outvars) == 1 + statistics
        assert all((var in jaxpr.invars) is (mode == "batch") for var in jaxpr.outvars[1:])
    used = partial_eval.dce_jaxpr(jaxpr, [True] + [False] * statistics)[1]
    for (path, _), alive in zip(jax.tree.leaves_with_path(variables), used, strict=True):
        assert alive is (path[0].key == "params"), jax.tree_util.keystr(path)


def test_remat_the_activation_and_the_dtype_reach_every_layer(network):
    name, plain, variables = network
    options = {"remat": True, "activation": "tanh", "dtype": "bfloat16"}
    model = build(name, **options)
    assert model == build(name, **options) != plain
    jaxpr = traced(model, variables, "running")
    text = str(jaxpr)
    blocks = sum(key.startswith("stage") for key in variables["params"]["body"])
    pools = {"vgg-11": 5, "googlenet": 2}.get(name, 0)  # blocks without parameters
    assert text.count("remat2[") == blocks + pools
    assert " tanh " in text and not re.search(r"name=(relu|silu|gelu)| erf ", text)
    convolutions = re.findall(r":(\w+)\[[\d,]*\] = conv_general_dilated", text)
    assert set(convolutions) == (set() if name.startswith("vit") else {"bf16"})
    assert jaxpr.outvars[0].aval.str_short() == f"float32[2,{CLASSES}]"


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"vit-s-4"}))
def test_convolutional_networks_take_every_image_size(name):
    model, images = build(name), jnp.zeros((2, 7, 9, 1))
    logits, _ = jax.eval_shape(
        lambda key: model.init_with_output(key, images, BN("running")), jax.random.key(0)
    )
    assert logits.shape == (2, CLASSES)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("vgg-11", [(16, 16, 2), (8, 8, 4), (4, 4, 8), (4, 4, 8), (2, 2, 16), (2, 2, 16)]),
        ("resnext-29-3x2", [(16, 16, 4), *[(16, 16, 12)] * 2, *[(8, 8, 24)] * 2]),
        ("vit-s-4", [(16, 128), (17, 128), (17, 128)]),
    ],
)
def test_layers_are_the_stem_and_the_blocks(name, layers):
    model = build(name)
    watched = models.activations(model, shapes(model, SHAPE))
    output = jax.eval_shape(lambda f, x: f(x), watched, jnp.zeros((2, *SHAPE)))
    found = [leaf.shape[1:] for leaf in output["features"]]
    assert found[: len(layers)] == layers
    assert len(found[-1]) == 1 and output["logits"].shape == (2, CLASSES)


@pytest.mark.parametrize(
    ("name", "width", "message"),
    [
        ("vgg-12", None, "VGG: 12; the depths are 11, 13, 16, 19"),
        ("densenet-161", None, "DenseNet: 161; the depths are 121, 169, 201"),
        ("densenet-121", 3, "a DenseNet .* must be even, not 3"),
        ("dpn-68", None, "DPN: 68; the depths are 26, 92"),
        ("dpn-26", 48, "multiple of 32 .*, not 48"),
        ("regnetx-200mf", 8, "multiple of 3, not 8"),
        ("regnetx-800mf", None, "unknown model"),
        ("resnext-29-0x64", None, "at least 1x1, not 0x64"),
        ("shufflenet-v2", 7, "must be even, not 7"),
        ("vit-s-0", None, "at least 1 pixel, got 0"),
        ("vit-s-4", 100, "a multiple of 64 .*, not 100"),
        ("vit-l-4", None, "unknown model"),
    ],
)
def test_what_cannot_be_built_is_refused(name, width, message):
    with pytest.raises(ValueError, match=message):
        models.create(name, num_classes=10, width=width)


def test_images_that_patches_do_not_fill_are_refused():
    with pytest.raises(ValueError, match="30x32 pixels cannot be divided into patches of 4x4"):
        shapes(build("vit-s-4"), (30, 32, 3))


def test_patches_are_squares_of_pixels():
    """A pixel moves the token of its own square only."""
    stem = build("vit-s-4").stem
    x = jnp.zeros((1, 8, 12, 1))
    params = stem.init(jax.random.key(0), x)
    moved = jnp.any(stem.apply(params, x.at[0, 5, 9].set(1.0)) != stem.apply(params, x), -1)
    np.testing.assert_array_equal(moved[0], [False] * 5 + [True])


def test_transformers_start_in_a_normal():
    layer = build("vit-s-4").body.stages[0][0]
    init = jax.jit(layer.init, static_argnums=2)
    params = init(jax.random.key(0), jnp.zeros((1, 2, 128)), BN())["params"]
    np.testing.assert_allclose(params["mlp1"]["kernel"].std(), 0.02, rtol=0.02)
