"""Projections against independent solvers; steps, samples and steepest directions by their laws."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize

from robustjax.threats import L0, L1, L2, THREATS, Linf, radius, with_radius
from robustjax.threats._trees import check_threats, map_threats, scaled

SHAPE = (3, 1, 2)
RADII = {
    Linf: (0.0, 0.05, 0.4, 2.0),
    L2: (0.0, 0.2, 0.7, 9.0),
    L1: (0.0, 0.3, 1.5, 9.0),
    L0: (0.0, 1, 2, 9),
}
CASES = [(norm, eps) for norm, radii in RADII.items() for eps in radii]

fixed = settings(max_examples=40, deadline=None, derandomize=True)
pixel = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1, width=32))
images = arrays(np.float32, SHAPE, elements=pixel)
points = arrays(np.float32, SHAPE, elements=st.floats(-2, 3, width=32))
HIGH = (
    np.clip(np.random.default_rng(0).uniform(-0.1, 1.1, (32, 32, 3)), 0, 1).astype(np.float32),
    np.random.default_rng(1).choice([-1.0, -0.999, 1.0], (32, 32, 3)).astype(np.float32),
)
gradients = arrays(np.float32, SHAPE, elements=st.floats(-4, 4, width=16))

project = jax.jit(lambda threat, z, x: threat.project(z, x))
step = jax.jit(lambda threat, z, g, size, x: threat.step(z, g, size, x))
sample = jax.jit(jax.vmap(lambda threat, key, x: threat.sample(key, x), in_axes=(None, 0, None)))
steepest = jax.jit(lambda threat, g: threat.steepest(g))
distance = jax.jit(lambda threat, z, x: threat.distance(z, x))


def norm_of(norm, d):
    """The four norms again, in NumPy."""
    if norm is L0:
        return np.any(d != 0, axis=-1).sum()
    return {Linf: np.abs(d).max(), L2: np.sqrt((d**2).sum()), L1: np.abs(d).sum()}[norm]


def assert_inside(norm, eps, z, x):
    assert np.isfinite(z).all() and z.min() >= 0 and z.max() <= 1
    assert norm_of(norm, z.astype(np.float64) - x) <= eps * (1 + 1e-6) + 1e-6


def nearest(norm, eps, v, x):
    """The nearest feasible point by brute force or by a general solver."""
    v, x = v.astype(np.float64).ravel(), x.astype(np.float64).ravel()
    if norm is L0:
        best = x
        pixels = len(x) // SHAPE[-1]
        for chosen in itertools.combinations(range(pixels), int(min(eps, pixels))):
            mask = np.repeat(np.isin(np.arange(pixels), chosen), SHAPE[-1])
            candidate = np.where(mask, np.clip(v, 0, 1), x)
            best = min(best, candidate, key=lambda z: ((z - v) ** 2).sum())
        return best
    if norm is Linf:
        return np.array([min(max(a, b - eps, 0), b + eps, 1) for a, b in zip(v, x, strict=True)])
    # z = x + p - n with p, n >= 0 makes both constraints smooth.
    n = len(x)

    def move(s):
        return s[:n] - s[n:]

    size = (lambda s: eps**2 - (move(s) ** 2).sum()) if norm is L2 else (lambda s: eps - s.sum())
    result = minimize(
        lambda s: ((x + move(s) - v) ** 2).sum(),
        np.zeros(2 * n),
        jac=lambda s: np.concatenate([2 * (x + move(s) - v), -2 * (x + move(s) - v)]),
        bounds=[(0, 1 - b) for b in x] + [(0, b) for b in x],
        constraints={"type": "ineq", "fun": size},
        options={"maxiter": 500, "ftol": 1e-12},
        method="SLSQP",
    )
    return x + move(result.x)


@pytest.mark.parametrize(("norm", "eps"), CASES)
@fixed
@given(x=images, v=points)
def test_project_returns_the_nearest_point(norm, eps, x, v):
    z = np.asarray(project(norm(float(eps)), v, x))
    assert_inside(norm, eps, z, x)
    ours = ((z.astype(np.float64) - v) ** 2).sum()
    assert ours <= ((nearest(norm, eps, v, x) - v.ravel()) ** 2).sum() + 1e-4


@pytest.mark.parametrize(("norm", "eps"), CASES)
@fixed
@given(x=images, v=points)
def test_project_is_idempotent(norm, eps, x, v):
    z = project(norm(float(eps)), v, x)
    np.testing.assert_allclose(project(norm(float(eps)), z, x), z, atol=2e-6)


@pytest.mark.parametrize(("norm", "eps"), CASES)
@fixed
@given(x=images, v=points, g=gradients, size=st.floats(0, 3, width=32))
def test_step_ends_inside_and_never_loses_on_a_linear_function(norm, eps, x, v, g, size):
    threat = norm(float(eps))
    start = np.asarray(project(threat, v, x))
    end = np.asarray(step(threat, start, g, size, x))
    assert_inside(norm, eps, end, x)
    assert ((end.astype(np.float64) - start) * g).sum() >= -1e-4


@pytest.mark.parametrize("norm", [Linf, L2, L1])
@fixed
@given(x=images, g=gradients, size=st.floats(0, 1, width=32))
def test_step_has_at_most_its_length(norm, x, g, size):
    moved = np.asarray(step(norm(2.0), x, g, size, x)).astype(np.float64) - x
    assert norm_of(norm, moved) <= size * (1 + 1e-5) + 1e-6


@pytest.mark.parametrize("norm", RADII)
def test_a_zero_gradient_moves_nothing(norm):
    x = np.linspace(0, 1, 6, dtype=np.float32).reshape(SHAPE)
    z = np.asarray(project(norm(1.0), x + 0.3, x))
    zero = np.zeros_like(x)
    np.testing.assert_array_equal(steepest(norm(1.0), zero), zero)
    np.testing.assert_allclose(step(norm(1.0), z, zero, 0.5, x), z, atol=1e-7)


@fixed
@given(g=gradients)
def test_steepest_has_unit_norm_and_attains_the_dual_norm(g):
    if not g.any():
        return
    dual = {
        Linf: np.abs(g).sum(),
        L2: np.sqrt((g.astype(np.float64) ** 2).sum()),
        L1: np.abs(g).max(),
    }
    for norm, value in dual.items():
        direction = np.asarray(steepest(norm(1.0), g))
        assert norm_of(norm, direction) == pytest.approx(1, rel=1e-5)
        assert (g * direction).sum() == pytest.approx(value, rel=1e-5)
    assert norm_of(L0, np.asarray(steepest(L0(1.0), g))) == 1


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_l2_steepest_survives_extreme_gradients(size):
    direction = L2(1.0).steepest(size * jnp.array([[[3.0, -4.0]]]))
    np.testing.assert_allclose(direction, [[[0.6, -0.8]]], rtol=1e-6)


@pytest.mark.parametrize(("norm", "eps"), CASES)
def test_samples_lie_inside_and_differ(norm, eps):
    x = np.linspace(0, 1, 48, dtype=np.float32).reshape(4, 6, 2)
    keys = jax.random.split(jax.random.key(0), 50)
    samples = np.asarray(sample(norm(float(eps)), keys, x))
    for z in samples:
        assert_inside(norm, eps, z, x)
    assert (len(np.unique(samples.reshape(50, -1), axis=0)) == 1) == (eps == 0)


def test_samples_fill_the_ball_uniformly():
    """In d dimensions the radius of a uniform point is eps u^(1/d): its mean is eps d / (d + 1)."""
    x = jnp.full((2, 2, 1), 0.5)
    for norm in (L2, L1):
        keys = jax.random.split(jax.random.key(0), 4000)
        z = sample(norm(0.4), keys, x)
        radius = jax.vmap(norm(0.4).distance, in_axes=(0, None))(z, x)
        assert float(radius.mean()) == pytest.approx(0.4 * 4 / 5, rel=0.01)


@fixed
@given(x=images, z=images)
def test_distance_is_the_norm(x, z):
    for norm in RADII:
        expected = norm_of(norm, z.astype(np.float64) - x)
        assert float(distance(norm(1.0), z, x)) == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("norm", RADII)
def test_eps_may_be_traced(norm):
    x = jnp.linspace(0, 1, 6).reshape(SHAPE)
    shifted = x + 0.3
    traced = jax.jit(lambda eps: norm(eps).project(shifted, x))
    np.testing.assert_allclose(traced(1.0), norm(1.0).project(shifted, x), atol=1e-7)


@pytest.mark.parametrize("norm", RADII)
def test_bits_do_not_depend_on_the_neighbours(norm):
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(128, 8, 8, 3)).astype(np.float32)
    v, g = (x + 0.3 * rng.normal(size=(2, *x.shape))).astype(np.float32)
    both = jax.jit(jax.vmap(lambda x, v, g: norm(2.0).step(norm(2.0).project(v, x), g, 0.5, x)))
    whole = np.asarray(both(x, v, g))
    parts = [both(x[i : i + 4], v[i : i + 4], g[i : i + 4]) for i in range(0, 128, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("norm", RADII)
def test_a_negative_radius_is_refused(norm):
    with pytest.raises(ValueError, match="eps must lie in"):
        norm(-0.1)


def test_a_radius_in_grey_levels_is_refused_where_it_is_made():
    for eps in (8, 8.0, np.float32(8)):
        with pytest.raises(ValueError, match=r"is 8/255 meant\?"):
            Linf(eps)
    for eps in (2.0, float("inf"), jnp.float32(8)):  # a curve's end, none at all, one of a program
        assert Linf(eps).eps == eps


def test_no_two_threats_share_a_compiled_program():
    """Equal treedefs would let jit run one norm's program for another (see `config._register`)."""
    structures = [jax.tree.structure(norm(1.0)) for norm in RADII]
    assert all(a != b for a, b in itertools.combinations(structures, 2))


