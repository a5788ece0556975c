"""Small networks of every architecture with weights that PyTorch and we draw alike, by formula."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from robustjax import models
from robustjax.models import BN
from robustjax.models.heads import LinearHead
from robustjax.models.nets.layers import BatchNorm, Conv
from robustjax.models.nets.residual import Residual

CLASSES, SHAPE = 5, (16, 16, 3)
SMALL = {
    "preact-resnet-50": 4,
    "senet-18": 16,
    "vgg-11": 2,
    "googlenet": 24,
    "densenet-121": 4,
    "resnext-29-3x2": 4,
    "regnetx-200mf": 6,
    "regnety-400mf": 4,
    "dpn-26": 32,
    "mobilenet-v2": 4,
    "efficientnet-b0": 4,
    "shufflenet-v2": 8,
    "vit-s-4": 128,
}
"""A width of each at which it is quick."""
LEAVES = ("kernel", "bias", "scale", "mean", "var", "class_token", "positions")


def thin(model):
    """At most two blocks of every stage, and the pooling or transition that ends it."""
    body = model.body
    if isinstance(body, Residual):
        return model.clone(body=body.clone(blocks=(1,) * len(body.blocks)))
    stages = []
    for stage in body.stages:
        blocks = [block for block in stage if type(block) is type(stage[0])]
        stages.append((*blocks[:2], *(block for block in stage if block not in blocks)))
    return model.clone(body=body.clone(stages=tuple(stages)))


def build(name, **options):
    return thin(models.create(name, num_classes=CLASSES, width=SMALL[name], **options))


def draw(call, leaf, shape):
    """An array of the layer that is called as number `call`, kernels in our layout."""
    rng = np.random.default_rng([call, LEAVES.index(leaf)])
    if leaf == "kernel":
        return rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape).astype(np.float32)
    if leaf in ("scale", "var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return rng.normal(0, 0.3, shape).astype(np.float32)


def drawn(model):
    """Variables by `draw`: the layers are numbered in the order of their calls."""
    calls = []

    def watch(call, args, kwargs, context):
        if isinstance(context.module, Conv | BatchNorm | LinearHead | nn.Dense | nn.LayerNorm):
            calls.append(context.module.path)
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        shapes = jax.eval_shape(
            lambda key: model.init(key, jnp.zeros((1, *SHAPE)), BN("running")), jax.random.key(0)
        )
    flat = {
        path: draw(calls.index(path[1:-1]) if path[1:-1] in calls else 0, path[-1], leaf.shape)
        for path, leaf in traverse_util.flatten_dict(shapes).items()
    }
    return traverse_util.unflatten_dict(flat)


def images():
    """Two coarse ones, unlike each other."""
    coarse = np.random.default_rng(0).random((2, 4, 4, 3), np.float32)
    return coarse.repeat(4, 1).repeat(4, 2)
