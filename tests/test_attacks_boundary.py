"""Minimum-norm attacks: one row per attack and norm, every law over all of them.

One program per row: the weights are data. With the hidden layer at zero the model is linear and its
nearest boundary is known in every norm, the box included; with two live pixels a ReLU network can
be searched densely.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks._core.iterative import Example
from robustjax.attacks._minimum_norm.ddn import DDN
from robustjax.attacks._minimum_norm.deepfool import DeepFool
from robustjax.attacks._minimum_norm.fab import FAB
from robustjax.attacks._minimum_norm.fmn import FMN
from robustjax.attacks.targets import Random, Ranked
from robustjax.losses import kl, margin, targeted_margin
from robustjax.threats import L0, L1, L2, Linf

N, SHAPE, K, HIDDEN = 24, (3, 4, 1), 3, 6
SIZE = int(np.prod(SHAPE))
INF = float("inf")


class Row(NamedTuple):
    """An attack, and how far above the smallest distance of a linear model its median may be.

    `boxed`: this holds for images on the box, too. `many`: it holds for more than two classes.
    `excess`: how far above, relatively, on a small network.
    """

    attack: object
    ratio: float
    boxed: bool = False
    many: bool = True
    excess: float = 0.05


ROWS = {
    "fab-linf": Row(FAB(Linf(INF)), 1.01, boxed=True),
    "fab-l2": Row(FAB(L2(INF)), 1.01, boxed=True),
    "fab-l1": Row(FAB(L1(INF)), 1.01, boxed=True),
    "fab-random": Row(FAB(Linf(0.2), random_start=True), 1.01, boxed=True),
    "fab-t": Row(FAB(L2(INF), target=Ranked()), 1.01, many=False),
    "deepfool-linf": Row(DeepFool(Linf(INF)), 1.03, excess=0.3),
    "deepfool-l2": Row(DeepFool(L2(INF)), 1.03, excess=0.3),
    # The gradient of the cross-entropy is bent by a third class of similar logit.
    "ddn": Row(DDN(), 1.01, many=False),
    "ddn-margin": Row(DDN(loss=margin), 1.01),
    "fmn-linf": Row(FMN(Linf(INF)), 1.01),
    "fmn-l2": Row(FMN(L2(INF)), 1.01),
    "fmn-l1": Row(FMN(L1(INF)), 1.01),
    "fmn-l0": Row(FMN(L0(INF)), 1.01, boxed=True),
}


def apply(weights, x):
    x = x.reshape(-1)
    h = jax.nn.relu(x @ weights["in"] + weights["shift"]) @ weights["out"]
    return h + x @ weights["linear"] + weights["bias"]


RNG = np.random.default_rng(0)
INNER = RNG.uniform(0.35, 0.65, (N, *SHAPE)).astype(np.float32)
BOXED = np.clip(RNG.uniform(-0.3, 1.3, (N, *SHAPE)), 0, 1).astype(np.float32)
ZERO = {
    "in": np.zeros((SIZE, HIDDEN), np.float32),
    "shift": np.zeros(HIDDEN, np.float32),
    "out": np.zeros((HIDDEN, K), np.float32),
    "linear": np.zeros((SIZE, K), np.float32),
    "bias": np.zeros(K, np.float32),
}


def linear(seed, classes=K):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(SIZE, K)).astype(np.float32)
    bias = -(INNER.reshape(N, -1) @ w).mean(0)
    bias[classes:] = -1e3
    return {**ZERO, "linear": w, "bias": bias}


def network(seed):
    """A ReLU network that looks at two pixels only."""
    rng = np.random.default_rng(seed)
    live = np.zeros((SIZE, 1), np.float32)
    live[[2, 7]] = 1
    return {
        "in": 4 * live * rng.normal(size=(SIZE, HIDDEN)).astype(np.float32),
        "shift": rng.normal(size=HIDDEN).astype(np.float32),
        "out": rng.normal(size=(HIDDEN, K)).astype(np.float32),
        "linear": live * rng.normal(size=(SIZE, K)).astype(np.float32),
        "bias": 0.3 * rng.normal(size=K).astype(np.float32),
    }


def margins(weights, images, y):
    """max_{j != y} z_j - z_y in float64."""
    w = {name: a.astype(np.float64) for name, a in weights.items()}
    x = images.reshape(len(images), -1).astype(np.float64)
    z = np.maximum(x @ w["in"] + w["shift"], 0) @ w["out"] + x @ w["linear"] + w["bias"]
    own = z[np.arange(len(x)), y].copy()
    z[np.arange(len(x)), y] = -np.inf
    return z.max(-1) - own


@functools.cache
def compiled(row):
    """(weights, images, labels) -> (adversarial images, distances, forwards, backwards)."""
    attack = ROWS[row].attack

    def one(weights, key, x, y):
        logits_fn = functools.partial(apply, weights)
        example = Example(key, x, y)
        state = jax.lax.while_loop(
            lambda state: ~attack.done(state),
            lambda state: attack.step(logits_fn, example, state),
            attack.begin(logits_fn, example),
        )
        z = attack.result(example, state)
        return z, attack.threat.distance(z, x), *attack.spent(state)

    return jax.jit(jax.vmap(one, in_axes=(None, 0, 0, 0)))


labels_of = jax.jit(lambda weights, x: jax.vmap(functools.partial(apply, weights))(x).argmax(-1))


def labels(weights, images):
    return np.asarray(labels_of(weights, images))


def run(row, weights, images, y):
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(3), i))(jnp.arange(N))
    return [np.asarray(a) for a in compiled(row)(weights, keys, images, y)]


def smallest(norm, gain, normal, x):
    """The least distance in the box at which <normal, .> has grown by `gain`; inf if nowhere."""
    size = np.abs(normal)
    room = np.where(normal > 0, 1 - x, x)
    if (size * room).sum() < gain:
        return np.inf
    if norm == "l0":
        return 1 + np.searchsorted(np.cumsum(-np.sort(-size * room)), gain)
    if norm == "l1":
        order = np.argsort(-size)
        worth = (size * room)[order]
        before = np.cumsum(worth) - worth
        return (np.clip(gain - before, 0, worth) / size[order]).sum()
    speed = size if norm == "l2" else np.ones_like(size)
    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        enough = (size * np.minimum(middle * speed, room)).sum() >= gain
        low, high = (low, middle) if enough else (middle, high)
    d = np.minimum(high * speed, room)
    return np.linalg.norm(d) if norm == "l2" else d.max()


def nearest_of_linear(norm, weights, images, y):
    x = images.reshape(N, -1).astype(np.float64)
    z = x @ weights["linear"].astype(np.float64) + weights["bias"]
    return np.array(
        [
            min(
                smallest(
                    norm, z[i, a] - z[i, b], weights["linear"][:, b] - weights["linear"][:, a], x[i]
                )
                for b in range(K)
                if b != a
            )
            for i, a in enumerate(y)
        ]
    )


def norm_of(row):
    return type(ROWS[row].attack.threat).__name__.lower()


LINEAR = [
    pytest.param(row, classes, boxed, id=f"{row}-{classes}-{'boxed' if boxed else 'inner'}")
    for row in ROWS
    for classes in (2, 3)
    for boxed in (False, True)
    if (ROWS[row].many or classes == 2) and (ROWS[row].boxed or not boxed)
]


@pytest.mark.parametrize(("row", "classes", "boxed"), LINEAR)
def test_linear_classifiers_have_a_known_nearest_image(row, classes, boxed):
    weights, images = linear(1, classes), BOXED if boxed else INNER
    y = labels(weights, images)
    z, distance, _, _ = run(row, weights, images, y)
    best = nearest_of_linear(norm_of(row), weights, images, y)
    assert np.isfinite(best).all() and (distance > 0).all()
    assert (margins(weights, z, y) > -1e-5).all() and z.min() >= 0 and z.max() <= 1
    if norm_of(row) == "l0":
        assert (distance >= best).all() and (distance <= best + 1).all()
    else:
        assert (distance >= best * (1 - 1e-4)).all()
        assert np.median(distance / best) <= ROWS[row].ratio


GRID = np.stack(np.meshgrid(*[np.linspace(0, 1, 101)] * 2), -1).reshape(-1, 2)
CELL = 0.02


@functools.cache
def searched(seed):
    """Of every image: which values of the two live pixels of `network(seed)` are adversarial."""
    weights, won = network(seed), []
    for x, y in zip(INNER.reshape(N, -1), labels(weights, INNER), strict=True):
        dense = np.repeat(x[None], len(GRID), axis=0)
        dense[:, [2, 7]] = GRID
        won.append(margins(weights, dense, np.full(len(GRID), y)) > 0)
    return np.array(won)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("seed", [0, 1])
def test_no_false_success_and_few_missed_on_small_networks(row, seed):
    """Against a dense search over the two pixels that the network looks at."""
    weights = network(seed)
    y = labels(weights, INNER)
    z, distance, _, _ = run(row, weights, INNER, y)
    found = distance > 0
    assert (margins(weights, z, y)[found] > -1e-5).all()
    np.testing.assert_array_equal(z[~found], INNER[~found])
    far = np.abs(GRID[None] - INNER.reshape(N, 1, -1)[:, :, [2, 7]])
    lengths = {"linf": far.max(-1), "l2": np.linalg.norm(far, axis=-1), "l1": far.sum(-1)}
    best = np.min(
        lengths.get(norm_of(row), (far > CELL / 4).sum(-1).astype(float)),
        axis=1,
        where=searched(seed),
        initial=np.inf,
    )
    cell = 1 if norm_of(row) == "l0" else CELL
    assert (distance >= best - cell)[found].all()
    near = found & np.isfinite(best)
    assert near.any() and near.sum() >= 0.6 * np.isfinite(best).sum()
    assert np.median(distance[near] - best[near]) <= ROWS[row].excess * np.median(best[near]) + cell


def chosen(row):
    """The forward passes that the choice of a class takes."""
    return ROWS[row].attack.target.forwards


@pytest.mark.parametrize("row", ROWS)
def test_misclassified_images_are_their_own_nearest(row):
    weights = linear(1)
    z, distance, forwards, _ = run(row, weights, INNER, (labels(weights, INNER) + 1) % K)
    np.testing.assert_array_equal(z, INNER)
    assert (distance == 0).all() and (forwards == 1 + chosen(row)).all()


@pytest.mark.parametrize("row", ROWS)
def test_a_constant_model_leaves_the_clean_image(row):
    z, distance, forwards, _ = run(row, ZERO, BOXED, np.zeros(N, int))
    np.testing.assert_array_equal(z, BOXED)
    assert (distance == 0).all() and (forwards == ROWS[row].attack.steps + 1 + chosen(row)).all()


@pytest.mark.parametrize("row", ROWS)
def test_every_point_costs_one_forward_pass(row):
    weights = linear(1)
    _, _, forwards, backwards = run(row, weights, INNER, labels(weights, INNER))
    untargeted = row.startswith(("fab", "deepfool")) and row != "fab-t"
    points = forwards - chosen(row)
    np.testing.assert_array_equal(backwards, points * (K - 1 if untargeted else 1))
    assert (points == (2 if row.startswith("deepfool") else ROWS[row].attack.steps + 1)).all()


@pytest.mark.parametrize("search", [DDN, FMN])
def test_what_would_leave_a_search_blind_is_refused(search):
    with pytest.raises(ValueError, match="needs a wrong class"):
        search(target=Random(with_label=True))
    x = np.full(SHAPE, 0.5, np.float32)
    for loss in (targeted_margin, kl):
        with pytest.raises(ValueError, match="needs a target"):
            search(loss=loss)(lambda z: z.reshape(-1)[:K], jax.random.key(0), x, 0)
