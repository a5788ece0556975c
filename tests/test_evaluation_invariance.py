"""AutoAttack on a convolutional network: the same report, bit for bit, however it is run."""

import functools

import jax
import numpy as np
import pytest
from test_attack_contract import SHAPE, apply
from test_evaluation_journal import Killed

from robustjax.attacks import AutoAttack
from robustjax.evaluation import evaluate, journal
from robustjax.threats import Linf

N, K = 32, 4
RNG = np.random.default_rng(0)
IMAGES = np.clip(RNG.uniform(-0.2, 1.2, (N, *SHAPE)), 0, 1).astype(np.float32)
SIZE = int(np.prod(SHAPE))
WEIGHTS = {
    "kernel": 0.5 * RNG.normal(size=(3, 3, SHAPE[-1], 4)).astype(np.float32),
    "head": 0.3 * RNG.normal(size=(16 * 4, K)).astype(np.float32),
    "linear": 0.3 * RNG.normal(size=(SIZE, K)).astype(np.float32),
    "bias": np.zeros(K, np.float32),
}
LABELS = np.asarray(jax.jit(apply)(WEIGHTS, IMAGES)).argmax(-1)
LABELS[:2] = (LABELS[:2] + 1) % K
ATTACKS = {"aa": AutoAttack(Linf(0.08), steps=8, queries=30)}


def run(batch_size=8, order=slice(None), folder=None):
    index = np.arange(N)[order]
    return evaluate(
        jax.tree_util.Partial(apply, WEIGHTS),
        IMAGES[index],
        LABELS[index],
        ATTACKS,
        jax.random.key(3),
        indices=index,
        batch_size=batch_size,
        journal=folder,
        diagnose=False,
    )


@functools.cache
def whole():
    return run()


def assert_same(found, order=slice(None)):
    expected = whole()
    assert 0.1 < expected.worst_case < expected.clean - 0.2
    np.testing.assert_array_equal(found.adversarial["aa"], expected.adversarial["aa"][order])
    for name, column in expected.examples["aa"].items():
        np.testing.assert_array_equal(found.examples["aa"][name], column[order])
    for a, b in zip(found.stages["aa"], expected.stages["aa"], strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


@pytest.mark.parametrize("batch_size", [1, N])
def test_any_batch_size(batch_size):
    assert_same(run(batch_size))


def test_any_order():
    order = np.random.default_rng(1).permutation(N)
    assert_same(run(order=order), order)


def test_one_device_or_four(monkeypatch):
    first = jax.local_devices()[:1]
    assert len(jax.local_devices()) == 4
    monkeypatch.setattr(jax, "local_devices", lambda: first)
    assert_same(run())


def test_killed_again_and_again(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "INTERVAL", 0.0)
    save, lives, deaths = journal.FileStore.save, 0, 0

    def save_and_die(store, take, last):
        nonlocal lives
        save(store, take, last)
        lives += 1
        if lives % 7 == 0:
            raise Killed

    monkeypatch.setattr(journal.FileStore, "save", save_and_die)
    while True:
        try:
            found = run(folder=tmp_path)
            break
        except Killed:
            deaths += 1
    assert deaths > 3
    assert_same(found)


def test_what_was_spent_is_what_the_stages_say():
    """APGD takes a look more than its steps, FAB too; what is fooled stops counting."""
    rows = whole().stages["aa"]
    first, square = rows[0], rows[-1]
    assert first["attacked"] == N - 2 and first["forwards"] == first["backwards"]
    assert first["attacked"] <= first["forwards"] < 9 * first["attacked"]
    assert square["backwards"] == 0 and square["forwards"] <= 30 * square["attacked"]
    resist = round(whole().worst_case * N)
    assert square["forwards"] >= 30 * resist
    assert rows[-1]["accuracy"] == pytest.approx(whole().worst_case)
