"""The step's own promises; the laws that hold for every method are in test_method_contract.py."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CLASSES, RECIPE, examples, fresh, module

from robustjax import parallel
from robustjax.attacks import PGD
from robustjax.attacks.starts import Uniform
from robustjax.data import Augment, cutmix
from robustjax.threats import L2, Linf
from robustjax.training import AWP, PGDAT, SAT, TRADES, Natural, Recipe
from robustjax.training.methods.base import Batch
from robustjax.training.step import (
    IN_AXES,
    OUT_AXES,
    make_step,
    mixed,
    mixer,
    read_rows,
    scale_eps,
    scatter,
    smoothed,
)

STEPS = 20
CLIMBING = TRADES(attack=PGD(Linf(0.05), steps=1, start=Uniform()), bn="batch")


def take(recipe, shards=1, batch=None):
    """One step of natural training: (state before, state after, metrics)."""
    step = parallel.emulate(make_step(module(), recipe, STEPS, CLASSES), IN_AXES, OUT_AXES)
    before, batch = fresh(Natural(), shards, recipe), parallel.split(batch or examples(), shards)
    return before, *step(before, Natural(), jax.random.key(1), batch)


def dropping(method=CLIMBING, recipe=RECIPE, shards=1, batch=None, rate=0.5):
    """The state after one step of a network with dropout."""
    batch = parallel.split(batch or examples(), shards)
    state = fresh(Natural(), shards, recipe)
    return dropping_step(recipe, rate)(state, method, jax.random.key(1), batch)[0]


@functools.cache
def dropping_step(recipe, rate):
    step = make_step(module().clone(dropout=rate), recipe, STEPS, CLASSES)
    return parallel.emulate(step, IN_AXES, OUT_AXES)


def equal(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: np.allclose(x, y, atol=1e-6), a, b)))


def test_the_rate_warms_up_and_the_average_follows():
    before, after, metrics = take(dataclasses.replace(RECIPE, lr_warmup=0.5))
    np.testing.assert_allclose(metrics["lr"], RECIPE.lr * (1 / STEPS) / 0.5, rtol=1e-6)
    want = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, before.params, after.params)
    assert equal(after.ema, want) and not equal(after.ema, after.params)


def test_statistics_of_each_device_are_a_choice():
    apart = dataclasses.replace(RECIPE, sync_bn=False)
    whole, together, alone = (take(*c)[1].stats for c in ((RECIPE,), (RECIPE, 4), (apart, 4)))
    assert equal(whole, together) and not equal(whole, alone)
    assert equal(whole, take(apart, 1)[1].stats)


def test_augmentation_depends_on_the_example_and_not_on_its_place():
    recipe = dataclasses.replace(RECIPE, augment=Augment(pad=3, flip=True))
    order = np.random.default_rng(0).permutation(len(examples()["label"]))
    shuffled = {k: v[order] for k, v in examples().items()}
    assert equal(take(recipe)[1].params, take(recipe, 1, shuffled)[1].params)
    assert equal(take(recipe)[1].params, take(recipe, 4)[1].params)
    renamed = examples() | {"index": examples()["index"] + 1}
    assert not equal(take(recipe)[1].params, take(recipe, 1, renamed)[1].params)


def test_balanced_copies_of_an_example_differ():
    """An example that a batch holds twice is augmented by its place, on any number of devices."""
    recipe = dataclasses.replace(RECIPE, augment=Augment(pad=3, flip=True), balance=True)
    twice = {k: np.repeat(v[:1], len(v), 0) for k, v in examples().items()}
    assert equal(take(recipe, 1, twice)[1].params, take(recipe, 4, twice)[1].params)
    alike = dataclasses.replace(recipe, balance=False)
    assert not equal(take(recipe, 1, twice)[1].params, take(alike, 1, twice)[1].params)
    with pytest.raises(ValueError, match="SAT keeps state per example, but with balance"):
        fresh(SAT(), 1, recipe)


def test_dropout_depends_on_the_example_and_not_on_its_place():
    one = dropping().params
    assert equal(one, dropping(shards=4).params)
    order = np.random.default_rng(0).permutation(len(examples()["label"]))
    assert equal(one, dropping(batch={k: v[order] for k, v in examples().items()}).params)
    renamed = examples() | {"index": examples()["index"] + 1}
    assert not equal(one, dropping(batch=renamed).params)


def test_slices_drop_as_the_whole_batch_would_and_a_rate_of_zero_changes_no_bit():
    natural, stateless = Natural(), {"sync_bn": False, "accumulate": 2}
    plain, none = take(RECIPE)[1].params, dropping(natural, rate=0.0).params
    jax.tree.map(np.testing.assert_array_equal, plain, none)
    assert not equal(plain, dropping(natural).params)
    halves = dataclasses.replace(RECIPE, **stateless)
    apart = dataclasses.replace(RECIPE, sync_bn=False)
    assert equal(dropping(natural, halves).params, dropping(natural, apart, shards=2).params)


def test_scatter_writes_all_shards_and_skips_negative_indices():
    table, rows = jnp.zeros((5, 2)), jnp.arange(8.0).reshape(2, 2, 2)
    index = jnp.array([[4, 0], [-1, 2]])
    written = jax.vmap(scatter, in_axes=(None, 0, 0), out_axes=None, axis_name=parallel.AXIS)(
        table, index, rows
    )
    np.testing.assert_array_equal(written[:, 0], [2, 0, 6, 0, 0])


def test_an_extra_example_reads_the_row_of_a_new_one():
    table, new = jnp.arange(8.0).reshape(4, 2), jnp.full((3, 2), 9.0)
    rows = read_rows(table, jnp.array([2, -1, -7]), new)
    np.testing.assert_array_equal(rows, [[4, 5], [9, 9], [9, 9]])


def test_extra_examples_have_their_own_smoothing():
    index, labels = jnp.array([3, -4]), jnp.array([1, 0])
    recipe = dataclasses.replace(RECIPE, label_smoothing=0.3)
    want = np.array([[0.1, 0.7, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1]])
    np.testing.assert_allclose(smoothed(recipe, index, labels, 4), want, rtol=1e-6)
    recipe = dataclasses.replace(recipe, extra_smoothing=0.0)
    np.testing.assert_allclose(smoothed(recipe, index, labels, 4)[1], [1, 0, 0, 0])
    soft = jnp.array([[0.0, 1.0, 0.0, 0.0], [0.4, 0.6, 0.0, 0.0]])
    recipe = dataclasses.replace(recipe, extra_smoothing=0.3)
    found = smoothed(recipe, index, soft, 4)
    np.testing.assert_allclose(found, [want[0], [0.34, 0.46, 0.1, 0.1]], rtol=1e-6)


def blended(mix, shards):
    """A batch of eight images filled with their own number, mixed; (batch before, after)."""
    label = jnp.arange(8)
    image = jnp.broadcast_to(label.reshape(-1, 1, 1, 1), (8, 6, 6, 1)) * 1.0
    batch = Batch(image, label, jax.nn.one_hot(label, 8), index=label, source=jnp.zeros_like(label))
    keys = jax.random.split(jax.random.key(0), 8)
    one = functools.partial(mixed, mix)
    run = jax.jit(jax.vmap(one, axis_name=parallel.AXIS))
    return batch, parallel.merge(run(*parallel.split((batch, keys), shards)))


def test_cutmix_takes_from_the_example_before_whatever_the_shards():
    batch, after = blended(cutmix, 1)
    for one, four in zip(*map(jax.tree.leaves, (after, blended(cutmix, 4)[1])), strict=True):
        np.testing.assert_array_equal(one, four)
    others = 0
    for i in range(8):
        before = (i - 1) % 8
        own, pasted = ((after.image[i] == n).mean() for n in (i, before))
        assert own + pasted == pytest.approx(1)
        np.testing.assert_allclose(after.target[i, [i, before]], [own, pasted], atol=1e-6)
        assert after.label[i] == (i if own >= 0.5 else before)
        others += int(pasted > 0)
    assert others >= 4 and (after.index == batch.index).all()


def test_mixup_takes_the_mean_with_the_example_before_whatever_the_shards():
    mix = mixer(Recipe(mixup=0.7))
    batch, after = blended(mix, 1)
    for one, four in zip(*map(jax.tree.leaves, (after, blended(mix, 4)[1])), strict=True):
        np.testing.assert_array_equal(one, four)
    for i in range(8):
        before = (i - 1) % 8
        own = after.target[i, i]
        assert after.target[i, before] == pytest.approx(1 - own)
        np.testing.assert_allclose(after.image[i], own * i + (1 - own) * before, rtol=1e-5)
        assert after.label[i] == (i if own >= 0.5 else before)
    assert len(np.unique(after.target[np.arange(8), np.arange(8)])) == 8
    assert 0 < (after.label != batch.label).sum() < 8


def test_a_step_mixes_where_the_recipe_says_so():
    recipe = dataclasses.replace(RECIPE, mixup=1.0)
    assert not equal(take(recipe)[1].params, take(RECIPE)[1].params)


@pytest.mark.parametrize("mix", [{"cutmix": True}, {"mixup": 1.0}])
def test_mixing_is_refused_where_single_examples_are_remembered(mix):
    with pytest.raises(ValueError, match="SAT keeps state per example"):
        fresh(SAT(), 1, dataclasses.replace(RECIPE, **mix))


def test_one_way_of_mixing_at_a_time():
    with pytest.raises(ValueError, match="choose one of them"):
        Recipe(cutmix=True, mixup=1.0)


@pytest.mark.parametrize("method", [PGDAT(), TRADES(), AWP(TRADES())])
def test_every_threat_of_a_method_is_scaled(method):
    inner = getattr(method, "inner", method)
    scaled = scale_eps(method, 0.5)
    assert getattr(scaled, "inner", scaled).attack.threat == Linf(inner.attack.threat.eps / 2)
    assert scale_eps(L2(3.0), 2.0) == L2(6.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("accumulate", 0),
        ("lr", -1.0),
        ("mixup", -0.1),
        ("ema", 1.5),
        ("label_smoothing", 2.0),
        ("extra_smoothing", 2.0),
        ("extra_fraction", 1.1),
        ("lr_warmup", -0.1),
        ("eps_warmup", 1.1),
    ],
)
def test_recipes_are_checked(field, value):
    with pytest.raises(ValueError, match=field):
        Recipe(**{field: value})
