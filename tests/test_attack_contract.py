"""The attack contract: one row per attack, one threat per column, every law over all of them.

One small network serves every law, as data: with its weights at zero it is the constant model, with
the convolution's head at zero it is a linear classifier, whose optimum in every norm and inside the
pixel box is known.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import pytest

from robustjax import attacks
from robustjax.attacks import (
    APGD,
    BIM,
    DDN,
    FAB,
    FGSM,
    FMN,
    ILCM,
    MIFGSM,
    PGD,
    RFGSM,
    SINIFGSM,
    SPSA,
    AdaptiveRestarts,
    DeepFool,
    Memetic,
    PatientSquare,
    Restarts,
    Square,
    WorstOf,
)
from robustjax.attacks._engine.model import one_example
from robustjax.attacks.starts import Gaussian, OutputDiversified, Zero
from robustjax.attacks.steps import Adam
from robustjax.attacks.targets import Prediction, Random
from robustjax.losses import compares_with, margin
from robustjax.threats import L0, L1, L2, Linf

N, SHAPE, K = 16, (4, 4, 2), 2
THREATS = {"linf": Linf(0.1), "l2": L2(0.6), "l1": L1(2.0), "l0": L0(3.0)}


class Row(NamedTuple):
    """An attack as a function of the threat, and the norms where it reaches the linear optimum.

    `norms`: where the laws run; each costs a compilation.
    `minimum`: a minimum-norm attack, which knows no eps: its own laws are in test_attacks_boundary.
    `adaptive`: knows these norms only, sets its own steps, and stops at the first success.
    """

    make: Callable
    exact: str = ""
    norms: str = "linf l2 l1 l0"
    minimum: bool = False
    adaptive: bool = False


# Twenty eps of travel: in L2 the angle to the optimum shrinks like exp(-travel / eps).
long = functools.partial(PGD, steps=40, rel_step=20.0)
ROWS = {
    "fgsm": Row(FGSM, "linf l1 l0"),
    "bim": Row(BIM, "linf l1", norms="linf l1"),
    "mi-fgsm": Row(MIFGSM, "linf l1 l0"),
    "si-ni-fgsm": Row(functools.partial(SINIFGSM, copies=2), "linf", norms="linf"),
    "r-fgsm": Row(RFGSM, norms="linf l2"),
    "ilcm": Row(ILCM, "linf", norms="linf l2"),
    "pgd": Row(long, "linf l2 l1 l0"),
    "pgd-margin-gaussian": Row(
        functools.partial(long, loss=margin, start=Gaussian()), "linf l2", norms="linf l2"
    ),
    "pgd-predicted": Row(functools.partial(PGD, target=Prediction()), "linf", norms="linf l2"),
    "pgd-targeted": Row(functools.partial(long, target=Random()), "linf l1", norms="linf l1"),
    "pgd-adam": Row(
        functools.partial(PGD, steps=20, step_size=0.1, rule=Adam()), "linf", norms="linf l2"
    ),
    "spsa": Row(functools.partial(SPSA, steps=5, samples=8, step_size=0.05), norms="linf"),
    "pgd-odi": Row(functools.partial(long, start=OutputDiversified()), "linf l2", norms="linf l2"),
    "restarts": Row(lambda threat: Restarts(PGD(threat), 3), "linf l0", norms="linf l0"),
    "worst-of": Row(
        lambda threat: WorstOf((FGSM(threat), Restarts(long(threat), 2))), "linf l2 l1 l0"
    ),
    "apgd": Row(functools.partial(APGD, steps=30), "linf l2", norms="linf l2", adaptive=True),
    "apgd-larger-radii": Row(
        functools.partial(APGD, steps=30, larger_radii=True), norms="l1", adaptive=True
    ),
    "square": Row(functools.partial(Square, queries=500), "linf", norms="linf l2", adaptive=True),
    "adaptive-restarts": Row(
        functools.partial(AdaptiveRestarts, steps=10, runs=6), "linf l2", "linf l2", adaptive=True
    ),
    "memetic": Row(
        functools.partial(Memetic, steps=10, ascents=6, population=3),
        norms="linf l2",
        adaptive=True,
    ),
    "patient-square": Row(
        functools.partial(PatientSquare, queries=500), norms="linf", adaptive=True
    ),
    "fab": Row(functools.partial(FAB, steps=20), norms="linf l1", minimum=True),
    "deepfool": Row(DeepFool, norms="l2", minimum=True),
    "ddn": Row(functools.partial(DDN, steps=20), norms="l2", minimum=True),
    "fmn": Row(functools.partial(FMN, steps=20), norms="l0", minimum=True),
}
ENSEMBLES = ("restarts", "worst-of")
ESTIMATED = ("spsa",)  # estimated gradients climb on average
GRID = [(row, norm) for row in ROWS for norm in ROWS[row].norms.split()]
CASES = [pytest.param(row, norm, id=f"{row}-{norm}") for row, norm in GRID]
BOUNDED = [
    pytest.param(row, norm, id=f"{row}-{norm}") for row, norm in GRID if not ROWS[row].minimum
]
# Adam's direction is not the gradient's: only in Linf does it climb a linear function throughout.
CLIMBING = [
    pytest.param(row, norm, id=f"{row}-{norm}")
    for row, norm in GRID
    if (row != "pgd-adam" or norm == "linf")
    and row not in ESTIMATED
    and not (ROWS[row].minimum or ROWS[row].adaptive)
]


def apply(weights, x):
    h = jax.lax.conv_general_dilated(
        x, weights["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    h = jax.nn.relu(h).reshape(len(x), -1) @ weights["head"]
    return h + x.reshape(len(x), -1) @ weights["linear"] + weights["bias"][None]


RNG = np.random.default_rng(0)
SIZE = int(np.prod(SHAPE))
IMAGES = np.clip(RNG.uniform(-0.2, 1.2, (N, *SHAPE)), 0, 1).astype(np.float32)
WEIGHTS = {
    "kernel": 0.5 * RNG.normal(size=(3, 3, SHAPE[-1], 4)).astype(np.float32),
    "head": 0.3 * RNG.normal(size=(16 * 4, K)).astype(np.float32),
    "linear": 0.3 * RNG.normal(size=(SIZE, K)).astype(np.float32),
    "bias": np.zeros(K, np.float32),
}
CONSTANT = {name: np.zeros_like(w) for name, w in WEIGHTS.items()}
LINEAR = {**CONSTANT, "linear": WEIGHTS["linear"], "bias": np.zeros(K, np.float32)}
# Centred, so that both classes occur and half of the images can be turned.
LINEAR["bias"] = -np.median(IMAGES.reshape(N, -1) @ LINEAR["linear"], axis=0)
TRACES = []


def counted(weights, x):
    TRACES.append(x.shape)
    return apply(weights, x)


def model(weights):
    return jax.tree_util.Partial(counted, weights)


logits = jax.jit(apply)
distances = jax.jit(jax.vmap(lambda threat, z, x: threat.distance(z, x), in_axes=(None, 0, 0)))


def labels(weights):
    return np.asarray(logits(weights, IMAGES)).argmax(-1)


def perturb(row, threat, weights=WEIGHTS, batch_size=N, order=slice(None)):
    return attacks.perturb(
        ROWS[row].make(threat),
        model(weights),
        jax.random.key(7),
        IMAGES[order],
        labels(weights)[order],
        indices=np.arange(N)[order],
        batch_size=batch_size,
    )


def optimum(norm, eps, gradient, x):
    """The largest <gradient, z - x> over the ball and the box, in NumPy."""
    gradient, x = gradient.astype(np.float64).ravel(), x.astype(np.float64).ravel()
    size, room = np.abs(gradient), np.where(gradient > 0, 1 - x, x)
    if norm == "linf":
        return (size * np.minimum(room, eps)).sum()
    if norm == "l0":
        return np.sort((size * room).reshape(-1, SHAPE[-1]).sum(-1))[-int(eps) :].sum()
    if norm == "l1":
        value = 0.0
        for i in np.argsort(-size):
            spent = min(eps, room[i])
            value, eps = value + spent * size[i], eps - spent
        return value
    low, high = 0.0, 1e3
    for _ in range(100):
        middle = (low + high) / 2
        inside = np.linalg.norm(np.minimum(size * middle, room)) <= eps
        low, high = (middle, high) if inside else (low, middle)
    return (size * np.minimum(size * low, room)).sum()


def margins(weights, images, y):
    """z_other - z_y of the two-class model, in float64."""
    z = np.asarray(logits(weights, images), np.float64)
    return z[np.arange(len(z)), 1 - y] - z[np.arange(len(z)), y]


@pytest.mark.parametrize(("row", "norm"), CASES)
def test_inside_the_ball_and_the_box(row, norm):
    threat = THREATS[norm]
    z = perturb(row, threat)
    assert z.shape == IMAGES.shape and z.dtype == np.float32 and np.isfinite(z).all()
    assert z.min() >= 0 and z.max() <= 1
    distance = distances(threat, z, IMAGES)
    assert distance.max() > 0
    assert ROWS[row].minimum or distance.max() <= threat.eps * (1 + 1e-6) + 1e-6


@pytest.mark.parametrize(("row", "norm"), CASES)
def test_finite_and_inside_on_a_constant_model(row, norm):
    """`perturb` itself refuses NaN and points outside; a zero gradient must not make them."""
    z = perturb(row, THREATS[norm], CONSTANT)
    if row in ("fgsm", "bim", "mi-fgsm", "si-ni-fgsm", "ilcm") or ROWS[row].minimum:
        np.testing.assert_array_equal(z, IMAGES)
    assert np.isfinite(z).all()


@pytest.mark.parametrize(("row", "norm"), CASES)
def test_same_bits_for_any_order_and_batch_size(row, norm):
    whole = perturb(row, THREATS[norm])
    order = np.random.default_rng(1).permutation(N)
    np.testing.assert_array_equal(perturb(row, THREATS[norm], order=order), whole[order])
    few = perturb(row, THREATS[norm], order=order[:3], batch_size=8)
    np.testing.assert_array_equal(few, whole[order[:3]])
    np.testing.assert_array_equal(perturb(row, THREATS[norm]), whole)


@pytest.mark.parametrize(("row", "norm"), CASES)
def test_three_eps_and_new_weights_compile_once(row, norm):
    perturb(row, THREATS[norm])
    before = len(TRACES)
    results = [
        perturb(row, dataclasses.replace(THREATS[norm], eps=scale * THREATS[norm].eps))
        for scale in (0.5, 1.5, 2.0)
    ]
    perturb(row, THREATS[norm], LINEAR)
    assert len(TRACES) == before
    assert len({r.tobytes() for r in results}) == (1 if ROWS[row].minimum else 3)


@pytest.mark.parametrize(("row", "norm"), BOUNDED)
def test_linear_classifiers_are_fooled_as_far_as_the_norm_allows(row, norm):
    """No attack exceeds the closed form; those of `exact` reach it, and so decide the same way."""
    y, eps = labels(LINEAR), THREATS[norm].eps
    z = perturb(row, THREATS[norm], LINEAR)
    clean, reached = margins(LINEAR, IMAGES, y), margins(LINEAR, z, y)
    direction = LINEAR["linear"][:, 1] - LINEAR["linear"][:, 0]
    best = np.array(
        [optimum(norm, eps, direction * (1 - 2 * a), x) for a, x in zip(y, IMAGES, strict=True)]
    )
    assert (reached - clean <= best * (1 + 1e-5) + 1e-5).all()
    assert (reached - clean >= -1e-5).all() or row == "r-fgsm"
    if norm in ROWS[row].exact.split():
        if row not in ENSEMBLES and not ROWS[row].adaptive:  # these stop at the first success
            np.testing.assert_allclose(reached - clean, best, rtol=1e-3)
        decided = np.abs(clean + best) > 1e-3 * best
        assert decided.sum() > N / 2
        np.testing.assert_array_equal((reached > 0)[decided], (clean + best > 0)[decided])


@pytest.mark.parametrize(("row", "norm"), CLIMBING)
def test_more_steps_do_not_lose_on_a_linear_model(row, norm):
    """Steps of a fixed length. Of an ensemble the first success counts, so gains end at zero."""

    def longer(node, steps):
        if not isinstance(node, PGD):
            return node
        return dataclasses.replace(node, steps=steps, rel_step=0.15 * steps)

    y, last = labels(LINEAR), -np.inf
    for steps in (1, 2, 4, 8):
        attack = jax.tree.map(
            lambda node, steps=steps: longer(node, steps),
            ROWS[row].make(THREATS[norm]),
            is_leaf=lambda node: isinstance(node, PGD),
        )
        z = attacks.perturb(attack, model(LINEAR), jax.random.key(7), IMAGES, y, batch_size=N)
        value = margins(LINEAR, z, y)
        if row in ENSEMBLES:
            value = np.minimum(value, 0)
        assert (value >= last - 1e-5).all()
        last = value


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_worst_of_targeted_margins_is_exact_for_many_classes(norm):
    """Of K classes the closed form is the best over the K - 1 wrong ones; so is the attack."""
    classes, threat = 4, THREATS[norm]
    w = 0.4 * np.random.default_rng(3).normal(size=(SIZE, classes)).astype(np.float32)

    def logits_fn(w, x):
        return x.reshape(len(x), -1) @ w

    z0 = IMAGES.reshape(N, -1).astype(np.float64) @ w
    y = z0.argmax(-1)
    attack = long(threat, loss=targeted_margin)
    best, reached = np.full(N, -np.inf), np.full(N, -np.inf)
    for shift in range(1, classes):
        t = (y + shift) % classes
        z = attacks.perturb(
            attack,
            jax.tree_util.Partial(logits_fn, w),
            jax.random.key(0),
            IMAGES,
            y,
            targets=t,
        )
        after = z.reshape(N, -1).astype(np.float64) @ w
        reached = np.maximum(reached, after[np.arange(N), t] - after[np.arange(N), y])
        gains = [
            optimum(norm, threat.eps, w[:, b] - w[:, a], x)
            for a, b, x in zip(y, t, IMAGES, strict=True)
        ]
        best = np.maximum(best, z0[np.arange(N), t] - z0[np.arange(N), y] + gains)
    np.testing.assert_allclose(reached, best, atol=2e-3 * np.abs(best).max())
    decided = np.abs(best) > 2e-3 * np.abs(best).max()
    np.testing.assert_array_equal((reached > 0)[decided], (best > 0)[decided])


@compares_with("pair")
def targeted_margin(logits, target):
    label, aim = target
    return logits[aim] - logits[label]


@pytest.mark.parametrize("norm", THREATS)
def test_eps_step_size_and_steps_may_be_traced(norm):
    one = one_example(model(WEIGHTS))
    x, y = IMAGES[0], labels(WEIGHTS)[0]

    def run(eps, size, steps, seed):
        threat = dataclasses.replace(THREATS[norm], eps=eps)
        return PGD(threat, steps=steps, step_size=size, start=Zero())(
            one, jax.random.key(seed), x, y
        )

    traced = jax.jit(run)
    eps = THREATS[norm].eps
    for steps in (0, 1, 5):
        result = run(eps, 0.3 * eps, steps, 0)
        np.testing.assert_allclose(traced(eps, 0.3 * eps, steps, 0), result, atol=1e-5)
        assert (
            float(THREATS[norm].distance(result, x))
            <= min(0.3 * steps, 1) * eps * 1.001 + 0.999 * (norm == "l0") * steps
        )
