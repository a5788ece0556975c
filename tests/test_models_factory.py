"""Networks by name, and the functions bound to their weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from robustjax import models
from robustjax.models import BN
from robustjax.models.architectures import ARCHITECTURES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "alexnet"}, "unknown model 'alexnet'; known: cnn, resnet-18, resnet-DEPTH"),
        (
            {"name": "PreActResNet18"},
            "'PreActResNet18'; did you mean preact-resnet-18\\? known: cnn",
        ),
        ({"name": "resnet-34"}, "be 6n \\+ 2 .* not 34"),
        ({"name": "preact-resnet-34"}, "unknown model"),
        ({"name": "resnet-v2-2"}, "be 6n \\+ 2"),
        ({"name": "wrn-28"}, "unknown model"),
        ({"name": "wrn-29-10"}, "d = 6n \\+ 4 .* not 29-10"),
        ({"name": "wrn-28-0"}, "k >= 1"),
        ({"activation": "swish"}, "unknown activation 'swish'; choose one of relu"),
        ({"dtype": "float16"}, "unknown dtype 'float16'; choose one of float32, bfloat16"),
        ({"head": "arcs"}, "unknown head 'arcs'; choose one of linear"),
        ({"std": (0.2, 0.0, 0.2)}, "std must be positive"),
        ({"width": 0}, "width must lie in"),
        ({"adaptive_norm": True}, "cnn does not support adaptive_norm"),
        ({"teacher": "resnet"}, "unknown model 'resnet'"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"num_classes": 1}, "num_classes must lie in"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        models.create(**{"name": "cnn", "num_classes": 10} | options)


@pytest.mark.parametrize(
    ("name", "spelling"),
    [
        ("preact-resnet-18", "preact_resnet18"),
        ("preact-resnet-18", "PreAct-ResNet-18"),
        ("wrn-10-2", "WRN-10-2"),
        ("resnet-8", "resnet8"),
        ("resnext-29-2x64", "resnext_29_2x64"),
        ("regnetx-200mf", "RegNetX-200MF"),
    ],
)
def test_names_are_spelled_as_people_do(name, spelling):
    settings = {"num_classes": 3, "width": 12}
    assert models.create(spelling, **settings) == models.create(name, **settings)


def test_names_lists_what_create_knows():
    assert models.names()[0] == "cnn" and len(ARCHITECTURES) == 23


@pytest.mark.parametrize("name", ["cnn", "resnet-8", "wrn-10-1"])
def test_the_activation_replaces_every_one(name):
    """With a linear-ish replacement in all places the network has no kink: relu's program has."""
    x = jnp.zeros((1, 8, 8, 1))
    programs = {}
    for act in ("relu", "tanh"):
        model = models.create(name, num_classes=3, width=2, activation=act)
        variables = models.init(model, jax.random.key(0), (8, 8, 1))
        programs[act] = str(
            jax.make_jaxpr(lambda v, m=model: m.apply(v, x, BN("running")))(variables)
        )
    assert "relu" in programs["relu"] and "tanh" not in programs["relu"]
    assert "relu" not in programs["tanh"] and "tanh" in programs["tanh"]


def test_networks_without_batch_norm_have_no_statistics():
    model = models.create("cnn", num_classes=3, width=2)
    assert set(models.init(model, jax.random.key(0), (8, 8, 1))) == {"params"}


def test_bound_functions_are_the_networks_with_running_statistics():
    model = models.create("resnet-8", num_classes=3, width=2)
    variables = models.init(model, jax.random.key(0), (8, 8, 1))
    x = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1))
    logits_fn, features_fn = models.apply(model, variables)
    found = jax.jit(lambda x: (features_fn(x), logits_fn(x)))(x)
    wanted = jax.jit(lambda x: model.apply(variables, x, BN("running"), method="both"))(x)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_new_weights_and_equal_models_compile_once():
    traces = []

    @jax.jit
    def call(f, x):
        traces.append(1)
        return f(x)

    for seed in (0, 1):
        model = models.create("cnn", num_classes=3, width=2, mean=[0.5], std=[0.2])
        variables = models.init(model, jax.random.key(seed), (8, 8, 1))
        call(models.apply(model, variables)[0], jnp.zeros((2, 8, 8, 1)))
    assert len(traces) == 1
    logits_fn, _ = models.apply(model, variables)
    assert len(jax.tree.leaves(logits_fn)) == len(jax.tree.leaves(variables))


def test_adaptive_norms_are_everywhere_and_change_no_logit_at_first():
    x = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1))
    plain, adaptive = (
        models.create("resnet-8", num_classes=3, width=2, adaptive_norm=on) for on in (False, True)
    )
    variables = models.init(adaptive, jax.random.key(0), (8, 8, 1))
    flat = traverse_util.flatten_dict(variables)
    assert sum(path[-2:] == ("last", "kernel") for path in flat) == 7  # 1 + 3 blocks of 2
    own = {(*path[:-2], path[-1]): a for path, a in flat.items() if path[-2] == "norm"}
    own |= {path: a for path, a in flat.items() if path[-2] not in ("norm", "hidden", "last")}
    logits = jax.jit(models.apply(plain, traverse_util.unflatten_dict(own))[0])(x)
    np.testing.assert_array_equal(jax.jit(models.apply(adaptive, variables)[0])(x), logits)


def test_a_teacher_is_beside_the_network_and_changes_no_logit():
    options = {"num_classes": 3, "width": 2, "mean": (0.5,)}
    alone, taught = (models.create("cnn", **options, teacher=t) for t in (None, "resnet-8"))
    variables = models.init(taught, jax.random.key(0), (8, 8, 1))
    teacher = {name: tree["teacher"] for name, tree in variables.items()}
    x = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1))
    logits = taught.apply(variables, x, BN(), method="taught")
    other = models.create("resnet-8", num_classes=3, mean=(0.5,))
    np.testing.assert_array_equal(logits, other.apply(teacher, x, BN()))
    own = {name: w for name, w in variables["params"].items() if name != "teacher"}
    np.testing.assert_array_equal(
        taught.apply(variables, x, BN()), alone.apply({"params": own}, x, BN())
    )
