"""Many steps a call are the single steps, wherever the examples live."""

import itertools
import types

import jax
import numpy as np
import pytest
import tiny
from flax import linen as nn

from robustjax import data, models, parallel
from robustjax.training import Natural, averages, spans
from robustjax.training.placement import REPLICATED
from robustjax.training.step import create_state

SIZE = 3 * tiny.SIZE


def dataset(name, soft=False):
    """Three steps an epoch."""
    image, label = (np.tile(tiny.examples()[kind], (3, *more)) for kind, more in KINDS.items())
    targets = np.full((SIZE, tiny.CLASSES), 0.25, np.float32) if soft else None
    return data.Dataset(image, label, np.arange(SIZE), name, "train", tiny.CLASSES, targets=targets)


KINDS = {"image": (1, 1, 1), "label": ()}


PLAN = data.Plan(dataset("train"), tiny.SIZE, 3, dataset("extra", soft=True), 0.25)


def run(cuts, where):
    """The state after six steps, two epochs, and the losses."""
    state = REPLICATED.put(
        create_state(
            tiny.module(),
            Natural(),
            tiny.RECIPE,
            jax.random.key(0),
            PLAN.train.images,
            PLAN.train.labels,
            tiny.CLASSES,
            jax.device_count(),
        )
    )
    losses = []
    how = tiny.RECIPE, PLAN, jax.random.key(1), 6, where
    with spans.spans(tiny.module(), state, *how) as span:
        for first, last in itertools.pairwise(cuts):
            state, metrics = span(state, Natural(), first, last)
            assert len(metrics["loss"]) == last - first
            losses += list(metrics["loss"])
    return parallel.gather(losses), jax.tree.map(parallel.gather, state)


def test_bits_do_not_depend_on_cuts_nor_numbers_on_where_examples_live():
    losses, state = run([0, 3, 6], "replicated")
    assert int(state.step) == 6
    again, other = run([0, 1, 3, 4, 5, 6], "replicated")
    np.testing.assert_array_equal(losses, again)
    for ours, theirs in zip(*map(jax.tree.leaves, (state, other)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for where in ("sharded", "streamed"):  # another program may round otherwise
        again, other = run([0, 2, 3, 6], where)
        np.testing.assert_allclose(losses, again, atol=1e-5, err_msg=where)
        for ours, theirs in zip(*map(jax.tree.leaves, (state, other)), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=where)


class Conv(nn.Module):
    grouped: bool

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3))(x)
        groups = 4 if self.grouped else 1
        return nn.Dense(4)(nn.Conv(4, (3, 3), feature_group_count=groups)(x).mean((1, 2)))


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(x.mean((1, 2)))


@pytest.mark.parametrize(
    ("network", "slow"),
    [(Conv(True), True), (Conv(False), False), (Dense(), False), ("cnn", False)],
)
def test_convolutions_with_groups_are_slow_in_a_loop_on_a_cpu(network, slow):
    network = {"name": network, "width": 2} if isinstance(network, str) else network
    network = models.network(network, 4)
    shape = PLAN.train.image_shape
    variables = jax.eval_shape(lambda key: models.init(network, key, shape), jax.random.key(0))
    about = network, variables, PLAN, 1e9
    cpu, gpu = tuple(jax.devices()), (types.SimpleNamespace(platform="gpu"),)
    assert spans.residence(*about, cpu) == ("streamed" if slow else "replicated")
    assert spans.residence(*about, gpu) == "replicated"


def test_the_pace_follows_the_clock(monkeypatch):
    now = iter([0.0, 8.0, 8.0, 8.0625, 9.0, 9.25, 10.0, 12.0])
    monkeypatch.setattr(spans.time, "monotonic", lambda: next(now))
    pace, found = spans.Pace(), []
    for _ in range(4):
        pace.begin()
        pace.end(pace.steps)
        found.append(pace.steps)
    assert found == [1, 8, 16, 4]  # a compilation, 8 a half second, 16, 4


@pytest.mark.parametrize("every", [1, 3, 5])
def test_rows_do_not_depend_on_spans(every):
    losses = np.random.default_rng(0).normal(size=14).astype(np.float32)

    def rows(cuts):
        found = []
        mean = averages.Averages(every, lambda step, row: found.append((step, row["loss"])))
        for first, last in itertools.pairwise(cuts):
            mean.add(first, {"loss": losses[first:last]})
        mean.flush()
        return found

    whole = rows([0, 14])
    assert [step for step, _ in whole] == [*range(every, 14, every), 14]
    assert whole[0][1] == np.mean([float(loss) for loss in losses[:every]])
    assert rows([0, 1, 2, 7, 13, 14]) == whole == rows(range(15))