@pytest.mark.parametrize("scale", [0.003, 0.1, 3.0])
@pytest.mark.parametrize(
    "threat",
    [Linf(0.001), Linf(8 / 255), L2(0.01), L2(0.5), L2(9.0), L1(0.01), L1(12.0), L0(10.0)],
    ids=repr,
)
def test_rounding_of_thousands_of_components_stays_inside(threat, scale):
    """Dense moves of a CIFAR-10 image: what each component may be off adds up in L1."""
    x, g = HIGH
    z = project(threat, x + np.float32(scale) * g, x)
    moved = step(threat, z, g[::-1], np.float32(0.3 * threat.eps), x)
    for result in (z, moved):
        assert_inside(type(threat), threat.eps, np.asarray(result), x)


@pytest.mark.parametrize(("eps", "share"), [(0.01, 1e-2), (12.0, 1e-4)])
def test_the_l1_projection_of_thousands_of_components_fills_the_ball(eps, share):
    """Rounding takes off a bit of each pixel at most: 1 % where the moves are of a few bits."""
    x, g = HIGH
    z = np.asarray(project(L1(eps), x + np.float32(0.1) * g, x))
    assert norm_of(L1, z.astype(np.float64) - x) == pytest.approx(eps, rel=share)


def test_map_threats_reaches_every_threat_in_a_tree():
    tree = {"a": (Linf(0.1), 3), "b": [L2(0.5)]}
    doubled = map_threats(lambda threat: type(threat)(2 * threat.eps), tree)
    assert doubled == {"a": (Linf(0.2), 3), "b": [L2(1.0)]}


