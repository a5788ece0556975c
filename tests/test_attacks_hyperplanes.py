"""The smallest step onto a plane inside the box, against a slow optimiser-free answer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustjax.attacks import FAB
from robustjax.attacks._minimum_norm.boundary import CHUNK, dual_norm
from robustjax.attacks._minimum_norm.hyperplanes import Plane, rivals, shift
from robustjax.threats import L1, L2, Linf

THREATS = {"linf": Linf(1.0), "l2": L2(1.0), "l1": L1(1.0)}
SHAPE = (2, 3, 2)


@functools.cache
def compiled(norm):
    return jax.jit(functools.partial(shift, THREATS[norm], (0.0, 1.0)))


def problem(seed, kind):
    rng = np.random.default_rng(seed)
    x = np.clip(rng.uniform(-0.5, 1.5, SHAPE), 0, 1).astype(np.float32)
    normal = rng.normal(size=SHAPE).astype(np.float32)
    if kind == "sparse":
        normal *= rng.uniform(size=SHAPE) < 0.3
    if kind == "huge":
        normal *= 1e25
    if kind == "tied":
        normal = np.sign(normal)
    return x, normal


def reachable(x, normal):
    """The most that <normal, d> can be in the box, either way."""
    wide = normal.astype(np.float64)
    return (np.maximum(wide * (1 - x), -wide * x)).sum(), (
        np.minimum(wide * (1 - x), -wide * x)
    ).sum()


def norm_of(norm, d):
    d = np.abs(d.astype(np.float64)).ravel()
    return {"linf": d.max(), "l2": np.linalg.norm(d), "l1": d.sum()}[norm]


@pytest.mark.parametrize("norm", THREATS)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["dense", "sparse", "huge", "tied"]),
    fraction=st.floats(-0.98, 0.98),
)
def test_on_the_plane_in_the_box_and_smallest(norm, seed, kind, fraction):
    x, normal = problem(seed, kind)
    up, down = reachable(x, normal)
    gain = np.float32(fraction * up if fraction > 0 else -fraction * down)
    d = np.asarray(compiled(norm)(x, normal, gain))
    assert np.isfinite(d).all() and (x + d >= -1e-6).all() and (x + d <= 1 + 1e-6).all()
    scale = max(np.abs(normal).max(), 1e-30)
    np.testing.assert_allclose(
        (normal.astype(np.float64) * d).sum() / scale, gain / scale, atol=1e-5
    )
    # Optimal: no feasible point of a smaller ball gains as much (the ball's best is per component).
    target = norm_of(norm, d) * (1 - 1e-4) - 1e-6
    if target > 0:
        assert best_gain(norm, target, x, normal * (1 if gain > 0 else -1)) < abs(gain)


def best_gain(norm, radius, x, normal):
    """The most that <normal, .> grows in the ball and the box: see the attack contract."""
    size = np.abs(normal.astype(np.float64)).ravel()
    room = np.where(normal > 0, 1 - x, x).ravel().astype(np.float64)
    if norm == "linf":
        return (size * np.minimum(room, radius)).sum()
    if norm == "l1":
        order = np.argsort(-size)
        before = np.cumsum(room[order]) - room[order]
        return (np.clip(radius - before, 0, room[order]) * size[order]).sum()
    low, high = 0.0, 1e4 / max(size.max(), 1e-30)
    for _ in range(100):
        middle = (low + high) / 2
        inside = np.linalg.norm(np.minimum(size * middle, room)) <= radius
        low, high = (middle, high) if inside else (low, middle)
    return (size * np.minimum(size * low, room)).sum()


@pytest.mark.parametrize("norm", THREATS)
def test_beyond_reach_it_is_the_corner(norm):
    x, normal = problem(0, "dense")
    for sign in (1, -1):
        d = compiled(norm)(x, normal, np.float32(sign * 1e6))
        np.testing.assert_allclose(x + d, (sign * normal > 0).astype(np.float32), atol=1e-6)


@pytest.mark.parametrize("norm", THREATS)
def test_a_zero_normal_moves_nothing(norm):
    x, normal = problem(0, "dense")
    np.testing.assert_array_equal(compiled(norm)(x, 0 * normal, np.float32(1)), 0 * x)


def test_dual_norms():
    g = jnp.asarray([[[3.0, -4.0]]])
    values = [float(dual_norm(threat, g)) for threat in THREATS.values()]
    np.testing.assert_allclose(values, [7, 5, 4], rtol=1e-6)


def nearest(threat, values, gradients):
    """What a search makes of objectives with these values and gradients."""
    search = FAB(threat)
    return search._nearest(values, lambda weights: (jnp.tensordot(weights, gradients, 1),))


def test_nearest_plane_is_nearest_in_the_threats_norm():
    """Gap 1 is flatter in Linf, gap 0 in L1: the same two gaps, two answers."""
    gradients = jnp.asarray([[[[1.0, 1.0, 1.0]]], [[[2.0, 0.0, 0.0]]]])
    values, point = jnp.asarray([-1.0, -1.0]), jnp.zeros((1, 1, 3))
    chosen = {n: nearest(t, values, gradients) for n, t in THREATS.items()}
    np.testing.assert_array_equal(chosen["linf"].gradient, gradients[0])
    np.testing.assert_array_equal(chosen["l1"].gradient, gradients[1])
    plane = Plane(chosen["l1"].gradient, -chosen["l1"].value, point)
    assert float(plane.lacking(point)) == 1
    assert float(plane.lacking(point + 1)) == -1


@pytest.mark.parametrize("norm", THREATS)
def test_many_planes_are_compared_a_few_at_a_time(norm):
    """The last chunk is not full; masked, flat and NaN ones are never the nearest."""
    rng, count = np.random.default_rng(0), 2 * CHUNK + 3
    values = -rng.uniform(1, 2, count).astype(np.float32)
    gradients = rng.normal(size=(count, *SHAPE)).astype(np.float32)
    values[3], gradients[5], gradients[CHUNK] = -np.inf, 0, np.nan
    far = [
        -v / float(dual_norm(THREATS[norm], jnp.asarray(g)))
        if np.isfinite(v) and g.any() and np.isfinite(g).all()
        else np.inf
        for v, g in zip(values, gradients, strict=True)
    ]
    one_hot = np.nan_to_num(gradients)

    def pull(weights):
        broken = jnp.where(weights[CHUNK] != 0, jnp.nan, 0)
        return (jnp.tensordot(weights, one_hot, 1) + broken,)

    found = FAB(THREATS[norm])._nearest(jnp.asarray(values), pull)
    best = int(np.argmin(far))
    assert float(found.value) == values[best] and bool(found.broken)
    np.testing.assert_array_equal(found.gradient, gradients[best])


def test_rivals_are_the_wrong_classes_in_order():
    logits = jnp.asarray([0.5, 3.0, -1.0, 2.0])
    np.testing.assert_array_equal(rivals(logits, 1), [3, 0, 2])
    np.testing.assert_array_equal(rivals(logits, 0, 2), [1, 3])
    np.testing.assert_array_equal(rivals(logits, 0, 9), [1, 3, 2])
