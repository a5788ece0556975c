"""What a step sees, with and without extra examples."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustjax import data
from robustjax.data.batches import draw

SHAPE, CLASSES = (2, 2, 1), 4


def dataset(size, start=0, soft=False, shape=SHAPE, classes=CLASSES):
    """Images filled with their own number."""
    numbers = np.arange(start, start + size)
    labels = numbers % classes
    return data.Dataset(
        images=np.broadcast_to(numbers.reshape(-1, 1, 1, 1), (size, *shape)).astype(np.uint8),
        labels=labels,
        indices=numbers,
        name="numbers",
        split="train",
        num_classes=classes,
        targets=(np.eye(classes)[labels] + 0.25) / 2 if soft else None,
    )


TRAIN, EXTRA, SOFT = dataset(40), dataset(100, 100), dataset(100, 100, soft=True)


def test_without_extra_examples_it_is_the_order_of_batch_indices():
    plan = data.Plan(TRAIN, 8, seed=3)
    batch = plan.batch(7)
    assert set(batch) == {"image", "label", "index"} and plan.steps_per_epoch == 5
    np.testing.assert_array_equal(batch["index"], data.batch_indices(3, 7, 40, 8))
    np.testing.assert_array_equal(batch["image"], TRAIN.images[batch["index"]])


@given(st.sampled_from((4, 8, 12, 20)), st.floats(0, 0.87), st.integers(0, 2**32 - 1))
def test_every_block_holds_its_share(size, fraction, seed):
    plan = data.Plan(TRAIN, size, seed, EXTRA, fraction)
    assert plan.steps_per_epoch == 40 // size
    index = plan.indices(1)
    assert (index < 0).sum() == round(fraction * size)
    own = index[index >= 0]
    np.testing.assert_array_equal(own, data.batch_indices(seed, 1, 40, len(own)))
    blocks = (index < 0).reshape(4, -1).sum(1)
    assert blocks.max() - blocks.min() <= 1
    assert (-1 - index[index < 0] < 100).all()


def test_balanced_batches_hold_each_class_equally_often():
    rare = dataset(40).take(np.r_[0:4, 4:40:4])  # of classes 1, 2, 3 one example each; 10 of 0
    plan = data.Plan(rare, 6, 0, EXTRA, 1 / 3, balance=True)
    steps = [plan.indices(step) for step in range(rare.num_classes)]
    own = np.concatenate([index[index >= 0] for index in steps])
    assert np.bincount(rare.labels[own]).tolist() == [4, 4, 4, 4]
    assert len(set(own[rare.labels[own] == 0])) > 1
    np.testing.assert_array_equal(plan.indices(2), steps[2])
    drawn = np.concatenate([plan.indices(step) for step in range(200)])
    seen = np.bincount(drawn[drawn >= 0])
    assert seen[rare.labels == 0].min() > 10 and (seen[rare.labels != 0] == 200).all()


def test_a_pass_over_the_labelled_examples_misses_none():
    plan = data.Plan(TRAIN, 8, 0, EXTRA, 0.5)
    index = np.concatenate([plan.indices(step) for step in range(10)])  # two epochs
    np.testing.assert_array_equal(np.sort(index[index >= 0]), np.arange(40))


def test_draws_come_back_and_reach_the_whole_pool():
    rows = np.concatenate([draw(5, step, 10, 3) for step in range(100)])
    assert rows.dtype == np.int32
    counts = np.bincount(rows, minlength=10)
    assert len(counts) == 10 and (np.abs(counts - 30) < 5 * np.sqrt(27)).all()
    for one, other in itertools.pairwise([(5, 0), (5, 1), (6, 1)]):
        assert (draw(*one, 1000, 9) != draw(*other, 1000, 9)).any()
    np.testing.assert_array_equal(draw(5, 7, 10, 3), rows[21:24])


@pytest.mark.parametrize("extra", [EXTRA, SOFT])
def test_examples_come_from_where_their_index_says(extra):
    batch = data.Plan(TRAIN, 8, 0, extra, 0.75).batch(3)
    number = np.where(batch["index"] < 0, 99 - batch["index"], batch["index"])
    np.testing.assert_array_equal(batch["image"], np.full((8, *SHAPE), number.reshape(-1, 1, 1, 1)))
    np.testing.assert_array_equal(batch["label"], number % CLASSES)
    assert ("target" in batch) == (extra is SOFT)
    if extra is SOFT:
        hot = np.eye(CLASSES)[batch["label"]]
        soft = np.where((batch["index"] < 0)[:, None], (hot + 0.25) / 2, hot)
        np.testing.assert_array_equal(batch["target"], soft.astype(np.float32))


def test_processes_read_the_blocks_of_one_batch():
    plan = data.Plan(TRAIN, 8, 0, SOFT, 0.5)
    parts = [plan.batch(2, process, 4) for process in range(4)]
    for name, values in plan.batch(2).items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)


@pytest.mark.parametrize(
    ("extra", "fraction", "message"),
    [
        (EXTRA, 1.5, "extra_fraction must lie in"),
        (EXTRA, 0.97, "leaves no labelled example in a batch of 8"),
        (dataset(9, shape=(3, 2, 1)), 0.5, r"image_shape is \(3, 2, 1\), but \(2, 2, 1\) in train"),
        (dataset(9, classes=3), 0.5, "num_classes is 3, but 4 in train"),
    ],
)
def test_what_does_not_fit_is_refused(extra, fraction, message):
    with pytest.raises(ValueError, match=message):
        data.Plan(TRAIN, 8, 0, extra, fraction)
