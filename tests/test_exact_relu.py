"""Attacks on tiny ReLU networks, against what a mixed-integer program proves about them.

A ReLU is two linear pieces and a binary variable that says which, so the largest margin in a ball
and the distance of the nearest adversarial image are integer programs; HiGHS solves these in
milliseconds. Linf, with the pixel box.
"""

import functools
import itertools

import jax
import numpy as np
import pytest
from scipy.optimize import LinearConstraint, milp

from robustjax.attacks import (
    FAB,
    FMN,
    PGD,
    AutoAttack,
    CarliniWagnerL2,
    CarliniWagnerLinf,
    DeepFool,
    Square,
    perturb,
)
from robustjax.losses import margin
from robustjax.threats import Linf

N, SHAPE, WIDTHS, EPS = 12, (2, 3, 1), (6, 6, 6, 3), 0.12
SLACK = 1e-5  # float32 of the attacks and their model, and the solver's feasibility
BALL, FREE = Linf(EPS), Linf(float("inf"))
WITHIN = {
    "autoattack": AutoAttack(BALL, steps=40, queries=200),
    "pgd": PGD(BALL, steps=20, loss=margin),
    "square": Square(BALL, queries=300),
}
NEAREST = {
    "fab": FAB(FREE, steps=40),
    "fmn": FMN(FREE, steps=100),
    "deepfool": DeepFool(FREE),
    "c&w-linf": CarliniWagnerLinf(steps=50),
    "c&w-l2": CarliniWagnerL2(steps=50),
}


def apply(weights, images):
    h = images.reshape(len(images), -1)
    for kernel, bias in weights[:-1]:
        h = jax.nn.relu(h @ kernel + bias[None])
    kernel, bias = weights[-1]
    return h @ kernel + bias[None]


def network(seed):
    rng = np.random.default_rng(seed)
    pairs = itertools.pairwise(WIDTHS)
    return [
        (
            (rng.normal(size=(m, n)) * np.sqrt(2 / m)).astype(np.float32),
            0.2 * rng.normal(size=n).astype(np.float32),
        )
        for m, n in pairs
    ]


def gaps(weights, images, y):
    """z_j - z_y in float64, -inf for j = y: (N, K)."""
    h = images.reshape(len(images), -1).astype(np.float64)
    for i, (kernel, bias) in enumerate(weights):
        h = h @ kernel.astype(np.float64) + bias
        h = np.maximum(h, 0) if i < len(weights) - 1 else h
    rows = np.arange(len(h))
    h -= h[rows, y][:, None]
    h[rows, y] = -np.inf
    return h


class Program:
    """The network on low <= x <= high as an integer program.

    The variables are [t, x, (h, on) of each hidden layer, z]: h = max(0, a) for a = W h' + b is
    h >= a, h <= a - l (1 - on), 0 <= h <= u on, with bounds l <= a <= u over the box.
    """

    def __init__(self, weights, low, high):
        self.low, self.high, self.integer = [0.0], [1.0], [0]
        self.rows = []  # ({column: coefficient}, lower, upper)
        self.x = previous = self._new(low, high)
        for kernel, bias in weights[:-1]:
            least, most = self._range(previous, kernel, bias)
            below, above = np.minimum(least, 0), np.maximum(most, 0)
            h, on = self._new(0 * above, above), self._new(0 * above, 0 * above + 1, integer=1)
            for j in range(len(bias)):
                a = {h[j]: 1.0} | {
                    p: -float(k) for p, k in zip(previous, kernel[:, j], strict=True)
                }
                self.rows.append((a, float(bias[j]), np.inf))
                self.rows.append((a | {on[j]: -below[j]}, -np.inf, bias[j] - below[j]))
                self.rows.append(({h[j]: 1.0, on[j]: -above[j]}, -np.inf, 0.0))
            previous = h
        kernel, bias = weights[-1]
        self.z = self._new(*self._range(previous, kernel, bias))
        for j, z in enumerate(self.z):
            a = {z: 1.0} | {p: -float(k) for p, k in zip(previous, kernel[:, j], strict=True)}
            self.rows.append((a, float(bias[j]), float(bias[j])))

    def _new(self, low, high, integer=0):
        first = len(self.low)
        self.low += [float(v) for v in low]
        self.high += [float(v) for v in high]
        self.integer += [integer] * len(low)
        return list(range(first, len(self.low)))

    def _range(self, columns, kernel, bias):
        low, high = np.array(self.low)[columns], np.array(self.high)[columns]
        up, down = np.maximum(kernel, 0.0).astype(float), np.minimum(kernel, 0.0).astype(float)
        return low @ up + high @ down + bias, high @ up + low @ down + bias

    def minimise(self, cost, rows=()):
        """(the smallest cost, the image): cost is {column: coefficient}."""
        rows = [*self.rows, *rows]
        a = np.zeros((len(rows), len(self.low)))
        for i, (row, _, _) in enumerate(rows):
            a[i, list(row)] = list(row.values())
        c = np.zeros(len(self.low))
        c[list(cost)] = list(cost.values())
        found = milp(
            c,
            integrality=self.integer,
            bounds=(self.low, self.high),
            constraints=LinearConstraint(a, [r[1] for r in rows], [r[2] for r in rows]),
            options={"mip_rel_gap": 0.0},
        )
        assert found.status in (0, 2), found.message  # solved, or proved to have no solution
        return (found.fun, found.x[self.x]) if found.status == 0 else (np.inf, None)


