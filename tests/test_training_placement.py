"""A run whose state is in parts is the run whose state is whole, and each device holds its part."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import data, files, models, parallel
from robustjax.training import PGDAT, Natural, Recipe, fit, step
from robustjax.training.placement import REPLICATED, SCATTERED

RECIPE = Recipe(
    epochs=2,
    batch_size=64,
    lr=0.05,
    ema=0.9,
    augment=data.Augment(pad=0, flip=False),
)
SHORT = dataclasses.replace(RECIPE, epochs=1)
MODEL = {"name": "cnn", "width": 4}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parallel.placement, "LEAST", 16)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train").head(192), data.load("digits", "validation").head(64)


def run(out, digits, **how):
    given = {"model": MODEL, "out": out, "recipe": RECIPE, "progress": False} | how
    return fit(given.pop("method", Natural()), *digits, **given)


def weights(out):
    return jax.tree.leaves(models.load_weights(out / "weights_last.npz"))


def check_same_weights(one, other):
    for ours, theirs in zip(weights(one), weights(other), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_scattered_run_is_the_replicated_one_and_resumes_as_either(digits, tmp_path):
    """A checkpoint holds whole arrays: a run may go on in parts, and back."""
    folders = tmp_path / "whole", tmp_path / "parts"
    whole, parts = (
        run(out, digits, shard_state=out.name == "parts", recipe=SHORT) for out in folders
    )
    check_same_weights(*folders)
    kernel = parts.state.params["body"]["kernel"]
    assert kernel.addressable_data(0).size * jax.device_count() == kernel.size
    everything = lambda state: [state.params, state.opt_state, state.ema]  # noqa: E731
    held = [a.addressable_data(0).size for a in jax.tree.leaves(everything(parts.state))]
    assert sum(held) < 0.4 * sum(a.size for a in jax.tree.leaves(everything(whole.state)))
    for out in folders:
        with pytest.warns(UserWarning, match="is extended"):
            run(out, digits, shard_state=out.name == "whole", resume=True)
    check_same_weights(*folders)
    losses = [
        [row["loss"] for row in files.read_metrics(out / "metrics.jsonl") if "loss" in row]
        for out in folders
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_a_step_gathers_each_weight_once(digits):
    """No pass of the attack gathers weights again."""
    train, devices = digits[0], jax.device_count()
    module, method = models.create("cnn", width=4, num_classes=10), PGDAT()
    key, about = jax.random.key(0), (train.images, train.labels, 10, devices)
    state = SCATTERED.put(step.create_state(module, method, RECIPE, key, *about))
    batch = {"image": train.images[:64], "label": train.labels[:64], "index": np.arange(64)}
    batch = parallel.place(parallel.split(batch, devices), 0)
    call = step.program(module, 3, 10, SCATTERED)
    compiled = call.lower(state, method, parallel.place(RECIPE, None), key, batch).compile()
    parts = compiled.as_text().split("\n\n")
    gathers = {part.strip().split()[0]: part.count("all-gather(") for part in parts if part.strip()}
    assert gathers.pop("ENTRY") and not sum(gathers.values())  # PGD's loop is another part


def test_where_a_state_is_put():
    tree = {"large": jnp.ones((6, 8)), "small": jnp.ones(3), "odd": jnp.ones((7, 5))}
    parts = parallel.scatter(tree, None)
    assert parts["large"].addressable_data(0).shape == (6, 2)
    for name in ("small", "odd"):
        assert parts[name].sharding.is_fully_replicated
    back = SCATTERED.whole(parts)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(back))
    assert REPLICATED.whole(tree) is tree
