"""TensorFlow's CIFAR ResNet against a transcription of its definition, and its initial weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from robustjax import models
from robustjax.models import BN

SHAPE = (8, 8, 3)


@pytest.fixture(scope="module")
def network():
    """(model, variables): resnet-tf-14 with statistics and scales unlike those it starts from."""
    model = models.create("resnet-tf-14", num_classes=5, width=4, mean=(0.5,) * 3, std=(1.0,) * 3)
    variables = models.init(model, jax.random.key(0), SHAPE)
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.default_rng(0)
    leaves = [
        jnp.asarray(rng.uniform(0.002, 1.5, a.shape), jnp.float32) if a.ndim == 1 else a
        for a in leaves
    ]
    return model, jax.tree.unflatten(tree, leaves)


def transcription(variables, x):
    """-> (features, logits)."""
    params, stats = variables["params"]["body"], variables["batch_stats"]["body"]

    def activated_norm(h, *path):
        p, s = params, stats
        for name in path:
            p, s = p[name], s[name]
        scale, bias, mean, var = (
            a.reshape(1, 1, 1, -1) for a in (p["scale"], p["bias"], s["mean"], s["var"])
        )
        h = (h - mean) / jnp.sqrt(var + 1e-3) * scale + bias
        return jnp.where(h < 0, 0.1 * h, h)

    def conv(h, kernel, stride=1):
        form = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            h, kernel, (stride,) * 2, ((1, 1), (1, 1)), dimension_numbers=form
        )

    h = conv(x - 0.5, variables["params"]["stem"]["kernel"])
    for stage, width in enumerate((4, 8, 16)):
        for unit in range(2):
            name = f"stage{stage + 1}_block{unit + 1}"
            stride = 2 if stage and not unit else 1
            shortcut, h = h, activated_norm(h, name, "norm1")
            if stage == unit == 0:
                shortcut = h
            h = conv(h, params[name]["conv1"]["kernel"], stride)
            h = conv(activated_norm(h, name, "norm2"), params[name]["conv2"]["kernel"])
            b, height, wide, c = shortcut.shape
            squares = shortcut.reshape(b, height // stride, stride, wide // stride, stride, c)
            side = jnp.zeros((b, height // stride, wide // stride, (width - c) // 2))
            h = h + jnp.concatenate([side, squares.mean((2, 4)), side], -1)
    features = activated_norm(h, "norm").mean((1, 2))
    head = variables["params"]["head"]
    return features, features @ head["kernel"] + head["bias"][None]


def test_it_computes_what_its_definition_says(network):
    model, variables = network
    x = jax.random.uniform(jax.random.key(1), (3, *SHAPE))
    found = jax.jit(lambda x: model.apply(variables, x, BN("running"), method="both"))(x)
    for ours, theirs in zip(found, jax.jit(transcription)(variables, x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4 * float(abs(theirs).max()))
    assert (found[0] < 0).any()  # the mean of leaky activations


def test_its_shortcuts_have_no_parameters_and_the_rest_add_up(network):
    """Convolutions, two BN a block of its input's and its own width, the last BN, the last layer.

    At width 16 the same sum makes the counts of resnet-tf-32 and -56 in test_models_classifier.py.
    """

    def count(width, blocks, classes):
        stem, sizes = 27 * width, []
        for out in (width, 2 * width, 4 * width):
            of = max(width, out // 2)
            sizes.append(9 * of * out + 9 * out * out + 2 * of + 2 * out)
            sizes += (blocks - 1) * [2 * 9 * out * out + 4 * out]
        return stem + sum(sizes) + 8 * width + 4 * width * classes + classes

    _, variables = network
    assert sum(a.size for a in jax.tree.leaves(variables["params"])) == count(4, 2, 5)
    assert (count(16, 5, 10), count(16, 9, 10)) == (464_154, 853_018)


def test_its_last_layer_starts_at_unit_scale_and_only_its():
    """Uniform in +-sqrt(3 / D), where PyTorch's is in +-sqrt(1 / D)."""
    z, key = jnp.zeros((1, 64)), jax.random.key(0)
    for name, bound in (("resnet-tf-8", np.sqrt(3 / 64)), ("resnet-v2-8", np.sqrt(1 / 64))):
        model = models.create(name, num_classes=100)
        assert model.body.activation == ("leaky_relu" if bound > 0.2 else "relu")
        kernel = model.head.init(key, z)["params"]["kernel"]
        assert 0.99 * bound < float(jnp.abs(kernel).max()) <= bound
        np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.02)


def test_the_activation_can_still_be_chosen():
    assert models.create("resnet-tf-8", num_classes=3, activation="gelu").body.activation == "gelu"
