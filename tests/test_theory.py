"""The papers' claims, by known answers, by sampling, and where an assumption is broken."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from robustjax import centers, theory
from robustjax.theory import discriminant

MEANS = np.random.default_rng(1).standard_normal((2, 5))
ROOT = np.tril(np.random.default_rng(2).uniform(0.3, 1.5, (5, 5)))
COVARIANCE = ROOT @ ROOT.T
SAMPLES = 200_000


@pytest.fixture(autouse=True)
def one_thread():
    """BLAS threads wait for each other on matrices of this size."""
    with threadpool_limits(1, "blas"):
        yield


# Theorem 1 of Max-Mahalanobis.


def test_the_table_of_expected_distances():
    found = theory.expected_distance(np.array([0, 0.25, 0.5, 1, 2, 3, 4, 5]))
    expected = [0.797885, 0.804110, 0.822689, 0.895593, 1.166631, 1.558614, 2.016981, 2.504008]
    np.testing.assert_allclose(found, expected, atol=5e-7)


@hypothesis.given(st.floats(0, 30), st.floats(1e-3, 30))
@hypothesis.example(16.625, 1.0)
def test_the_expected_distance_grows_and_approaches_half_of_delta(delta, more):
    here, there = (float(theory.expected_distance(d)) for d in (delta, delta + more))
    rounding = 1e-14 * (1 + delta)
    assert here <= there and delta / 2 - rounding <= here
    assert here <= delta / 2 + 0.8 * np.exp(-(delta**2) / 8) + rounding
    if delta < 5:
        assert here < there


def test_sampled_features_have_the_expected_distance_whatever_the_covariance():
    assert abs(theory.distance_deviation(MEANS, COVARIANCE, samples=SAMPLES)) < 4
    assert abs(theory.distance_deviation(MEANS, np.eye(5), samples=SAMPLES)) < 4


def test_the_spec_of_two_standard_classes():
    mean, error = theory.sampled_distance(np.diag([3.0, 0.0]), np.eye(2), samples=SAMPLES)
    assert mean == pytest.approx(1.558614, abs=4 * error)
    assert error == pytest.approx(1 / np.sqrt(SAMPLES), rel=0.1)


def test_unequal_priors_break_theorem_1():
    assert theory.distance_deviation(MEANS, COVARIANCE, 0.9, SAMPLES) > 50


@pytest.mark.parametrize(
    ("num_classes", "bound"), [(2, 10.0), (3, 8.66025), (10, 7.45356), (100, 7.10669)]
)
def test_only_max_mahalanobis_centers_attain_the_bound(num_classes, bound):
    simplex = centers.max_mahalanobis(num_classes, 100, 10.0)
    assert theory.robustness_bound(num_classes, 10.0) == pytest.approx(bound, abs=5e-6)
    assert theory.approximate_robustness(simplex) == pytest.approx(bound, abs=1e-5)
    assert abs(theory.bound_slack(simplex)) < 1e-5
    for seed in range(20):
        assert theory.bound_slack(centers.random(num_classes, 100, 10.0, seed)) > 1e-3
    crowded = centers.packing(num_classes + 3, 2, 10.0)
    assert theory.bound_slack(crowded) > 1e-3


def test_the_approximation_never_exceeds_the_robustness():
    for seed in range(20):
        found = centers.random(4, 3, 1.0, seed)
        excess = theory.robustness(found) - theory.approximate_robustness(found)
        assert 0 < excess < 0.8
    far = centers.max_mahalanobis(10, 9, 10.0)
    assert theory.robustness(far) == pytest.approx(theory.approximate_robustness(far), abs=1e-9)


# Contours of g-SCE.


def model(seed, classes=4, dim=3):
    rng = np.random.default_rng(seed)
    scales = rng.uniform(0.2, 2.0, classes)
    return theory.GSCE(rng.standard_normal((classes, dim)), scales, rng.standard_normal(classes))


def lying(gsce):
    """A pair (label, rival) whose label has the larger scale, and the reverse."""
    order = np.argsort(gsce.scales)
    return (int(order[-1]), int(order[0])), (int(order[0]), int(order[-1]))


@hypothesis.given(st.integers(0, 10**6), st.floats(0.02, 3))
@hypothesis.settings(max_examples=60)
def test_the_loss_is_constant_on_the_sphere(seed, beyond):
    gsce = model(seed)
    for sign, pair in zip((1, -1), lying(gsce), strict=True):
        extreme = theory.extreme_loss(gsce, *pair)
        loss = extreme * np.exp(sign * beyond)
        hypothesis.assume(1e-6 < loss < 100)
        assert theory.contour(gsce, *pair, loss).squared_radius > 0
        assert theory.contour_deviation(gsce, *pair, loss) < 1e-9 * max(1, loss)
        none = extreme * np.exp(-sign * beyond)
        hypothesis.assume(1e-6 < none < 100)
        assert theory.contour(gsce, *pair, none).squared_radius < 0
        with pytest.raises(ValueError, match=r"no feature has the loss"):
            theory.contour_deviation(gsce, *pair, none)


def test_a_loss_beyond_the_range_of_its_exponential_has_a_contour():
    """e^1000 is no float64; R^2 grows linearly there."""
    gsce = model(0)
    for pair in lying(gsce):
        near, far, farther = (
            theory.contour(gsce, *pair, c).squared_radius for c in (500, 1e3, 2e3)
        )
        assert farther - far == pytest.approx(2 * (far - near))


def test_the_loss_at_the_middle_of_the_spheres_is_extreme():
    for seed in range(10):
        gsce = model(seed)
        for sign, pair in zip((1, -1), lying(gsce), strict=True):
            middle = theory.contour(gsce, *pair, 1.0).center
            extreme = theory.extreme_loss(gsce, *pair)
            assert gsce.pair_loss(middle, *pair) == pytest.approx(extreme, rel=1e-9)
            around = middle + 0.1 * np.random.default_rng(seed).standard_normal((50, 3))
            assert (sign * (gsce.pair_loss(around, *pair) - extreme) > -1e-12).all()


@pytest.mark.parametrize("loss", [0.01, 0.7, 5.0])
def test_equal_scales_have_hyperplanes(loss):
    gsce = model(0)._replace(scales=np.full(4, 0.5))
    assert theory.hyperplane_deviation(gsce, 1, 3, loss) < 1e-9
    with pytest.raises(ValueError, match=r"hyperplanes.*`hyperplane`"):
        theory.contour(gsce, 1, 3, loss)
    with pytest.raises(ValueError, match=r"spheres.*`contour`"):
        theory.hyperplane_deviation(model(0), 1, 3, loss)


def test_softmax_cross_entropy_is_a_member():
    """W z + b and -|z - W / 2|^2 + b + |W|^2 / 4 differ by |z|^2, the same for all classes."""
    rng = np.random.default_rng(0)
    kernel, bias, z = rng.standard_normal((5, 3)), rng.standard_normal(5), rng.standard_normal(3)
    gsce = theory.GSCE(kernel / 2, np.ones(5), bias + np.sum(kernel**2, 1) / 4)
    np.testing.assert_allclose(gsce.logits(z) + z @ z, kernel @ z + bias, rtol=1e-12)


@hypothesis.given(st.integers(0, 10**6), st.integers(2, 12), st.floats(0.01, 30))
def test_one_rival_is_within_log_of_the_number_of_rivals(seed, classes, scale):
    logits = scale * np.random.default_rng(seed).standard_normal(classes)
    assert theory.strongest_rival_slack(logits, 0) > -1e-9


def test_both_ends_of_that_interval_are_attained():
    crowd = np.zeros(10)
    crowd[0] = -50
    assert theory.strongest_rival_slack(crowd, 0) == pytest.approx(0, abs=1e-9)  # log 9
    alone = np.full(10, -50.0)
    alone[:2] = 0
    assert theory.strongest_rival_slack(alone, 0) == pytest.approx(0, abs=1e-9)  # 0
    assert theory.strongest_rival_slack(np.zeros(10), 0) > 0.1


# Sample density.


def test_a_thin_shell_of_mmc_holds_as_many_points_as_its_density_says():
    center = np.array([1.0, -2.0, 0.5])

    def loss(z):
        return np.sum((z - center) ** 2, 1) / 2

    found = theory.shell_deviation(loss, theory.mmc_shell, center, (2.0, 2.2), SAMPLES)
    assert abs(found) < 0.03


@pytest.mark.parametrize("way", [0, 1])
def test_a_thin_shell_of_gsce_holds_as_many_points_as_its_density_says(way):
    gsce = model(3)
    pair = lying(gsce)[way]
    extreme = theory.extreme_loss(gsce, *pair)
    low = extreme * 2 if way == 0 else extreme * 0.5
    found = theory.shell_deviation(
        lambda z: gsce.pair_loss(z, *pair),
        lambda c: theory.gsce_shell(gsce, *pair, c),
        theory.contour(gsce, *pair, low).center,
        (low, 1.05 * low),
        SAMPLES,
    )
    assert abs(found) < 0.03


def test_the_rate_of_the_radius():
    gsce = model(3)
    for pair, loss in zip(lying(gsce), (3.0, 0.2), strict=True):
        ahead, here, behind = (theory.gsce_shell(gsce, *pair, loss + h) for h in (1e-6, 0.0, -1e-6))
        rate = abs(ahead.radius - behind.radius) / 2e-6
        assert here.thickness == pytest.approx(rate, rel=1e-6)
    ahead, behind = theory.mmc_shell(2 + 1e-6), theory.mmc_shell(2 - 1e-6)
    rate = (ahead.radius - behind.radius) / 2e-6
    assert theory.mmc_shell(2.0).thickness == pytest.approx(rate, rel=1e-6)


def test_the_exact_exponent_finds_a_normal_density_and_the_papers_drifts():
    """z ~ N(0, I_8): loss over its quantiles, density at the middle of each bin."""
    dim, count = 8, 400_000
    z = np.random.default_rng(0).standard_normal((count, dim))
    losses = np.sum(z**2, 1) / 2
    edges = np.quantile(losses, [0.1, 0.2, 0.4, 0.5, 0.7, 0.8])
    mass = np.histogram(losses, edges)[0] / np.diff(edges)
    middle = (edges[1:] + edges[:-1]) / 2
    truth = count * (2 * np.pi) ** (-dim / 2) * np.exp(-middle)
    shell = theory.mmc_shell(middle)
    np.testing.assert_allclose(theory.density_exact(mass, shell, dim) / truth, 1, atol=0.03)
    ratio = theory.density_paper(mass, shell, dim) / truth
    np.testing.assert_allclose(ratio * shell.radius, 1, atol=0.03)
    assert ratio[-1] < 0.8 * ratio[0]


def test_the_formulas_are_those_written_out():
    dim, loss = 5, np.array([0.1, 1.0, 7.0])
    surface = 8 * np.pi**2 / 3  # of the unit sphere in five dimensions
    exact = theory.density_exact(3.0, theory.mmc_shell(loss), dim)
    np.testing.assert_allclose(exact, 3 / (surface * (2 * loss) ** 1.5), rtol=1e-12)
    paper = theory.density_paper(3.0, theory.mmc_shell(loss), dim)
    np.testing.assert_allclose(paper, 3 / (surface * (2 * loss) ** 2), rtol=1e-12)
    plane = theory.density_exact(3.0, theory.mmc_shell(loss), 2)
    np.testing.assert_allclose(plane, 3 / (2 * np.pi), rtol=1e-12)


@pytest.mark.parametrize("dim", [2, 5])
def test_neighbours_find_a_known_density(dim):
    rng = np.random.default_rng(0)
    z, queries = rng.standard_normal((20_000, dim)), 0.5 * rng.standard_normal((2_000, dim))
    truth = np.log(20_000) - dim / 2 * np.log(2 * np.pi) - np.sum(queries**2, 1) / 2
    error = theory.knn_log_density(z, queries) - truth
    assert abs(error.mean()) < 0.03 * dim and error.std() < 0.35
    few = theory.knn_log_density(z, queries, 3) - truth  # log 3 instead of digamma(3) adds 0.18
    assert abs(few.mean()) < 0.08
    own = theory.knn_log_density(z)
    np.testing.assert_allclose(own[:50], theory.knn_log_density(z, z[:50], 21)[:50], atol=0.1)


def test_neighbours_need_enough_features_and_survive_equal_ones():
    z = np.random.default_rng(0).standard_normal((20, 3))
    with pytest.raises(ValueError, match=r"k must lie in \[1, 19\]"):
        theory.knn_log_density(z)
    assert theory.knn_log_density(z, z[:2]).shape == (2,)
    assert (theory.knn_log_density(np.zeros((30, 3))) == np.inf).all()


def test_the_density_knows_the_scale_until_classes_are_a_unit_apart():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    z = centers.max_mahalanobis(3, 2)[labels] + 0.1 * rng.standard_normal((300, 2))
    here, there = (theory.knn_log_density(a * z) for a in (1, 10))
    np.testing.assert_allclose(there, here - 2 * np.log(10), rtol=1e-9)
    np.testing.assert_allclose(
        theory.unit_distance(z, labels), theory.unit_distance(10 * z, labels), rtol=1e-12
    )
    corners = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])  # 3, 4 and 5 apart
    np.testing.assert_allclose(theory.unit_distance(corners, np.arange(3)), corners / 4)
    with pytest.raises(ValueError, match=r"L >= 2"):
        theory.unit_distance(z, np.zeros(300))


# Discriminant analysis and logistic regression.


def test_the_table_of_efron():
    found = [theory.efron_efficiency(d) for d in (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4)]
    expected = [1.000, 1.000, 0.995, 0.968, 0.899, 0.786, 0.641, 0.486, 0.343]
    np.testing.assert_allclose(found, expected, atol=5.1e-4)
    assert 0 < theory.efron_efficiency(60.0) < 1e-100  # where the cosh of the formula overflows


def test_both_rules_learn_as_efron_says():
    assert abs(theory.efron_deviation(3.0, 3, 1000, 100)) < 4


def test_errors_in_proportion_have_a_ratio_without_error(monkeypatch):
    """It is paired: both rules learn from the same samples."""
    above = np.array([[0.01, 0.02, 0.06]])
    bayes = theory.error_rate(2.0)
    errors = {"LDA": bayes + 0.5 * above, "logistic regression": bayes + above}
    monkeypatch.setattr(discriminant, "learned_errors", lambda *args: errors)
    assert theory.sampled_efficiency(2.0, 3, 100, 3) == pytest.approx((0.5, 0.0), abs=1e-9)


def test_the_exact_error_is_the_one_of_many_samples():
    mixture = theory.Mixture(
        np.array([[0.0, 0.0], [2.0, 1.0], [9.0, 0.0]]),
        np.array([0.5, 0.3, 0.2]),
        np.array([0, 1, 1]),
    )
    features, labels = mixture.sample(SAMPLES, np.random.default_rng(0))
    normal, offset = np.array([1.0, 0.5]), -0.8
    wrong = np.mean((features @ normal + offset > 0) != (labels == 1))
    assert mixture.error(normal, offset) == pytest.approx(wrong, abs=4 * np.sqrt(0.2 / SAMPLES))


def test_the_best_rule_of_two_normals_has_bayes_error():
    mixture = theory.two_normals(3.0, 4)
    assert mixture.error(np.eye(4)[0], 0.0) == pytest.approx(theory.error_rate(3.0), rel=1e-12)
    assert theory.error_rate(3.0) == pytest.approx(0.0668072)


def test_outside_its_model_lda_stays_wrong():
    """A far cluster of class 1, easy to tell apart, pulls the class mean across the rest of it."""
    mixture = theory.Mixture(
        np.array([[0.0, 0.0], [3.0, 0.0], [15.0, 0.0]]),
        np.array([0.5, 0.35, 0.15]),
        np.array([0, 1, 1]),
    )
    errors = theory.learned_errors(mixture, (5000,), 3)
    assert (errors["LDA"] > 0.15).all() and (errors["logistic regression"] < 0.07).all()


# Free points.


BATCHES = (5, 25, 100)


@pytest.fixture(scope="module")
def courses():
    triangle = centers.max_mahalanobis(3, 2).astype(float)
    return triangle, {
        kind: [course(triangle, 100, batch, 60) for batch in BATCHES]
        for kind, course in (("mmc", theory.mmc_course), ("center", theory.center_loss_course))
    }


def test_under_mmc_a_point_goes_straight_by_nine_tenths(courses):
    triangle, found = courses
    for course in found["mmc"]:
        assert theory.contraction_deviation(course, triangle) < 1e-6
        np.testing.assert_allclose(theory.path_ratio(course), 1, atol=1e-9)
        np.testing.assert_array_equal(course.positions, found["mmc"][0].positions)
    slower = theory.mmc_course(triangle, 100, 10, 5, lr=0.3)
    assert theory.contraction_deviation(slower, triangle, 0.3) < 1e-6
    assert theory.contraction_deviation(slower, triangle) > 0.1


def test_under_center_loss_its_path_bends_and_depends_on_the_batch(courses):
    _, found = courses
    ends = [course.positions[-1] for course in found["center"]]
    for course in found["center"]:
        assert theory.path_ratio(course).mean() > 1.1
        np.testing.assert_array_equal(course.positions[0], found["mmc"][0].positions[0])
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert np.linalg.norm(ends[a] - ends[b], axis=1).mean() > 0.1


def test_center_loss_moves_points_head_and_centers_as_it_is_written():
    """One point after the other; all are in the batch, so their order means nothing."""
    triangle, lr, weight = centers.max_mahalanobis(3, 2).astype(float), 0.1, 0.7
    found = theory.center_loss_course(triangle, 6, 6, 2, lr, weight, seed=4)
    z, labels = found.positions[0].copy(), found.labels
    head, bias = np.random.default_rng(4).standard_normal((3, 2)), np.zeros(3)
    running = np.zeros((3, 2))
    for after in found.positions[1:]:
        wrong = softmax(z @ head.T + bias, 1) - np.eye(3)[labels]
        away = [z[i] - running[y] for i, y in enumerate(labels)]
        moved = [z[i] - lr * (wrong[i] @ head + weight * away[i]) for i in range(6)]
        head = head - lr * np.mean([np.outer(wrong[i], z[i]) for i in range(6)], 0)
        bias = bias - lr * wrong.mean(0)
        for j in range(3):
            members = np.flatnonzero(labels == j)
            running[j] += 0.5 * sum(away[i] for i in members) / (1 + len(members))
        z = np.array(moved)
        np.testing.assert_allclose(z, after, rtol=1e-12)


def test_batches_have_one_size():
    with pytest.raises(ValueError, match=r"batch_size must divide the 100 points, got 7"):
        theory.mmc_course(np.eye(2), 100, 7, 1)


# Errors.

ONE_CENTER = theory.GSCE(np.ones((2, 3)), np.ones(2), np.zeros(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.expected_distance(-1.0), "delta is a distance"),
        (lambda: theory.expected_distance(np.nan), "delta must be finite"),
        (
            lambda: theory.sampled_distance(np.eye(3), np.eye(3)),
            r"means must have the shape \(2, d\)",
        ),
        (
            lambda: theory.sampled_distance(np.eye(2), np.eye(3)),
            r"covariance must have the shape \(d, d\)",
        ),
        (lambda: theory.sampled_distance(np.eye(2), np.eye(2), prior=1.0), "prior"),
        (lambda: theory.sampled_distance(np.ones((2, 2)), np.eye(2)), "no boundary"),
        (lambda: theory.robustness_bound(1, 1.0), "num_classes"),
        (lambda: theory.contour(model(0), 0, 1, 0.0), "loss must be positive"),
        (lambda: theory.sampled_distance(np.eye(2), np.eye(2), samples=1), "samples"),
        (lambda: theory.sampled_distance(np.eye(2), np.tri(2)), "covariance must be symmetric"),
        (lambda: theory.bound_slack(np.ones(3)), r"centers must have the shape \(L, d\)"),
        (lambda: theory.hyperplane(model(0), 0, 1, np.nan), "loss must be a number"),
        (lambda: theory.contour(model(0), 0, 4, 1.0), "two of the 4 classes, got 0 and 4"),
        (lambda: theory.contour(model(0), 0, -1, 1.0), "two of the 4 classes, got 0 and -1"),
        (lambda: theory.hyperplane(ONE_CENTER, 1, 1, 1.0), "two of the 2 classes, got 1 and 1"),
        (lambda: theory.hyperplane(ONE_CENTER, 0, 1, 1.0), "the same loss everywhere"),
        (lambda: theory.strongest_rival_slack(np.zeros(1), 0), "logits must have at least 2"),
        (lambda: theory.strongest_rival_slack(np.zeros(3), 3), "label"),
        (lambda: theory.mmc_shell(0.0), "loss must be positive"),
        (lambda: theory.density_exact(1.0, theory.mmc_shell(1.0), 0), "dim"),
        (lambda: theory.unit_distance(np.ones((4, 2)), np.arange(4) % 2), "class means coincide"),
        (lambda: theory.two_normals(-1.0, 2), "delta"),
        (lambda: theory.error_rate(-1.0), "delta"),
        (lambda: theory.efron_efficiency(-1.0), "delta"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