def test_the_command_line_knows_every_threat():
    assert set(map(type, THREATS.values())) == set(RADII)


MASK = np.array([1, 0, 1, 1, 0, 1], np.float32).reshape(SHAPE)
LOW = np.array([-1, 0, -0.5, -1, 0, 0], np.float32).reshape(SHAPE)
RESTRICTED = {
    "bounds": {"bounds": (-0.5, 1.25)},
    "arrays and a mask": {"bounds": (LOW, 1.5), "mask": MASK},
}


@pytest.mark.parametrize("kind", RESTRICTED)
@pytest.mark.parametrize("norm", [Linf, L2, L1, L0])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(x=images, v=points, g=gradients, size=st.floats(0, 3, width=32))
def test_bounds_and_masks_hold_everywhere_and_project_stays_exact(norm, kind, x, v, g, size):
    x = np.where(x < 1e-30, 0, x)  # XLA rounds subnormal numbers to zero
    threat = norm(1.0, **RESTRICTED[kind])
    low, high = (np.broadcast_to(b, SHAPE) for b in threat.bounds)
    free = np.ones(SHAPE, bool) if threat.mask is None else MASK > 0
    drawn = sample(threat, jax.random.split(jax.random.key(0), 1), x)[0]
    z = np.asarray(project(threat, v, x))
    for point in (z, step(threat, z, g, size, x), drawn):
        point = np.asarray(point)
        assert (point == x)[~free].all() and (point >= low).all() and (point <= high).all()
        assert norm_of(norm, point.astype(np.float64) - x) <= 1 + 2e-6
    assert not np.asarray(steepest(threat, g))[~free].any()
    better = x + 0.9 * (np.asarray(project(threat, 2 * v - x, x)) - x)  # another point of the set
    if norm is not L0:  # the angle of a projection onto a convex set is never acute
        assert ((v - z)[free] * (better - z)[free]).sum() <= 1e-4