def largest_margin(weights, x, y):
    """(max_j max over the ball and the box of z_j - z_y, where it is attained)."""
    program = Program(weights, np.maximum(x - EPS, 0), np.minimum(x + EPS, 1))
    z = program.z
    found = [program.minimise({z[y]: 1.0, z[j]: -1.0}) for j in range(len(z)) if j != y]
    return max(((-cost, image) for cost, image in found), key=lambda one: one[0])


def nearest(weights, x, y):
    """(min_j min ||x' - x||_inf over the box with z_j >= z_y, the image x')."""
    program = Program(weights, np.zeros_like(x), np.ones_like(x))
    z = program.z
    reach = [
        ({0: -1.0, column: sign}, -np.inf, sign * float(value))
        for column, value in zip(program.x, x, strict=True)
        for sign in (1.0, -1.0)
    ]
    wins = [[({z[j]: 1.0, z[y]: -1.0}, 0.0, np.inf)] for j in range(len(z)) if j != y]
    return min(
        (program.minimise({0: 1.0}, reach + win) for win in wins), key=lambda found: found[0]
    )


IMAGES = np.random.default_rng(0).uniform(-0.1, 1.1, (N, *SHAPE)).clip(0, 1).astype(np.float32)


@functools.cache
def truth(seed):
    """A network, its predictions, and what the integer programs prove of each image."""
    weights = network(seed)
    y = np.asarray(apply(weights, IMAGES)).argmax(-1)
    pairs = [(x.ravel().astype(np.float64), label) for x, label in zip(IMAGES, y, strict=True)]
    return (
        weights,
        y,
        [largest_margin(weights, *pair) for pair in pairs],
        [nearest(weights, *pair) for pair in pairs],
    )


@functools.cache
def attacked(name, seed):
    """(the margin of each adversarial image in float64, its distance)."""
    weights, y, _, _ = truth(seed)
    model, attack = jax.tree_util.Partial(apply, weights), {**WITHIN, **NEAREST}[name]
    z = perturb(attack, model, jax.random.key(0), IMAGES, y)
    assert z.min() >= 0 and z.max() <= 1
    return gaps(weights, z, y).max(-1), np.abs(z - IMAGES).reshape(N, -1).max(-1)


@pytest.fixture(params=[0, 1])
def seed(request):
    return request.param


def test_the_programs_say_what_the_network_says(seed):
    """Their images reach what they claim, no corner of the ball more, and the two agree."""
    weights, y, margins, distances = truth(seed)
    rng = np.random.default_rng(1)
    for x, label, (best, image), (distance, near) in zip(
        IMAGES, y, margins, distances, strict=True
    ):
        assert np.abs(image - x.ravel()).max() <= EPS + SLACK
        np.testing.assert_allclose(gaps(weights, image[None], [label]).max(), best, atol=SLACK)
        low, high = np.maximum(x.ravel() - EPS, 0), np.minimum(x.ravel() + EPS, 1)
        tries = np.where(rng.random((2000, x.size)) < 0.5, low, high)
        assert (gaps(weights, tries, np.full(2000, label)).max(-1) <= best + SLACK).all()
        assert (best >= 0) == (distance <= EPS)
        if near is not None:
            assert np.abs(near - x.ravel()).max() <= distance + SLACK
            np.testing.assert_allclose(gaps(weights, near[None], [label]).max(), 0, atol=SLACK)
    assert 3 <= sum(best > 1e-4 for best, _ in margins) <= N - 3


@pytest.mark.parametrize("name", [*WITHIN, *NEAREST])
def test_no_attack_does_what_is_proved_impossible(name, seed):
    """No larger margin in the ball, and no adversarial image nearer than the nearest."""
    _, _, margins, distances = truth(seed)
    reached, length = attacked(name, seed)
    inside = length <= EPS + SLACK
    assert inside.all() or name in NEAREST
    assert (reached <= [best + SLACK for best, _ in margins])[inside].all()
    wrong = reached > SLACK
    assert wrong.any() and (length >= [distance - SLACK for distance, _ in distances])[wrong].all()


def test_autoattack_finds_every_image_that_can_be_broken(seed):
    _, _, margins, _ = truth(seed)
    reached, _ = attacked("autoattack", seed)
    assert (reached > 0)[[best > 1e-4 for best, _ in margins]].all()


@pytest.mark.parametrize("name", ["fab", "fmn"])
def test_the_median_distance_is_nearly_the_smallest(name, seed):
    """Not every one: these searches are local, and a tiny network has several valleys."""
    _, _, _, distances = truth(seed)
    reached, length = attacked(name, seed)
    exact = np.array([distance for distance, _ in distances])
    found = np.where(reached > -SLACK, length, np.inf)[np.isfinite(exact)]
    assert np.median(found / exact[np.isfinite(exact)]) <= 1.05
