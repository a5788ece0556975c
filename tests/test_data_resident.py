"""Batches that are drawn on the devices are those that the host would make."""

import functools

import jax
import numpy as np
import pytest
from test_data_plan import EXTRA, SOFT, TRAIN

from robustjax import data, parallel
from robustjax.data import resident


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("extra", [None, EXTRA, SOFT])
def test_batches_on_devices_are_those_of_the_host(extra, sharded):
    plan = data.Plan(TRAIN, 8, 5, extra, 0.5)
    tables, devices = resident.put(plan, sharded), jax.device_count()
    one = functools.partial(resident.take, image_shape=TRAIN.image_shape, sharded=sharded)
    take = parallel.data_parallel(one, (0 if sharded else None, 0), 0)
    for step in (0, 6):
        want = plan.batch(step)
        index = parallel.place(parallel.split(want["index"], devices), 0)
        found = parallel.merge(take(tables, index))
        assert found.keys() == want.keys()
        for name, values in want.items():
            assert found[name].dtype == values.dtype
            np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_an_epoch_is_its_steps():
    plan = data.Plan(TRAIN, 8, 5, EXTRA, 0.5)
    for process in range(2):
        want = [plan.batch(step, process, 2)["index"] for step in range(5, 10)]
        np.testing.assert_array_equal(plan.epoch(1, process, 2), want)


@pytest.mark.parametrize(
    ("memory", "where"), [(10_000, "replicated"), (1_000, "sharded"), (300, "streamed")]
)
def test_memory_says_where_examples_live(memory, where):
    """40 images of 4 bytes with labels of 4 are 320 bytes; there are four devices."""
    assert resident.layout(data.Plan(TRAIN, 8, 0), memory, devices=4) == where


@pytest.mark.parametrize("sharded", [False, True])
def test_shapes_are_those_of_the_tables(sharded):
    plan = data.Plan(TRAIN, 8, 0, EXTRA, 0.5)
    found = resident.shapes(plan, sharded, jax.device_count())
    want = jax.eval_shape(lambda: resident.put(plan, sharded))
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), found, want)
    assert jax.tree.all(same)