def test_a_change_under_the_mask_is_infinitely_far():
    x = np.full(SHAPE, 0.5, np.float32)
    for norm in RADII:
        threat = norm(1.0, mask=MASK)
        assert threat.distance(x + 0.1 * MASK, x) < 9
        assert np.isinf(threat.distance(x + 0.1, x))


def test_an_eps_per_feature_gives_each_its_share():
    eps = np.array([0.4, 0.1, 0.0, 0.2, 0.4, 0.0], np.float32).reshape(SHAPE)
    threat, x = Linf(eps), np.full(SHAPE, 0.5, np.float32)
    assert radius(threat) == np.float32(0.4)
    np.testing.assert_allclose(threat.project(x + 1, x) - x, eps, atol=1e-6)
    np.testing.assert_allclose(threat.steepest(-np.ones(SHAPE)), -eps / 0.4, rtol=1e-6)
    for factor in (0.5, 1.0, 2.0):
        assert threat.distance(x + factor * eps, x) == pytest.approx(0.4 * factor, rel=1e-5)
    assert np.isinf(threat.distance(x + 1e-3, x))
    half = with_radius(threat, 0.2)
    np.testing.assert_allclose(half.eps, eps / 2)
    np.testing.assert_allclose(scaled(threat, 0.5).eps, half.eps)
    rows = with_radius(threat, np.array([0.2, 0.4], np.float32))
    np.testing.assert_allclose(rows.eps, [eps / 2, eps])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L0(0.5), "L0 counts pixels, so eps must be 0 or at least 1, got 0.5"),
        (lambda: L0(3.0, None), "L0 needs bounds"),
        (lambda: L2(float("nan")), "eps must lie in"),
        (lambda: L2(jnp.float32(jnp.nan)), "eps must lie in"),
        (lambda: Linf(jnp.float32(-1)), "eps must lie in"),
        (lambda: Linf([0.1, 0.2]), "eps must be a number or an array"),
        (lambda: L2(np.full((4, 4, 1), 0.1)), "only Linf has an eps per feature"),
        (lambda: Linf(np.full((4, 4, 1), np.inf)), "must be finite"),
        (lambda: Linf(0.1, (1, 0)), r"must be \(low, high\)"),
        (lambda: Linf(0.1, (0, 0.5, 1)), "bounds must hold 2 values"),
    ],
)
def test_threats_that_mean_nothing_are_refused(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@pytest.mark.parametrize(
    ("eps", "message"),
    [
        (np.ones(5), "an entry per example, but there are 4 images"),
        (np.ones((2, 4, 1)), "does not fit images"),
        (np.ones((4, 1, 1, 3)), "does not fit images"),
        (np.ones((5, 1, 1, 1)), "there are 4 images"),
    ],
)
def test_what_does_not_fit_the_images_is_refused(eps, message):
    with pytest.raises(ValueError, match=message):
        check_threats({"a": Linf(eps)}, np.zeros((4, 4, 4, 1)))


def test_as_many_examples_as_channels_must_be_told_apart():
    with pytest.raises(ValueError, match="is ambiguous"):
        check_threats(Linf(np.ones(3)), np.zeros((3, 4, 4, 3)))
    check_threats(Linf(np.ones((3, 1, 1, 1))), np.zeros((3, 4, 4, 3)))
    check_threats(Linf(np.ones((1, 1, 3))), np.zeros((3, 4, 4, 3)))


def test_a_threat_with_an_entry_per_example_is_no_threat_of_one_image():
    with pytest.raises(ValueError, match="perturb, evaluate and curve split it"):
        Linf(np.ones(3)).project(np.zeros(SHAPE), np.zeros(SHAPE))


def test_plain_threats_cost_what_a_clip_to_zero_and_one_costs():
    """Bounds that are numbers are part of the program, and no mask is no operation."""
    x = jnp.zeros(SHAPE)

    def plain(eps, z):
        return jnp.clip(z, jnp.maximum(x - eps, 0.0), jnp.minimum(x + eps, 1.0))

    def ours(threat, z):
        return threat.project(z, x)

    expected = jax.make_jaxpr(plain)(0.1, x)
    found = jax.make_jaxpr(ours)(Linf(0.1), x)
    assert str(found) == str(expected)
    assert len(jax.tree.leaves(Linf(0.1))) == 1 == len(jax.tree.leaves(L2(0.1, (-1, 2))))
