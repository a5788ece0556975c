"""Every attack against masks, bounds and radii of every shape, where the exact answer is known.

The gap to a wrong class of a linear classifier is linear in the image, so the most that a threat
can gain is one line of algebra: what each component may do is its room, and the norm says which
rooms are used.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import pytest

from robustjax import attacks, evaluation
from robustjax.losses import targeted_dlr
from robustjax.threats import L0, L1, L2, Linf

N, SHAPE, CLASSES = 8, (4, 4, 1), 4
RNG = np.random.default_rng(0)
X = RNG.uniform(size=(N, *SHAPE)).astype(np.float32)
W = RNG.normal(size=(16, CLASSES)).astype(np.float32)
KEY = jax.random.key(0)
EPS = {Linf: 0.12, L2: 0.35, L1: 0.4}


def logits(x):
    return x.reshape(len(x), -1) @ W


Y = np.asarray(logits(X)).argmax(-1)


def most(norm, slope, room, eps):
    """The largest <slope, d> with |d| <= room, moving along the slope, and norm(d) <= eps."""
    if norm is Linf:
        return (slope * np.minimum(eps, room)).sum()
    if norm is L0:
        return np.sort(slope * room)[::-1][: int(eps)].sum()
    order = np.argsort(-slope)
    if norm is L1:
        before = np.cumsum(room[order]) - room[order]
        return (slope[order] * np.clip(eps - before, 0, room[order])).sum()
    low, high = 0.0, 1e6
    for _ in range(100):
        t = (low + high) / 2
        inside = np.linalg.norm(np.minimum(t * slope, room)) <= eps
        low, high = (t, high) if inside else (low, t)
    return (slope * np.minimum(low * slope, room)).sum()


def robust(threat):
    """(N,) which images withstand the threat."""
    whole = (N, *SHAPE)
    eps = np.asarray(threat.eps)
    eps = np.broadcast_to(eps.reshape(N, 1, 1, 1) if eps.ndim == 1 else eps, whole)
    mask = np.broadcast_to(True if threat.mask is None else threat.mask, whole)
    low, high = (np.broadcast_to(b, whole) for b in threat.bounds or (-99, 99))
    found = []
    for i, (x, y) in enumerate(zip(X, Y, strict=True)):
        gaps = []
        for k in set(range(CLASSES)) - {y}:
            slope = (W[:, k] - W[:, y]).reshape(SHAPE)
            room = np.where(mask[i], np.where(slope > 0, high[i] - x, x - low[i]), 0)
            size = eps[i].ravel() if threat.per_feature else eps[i].max()
            gain = most(type(threat), np.abs(slope).ravel(), room.ravel(), size)
            gaps.append((x * slope).sum() + gain)
        found.append(max(gaps) < 0)
    return np.array(found)


SEEDED = np.random.default_rng(3)
MASKS = (SEEDED.uniform(size=(N, *SHAPE)) < 0.7).astype(np.float32)
LOW = SEEDED.uniform(-0.3, 0.0, SHAPE).astype(np.float32)
FACTORS = SEEDED.uniform(0.5, 1.5, N).astype(np.float32)
FEATURES = SEEDED.choice([0, 0.05, 0.1, 0.3], SHAPE).astype(np.float32)
FEATURES.flat[0] = 0.3
PIXELS = np.arange(N, dtype=np.float32) % 3


def cases(norm):
    if norm is L0:
        yield "rows", L0(PIXELS, (LOW, 1.0), MASKS)
        return
    eps = EPS[norm]
    yield "mask", norm(eps, mask=MASKS[0])
    yield "bounds", norm(eps, bounds=(-0.2, 1.1))
    yield "rows", norm(eps * FACTORS, (LOW, 1.0), MASKS)
    yield "unbounded", norm(eps, None)
    if norm is Linf:
        yield "features", norm(FEATURES)
        yield "both", norm(FEATURES * FACTORS.reshape(N, 1, 1, 1), (-0.1, 1.0), MASKS[0])


CASES = {f"{norm.__name__}-{name}": threat for norm in (*EPS, L0) for name, threat in cases(norm)}


class Row(NamedTuple):
    """An attack, the norms it is for, and whether it finds the exact answer."""

    make: Callable
    norms: tuple = (Linf, L2, L1)
    exact: bool = True


part = functools.partial
ROWS = {
    "pgd": Row(part(attacks.MultiTargetedPGD, steps=60), (Linf, L2, L1, L0)),
    "fmn": Row(lambda t: attacks.MultiTargeted(attacks.FMN(t, steps=150), 3), (Linf, L2, L1, L0)),
    "fab": Row(part(attacks.FAB, steps=30)),
    "apgd-t": Row(lambda t: attacks.MultiTargeted(attacks.APGD(t, 40, loss=targeted_dlr))),
    "square": Row(part(attacks.Square, queries=300), exact=False),
    "deepfool": Row(attacks.DeepFool, (Linf, L2)),
    "ddn": Row(part(attacks.DDN, steps=100), (L2,)),
    "cw-l2": Row(part(attacks.CarliniWagnerL2, steps=60, rounds=6), (L2,)),
    "cw-linf": Row(part(attacks.CarliniWagnerLinf, steps=40, rounds=6), (Linf,)),
    "ead": Row(part(attacks.EAD, steps=60, rounds=6), (L1,)),
    "hop-skip-jump": Row(part(attacks.HopSkipJump, queries=600), (Linf, L2), exact=False),
    "jsma": Row(part(attacks.JSMA, gamma=1.0), (L0,), exact=False),
}
SOME = {"mask": ("pgd",), "bounds": ("pgd", "cw-l2"), "unbounded": ("pgd", "fmn", "fab")}
SOME["features"] = ("pgd",)  # one example of "both" has such an eps, under every attack
GRID = [
    pytest.param(case, row, id=f"{case}-{row}")
    for case, threat in CASES.items()
    for row in SOME.get(case.split("-")[1], ROWS)
    if type(threat) in ROWS[row].norms
]


@pytest.mark.parametrize(("case", "row"), GRID)
def test_an_attack_finds_the_exact_accuracy_and_stays_where_it_may(case, row):
    threat = CASES[case]
    report = evaluation.evaluate(
        logits, X, Y, {"it": ROWS[row].make(threat)}, KEY, batch_size=N, diagnose=False
    )
    truth = robust(threat)
    found = ~report.examples["it"]["fooled"]
    assert not (truth & ~found).any()
    assert 0 < truth.mean() < 1 and (not ROWS[row].exact or (found == truth).all())
    z = report.adversarial["it"]
    low, high, mask = (np.broadcast_to(a, X.shape) for a in limits(threat))
    assert (z >= low - 1e-6).all() and (z <= high + 1e-6).all()
    assert (z == X)[~mask].all()


def limits(threat):
    """(low, high, mask)."""
    bounds = threat.bounds or (-np.inf, np.inf)
    mask = np.ones(SHAPE, bool) if threat.mask is None else threat.mask != 0
    features = np.ndim(threat.eps) > 2
    return *bounds, mask & (np.asarray(threat.eps) > 0) if features else mask


def test_bits_depend_on_neither_batch_size_nor_order():
    threat, order = CASES["Linf-both"], np.random.default_rng(5).permutation(N)
    moved = Linf(threat.eps[order], threat.bounds, threat.mask)
    attack = functools.partial(attacks.PGD, steps=5)
    one = attacks.perturb(attack(threat), logits, KEY, X, Y, batch_size=2)
    other = attacks.perturb(
        attack(moved), logits, KEY, X[order], Y[order], indices=order, batch_size=16
    )
    np.testing.assert_array_equal(one[order], other)


def test_three_arrays_of_one_shape_compile_once():
    traces = []

    def counted(w, x):
        traces.append(x.shape)
        return x.reshape(len(x), -1) @ w

    model = jax.tree_util.Partial(counted, W)
    counts = []
    for factor in (0.5, 1.0, 2.0):
        attacks.perturb(attacks.PGD(Linf(factor * FEATURES), 3), model, KEY, X, Y)
        counts.append(len(traces))
    assert counts[0] == counts[-1]


def test_a_curve_over_an_eps_per_feature_keeps_its_proportions():
    """At radius r the threat is FEATURES r / 0.3, whether the attack runs once or at every one."""
    radii = [0.0, 0.1, 0.2, 0.4]
    truth = [robust(Linf(FEATURES * np.float32(r / 0.3))).mean() for r in radii]
    assert truth[0] == 1 > truth[1] > truth[-1]
    for attack in (ROWS["pgd"].make, attacks.FAB):
        found = evaluation.curve(logits, X, Y, attack(Linf(FEATURES)), radii, KEY)
        assert found["accuracy"] == truth
    report = evaluation.evaluate(logits, X, Y, {"fab": attacks.FAB(Linf(FEATURES))}, KEY)
    assert report.curve("fab", radii)["accuracy"] == truth


@pytest.mark.parametrize("radius", [float("nan"), -0.1])
def test_a_radius_that_is_none_is_refused(radius):
    with pytest.raises(ValueError, match=r"radius must lie in|eps.* must be a number"):
        evaluation.curve(logits, X, Y, attacks.PGD(), [0.1, radius], KEY)


def test_images_lie_where_the_threat_says():
    """Signed images under signed bounds are the same problem as images in [0, 1] under [0, 1]."""
    signed = jax.tree_util.Partial(lambda x: logits((x + 1) / 2))
    run = functools.partial(evaluation.evaluate, labels=Y, key=KEY, diagnose=False)
    attack = functools.partial(attacks.MultiTargetedPGD, steps=30)
    plain = run(logits, X, attacks={"pgd": attack(Linf(0.1))})
    moved = run(signed, 2 * X - 1, attacks={"pgd": attack(Linf(0.2, (-1, 1)))})
    assert plain.robust == moved.robust and plain.robust["pgd"] < 1
    z = moved.adversarial["pgd"]
    assert z.min() >= -1 and z.max() <= 1 and z.min() < -0.5
    with pytest.raises(ValueError, match=r"pixels must lie in \[0, 1\].*bounds=\(low, high\)"):
        run(signed, 2 * X - 1, attacks={"pgd": attack(Linf(0.2))})
    bytes_ = np.round(255 * X).astype(np.uint8)
    z = attacks.perturb(attacks.PGD(Linf(0.2, (-1, 1)), 2), logits, KEY, bytes_, Y)
    assert np.abs(z - bytes_ / 255).max() <= 0.2 + 1e-6


@pytest.mark.parametrize("off", [1e-7, -3e-8])
def test_rounding_at_the_ends_of_the_bounds_is_clipped(off):
    """One pixel of 1.0000001 or of -3e-8 is what a resize leaves."""
    x = X.copy()
    x[0, 0, 0] = 1 + off if off > 0 else off
    z = attacks.perturb(attacks.PGD(Linf(0.1), 2), logits, KEY, x, Y)
    assert z.min() >= 0 and z.max() <= 1
    x[0, 0, 0] = 1.001 if off > 0 else -0.001
    with pytest.raises(ValueError, match="divide by 255"):
        attacks.perturb(attacks.PGD(Linf(0.1), 2), logits, KEY, x, Y)
