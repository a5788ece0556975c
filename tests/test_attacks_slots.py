"""The engine of long attacks: every example runs to its own end, whatever lies beside it."""

from typing import NamedTuple

import jax
import numpy as np
import pytest

from robustjax.attacks import Iterative, perturb
from robustjax.attacks._core.success import fooled
from robustjax.attacks._engine.craft import craft
from robustjax.attacks._engine.inputs import check_request
from robustjax.attacks._engine.ledger import Ledger
from robustjax.attacks._engine.setting import Setting
from robustjax.attacks._engine.slots import Crafted, Snapshot, SnapshotStore, over_slots
from robustjax.config import config
from robustjax.threats import Linf
from robustjax.typing import Cost

N = 23
IMAGES = np.random.default_rng(0).uniform(size=(N, 3, 3, 1)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(9, 3)).astype(np.float32)
LABELS = (IMAGES.reshape(N, -1) @ W).argmax(-1)
LIFE = np.arange(N) * 5 % 17  # steps that each example takes, 0 to 16


class State(NamedTuple):
    k: jax.Array
    x: jax.Array
    noise: jax.Array


@config
class Walk(Iterative):
    """A random walk of as many steps as the example's target says."""

    threat: Linf = Linf(0.2)
    size: float = 0.05

    def begin(self, logits_fn, example):
        return State(-example.target[0], example.x, logits_fn(example.x))

    def step(self, logits_fn, example, state):
        key = jax.random.fold_in(example.key, -state.k)
        away = self.size * jax.random.normal(key, example.x.shape)
        x = self.threat.project(state.x + away + 0.01 * state.noise[0], example.x)
        return State(state.k + 1, x, logits_fn(x))

    def done(self, state):
        return state.k >= 0

    def result(self, example, state):
        return state.x

    def spent(self, state):
        return Cost(1, 0)


def batch(w, x):
    return x.reshape(len(x), -1) @ w


MODEL = jax.tree_util.Partial(batch, W)
KEY = jax.random.key(5)


def request(rows=slice(None), batch_size=8):
    order = np.arange(N)[rows]
    life = LIFE[order, None].astype(np.int32)
    return check_request(MODEL, KEY, IMAGES[order], LABELS[order], order, batch_size, life)


def run(rows=slice(None), batch_size=8, store=None, attack=None):
    model, key, examples, batch_size = request(rows, batch_size)
    attack = Walk() if attack is None else attack
    return over_slots(attack, model, key, (), examples, batch_size, store=store or SnapshotStore())


@pytest.fixture(scope="module")
def whole():
    return run()[0]


def test_every_example_takes_its_own_number_of_steps(whole):
    moved = np.abs(whole.image - IMAGES).max((1, 2, 3)) > 0
    np.testing.assert_array_equal(moved, LIFE > 0)

    def alone(i, x, y, life):
        return Walk()(lambda x: batch(W, x[None])[0], jax.random.fold_in(KEY, i), x, y, life)

    direct = jax.jit(jax.vmap(alone))(np.arange(N), IMAGES, LABELS, LIFE[:, None])
    np.testing.assert_allclose(direct, whole.image, atol=1e-6)


def test_quick_calls_may_be_many(whole):
    """Each asks for twice as many steps as the one before; 2^31 of them are no int32."""
    rows = np.resize(np.arange(N), 40 * 8)
    np.testing.assert_array_equal(run(rows)[0].image, whole.image[rows])


@pytest.mark.parametrize("batch_size", [1, 100])
def test_same_bits_for_any_batch_size(whole, batch_size):
    np.testing.assert_array_equal(run(batch_size=batch_size)[0].image, whole.image)


def test_same_bits_in_any_order(whole):
    order = np.random.default_rng(2).permutation(N)
    np.testing.assert_array_equal(run(order)[0].image, whole.image[order])
    np.testing.assert_array_equal(run(order[:3])[0].image, whole.image[order[:3]])


def test_same_bits_on_one_device(whole, monkeypatch):
    first = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: first)
    np.testing.assert_array_equal(run()[0].image, whole.image)


@config
class Counted(Walk):
    """Says how many steps it took, and that it could have gone on."""

    def begin(self, logits_fn, example):
        return super().begin(logits_fn, example), example.target[0]

    def step(self, logits_fn, example, state):
        return super().step(logits_fn, example, state[0]), state[1]

    def done(self, state):
        return super().done(state[0])

    def result(self, example, state):
        return state[0].x

    def spent(self, state):
        walk, life = state
        return Cost(1 + walk.k + life, 2 * (walk.k + life))

    def unfinished(self, state):
        return state[1] > 10


def test_the_cost_is_that_of_the_steps_taken():
    crafted, seconds = run(attack=Counted())
    np.testing.assert_array_equal(crafted.cost.forwards, 1 + LIFE)
    np.testing.assert_array_equal(crafted.cost.backwards, 2 * LIFE)
    np.testing.assert_array_equal(crafted.unfinished, LIFE > 10)
    assert seconds > 0


def test_the_ledger_adds_up():
    model, key, examples, batch_size = request()
    ledger = Ledger()
    craft(Counted(), Setting(model, key, fooled, batch_size, ledger), examples)
    (stage,) = ledger.stages
    assert stage.cost == Cost(int((1 + LIFE).sum()), int(2 * LIFE.sum()))
    assert (stage.attacked, stage.path) == (N, ())
    assert stage.unfinished <= int((LIFE > 10).sum())


class Killed(Exception):
    pass


class Memory(SnapshotStore):
    """Keeps every snapshot, and dies after some."""

    def __init__(self, lives):
        self.lives, self.kept = lives, None

    def load(self, template):
        return self.kept

    def save(self, take, last):
        snapshot = take()
        self.kept = jax.tree.map(np.copy, snapshot)
        self.lives -= 1
        if not self.lives:
            raise Killed


@pytest.mark.parametrize("lives", [1, 2, 4])
def test_a_run_that_was_killed_goes_on_from_its_snapshot(whole, lives):
    memory = Memory(lives)
    with pytest.raises(Killed):
        run(store=memory)
    assert isinstance(memory.kept, Snapshot) and not memory.kept.finished.all()
    begun = memory.kept.slot >= 0
    assert begun.any() or lives == 1
    crafted, _ = run(store=memory)
    assert isinstance(crafted, Crafted)
    np.testing.assert_array_equal(crafted.image, whole.image)


def test_a_complete_run_is_read_back_and_not_run(whole):
    memory = Memory(-1)
    run(store=memory)
    assert memory.kept.finished.all()
    calls, memory.save = [], lambda take, last: calls.append(last)
    np.testing.assert_array_equal(run(store=memory)[0].image, whole.image)
    assert calls == []


def test_perturb_returns_the_images(whole):
    images = perturb(
        Walk(), MODEL, KEY, IMAGES, LABELS, targets=LIFE.astype(np.int32)[:, None], batch_size=8
    )
    np.testing.assert_array_equal(images, whole.image)
