"""Heads: distances to centers as logits, what is trained and what is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from robustjax import centers, losses, models
from robustjax.models import BN
from robustjax.models.heads import HEADS

K, D, SHAPE = 4, 6, (8, 8, 1)
FIXED = ("max-mahalanobis", "random-centers")


def build(head, **options):
    options = {"width": 2, "feature_dim": D} | options
    return models.create("cnn", num_classes=K, head=head, **options)


@pytest.fixture(scope="module", params=HEADS)
def network(request):
    """(head, model, variables, images)."""
    model = build(request.param)
    images = 4 * jax.random.uniform(jax.random.key(1), (5, *SHAPE))
    return request.param, model, models.init(model, jax.random.key(0), SHAPE), images


def test_the_projection_makes_the_features_and_they_have_any_sign(network):
    _, model, variables, images = network
    z, logits = model.apply(variables, images, BN("running"), method="both")
    assert z.shape == (5, D) and logits.shape == (5, K) and logits.dtype == jnp.float32
    assert (z < 0).any() and (z > 0).any()
    logits_fn, features_fn = models.apply(model, variables)
    np.testing.assert_array_equal(features_fn(images), z)
    np.testing.assert_array_equal(logits_fn(images), logits)
    before = model.body.body.apply(
        {"params": variables["params"]["body"]["body"]},
        model.apply(variables, images, BN("running"), method="stem_output"),
        BN("running"),
    )
    linear = variables["params"]["body"]["projection"]
    np.testing.assert_allclose(z, before @ linear["kernel"] + linear["bias"][None], atol=1e-5)


def test_only_what_is_trained_is_a_parameter(network):
    head, _, variables, _ = network
    trained = {
        "linear": {"kernel", "bias"},
        "cosine": {"kernel"},
        "center": {"linear"},
        "lgm": {"centers"},
        "gsce": {"centers", "log_precisions", "biases"},
    }
    assert set(variables["params"].get("head", {})) == trained.get(head, set())
    assert set(variables) == (
        {"params"} if head not in ("center", "packing") else {"params", "centers"}
    )


def test_distances_become_logits_and_the_nearest_center_wins(network):
    head, model, variables, images = network
    if head in ("linear", "center"):
        kernel = variables["params"]["head"]
        kernel = kernel.get("linear", kernel)
        z, logits = model.apply(variables, images, BN("running"), method="both")
        np.testing.assert_allclose(logits, z @ kernel["kernel"], atol=1e-5)
        return
    if head == "cosine":
        kernel = np.asarray(variables["params"]["head"]["kernel"], np.float64)
        z, logits = model.apply(variables, images, BN("running"), method="both")
        cosines = z @ kernel / np.linalg.norm(z, axis=-1, keepdims=True)
        want = 10.0 * cosines / np.linalg.norm(kernel, axis=0, keepdims=True)
        np.testing.assert_allclose(logits, want, atol=1e-5)
        return
    mu = {
        "max-mahalanobis": lambda: centers.max_mahalanobis(K, D, 10.0),
        "random-centers": lambda: centers.random(K, D, 10.0, 0),
        "packing": lambda: variables["centers"]["head"]["packing"],
    }.get(head, lambda: variables["params"]["head"]["centers"])()
    z, logits = model.apply(variables, images, BN("running"), method="both")
    squares = ((np.asarray(z, np.float64)[:, None] - mu[None]) ** 2).sum(-1)
    np.testing.assert_allclose(logits, -squares / 2, rtol=1e-5)
    np.testing.assert_array_equal(logits.argmax(-1), squares.argmin(-1))


def test_the_general_head_has_all_its_parts():
    for precisions, shape in (("diagonal", (K, D)), ("isotropic", (K,))):
        head = build("gsce", precisions=precisions).head
        z = jax.random.normal(jax.random.key(0), (3, D))
        params = head.init(jax.random.key(1), z)["params"]
        assert params["log_precisions"].shape == shape
        params = jax.tree.map(lambda p: p + 0.3 * jnp.arange(p.size).reshape(p.shape), params)
        sigma = jnp.exp(params["log_precisions"]) / 2
        want = [losses.gsce_logits(one, params["centers"], sigma, params["biases"]) for one in z]
        np.testing.assert_allclose(head.apply({"params": params}, z), np.stack(want), rtol=1e-5)


@pytest.mark.parametrize("precisions", ["isotropic", "diagonal", "full"])
def test_exponentials_of_a_normalized_head_s_logits_are_gaussian_densities(precisions):
    """Up to (2 pi)^(-D/2): against SciPy, with the covariance that the parameters say."""
    head = build("lgm", precisions=precisions).head
    z = jax.random.normal(jax.random.key(0), (3, D))
    params = head.init(jax.random.key(1), z)["params"]
    noise = jax.random.normal(jax.random.key(2), (K, D, D))
    name = "factors" if precisions == "full" else "log_precisions"
    params[name] = params[name] + 0.3 * noise.reshape(-1)[: params[name].size].reshape(
        params[name].shape
    )
    own = np.asarray(params[name], np.float64)
    precision = {
        "isotropic": lambda k: np.exp(own[k]) * np.eye(D),
        "diagonal": lambda k: np.diag(np.exp(own[k])),
        "full": lambda k: own[k] @ own[k].T,
    }[precisions]
    want = [
        multivariate_normal(mu, np.linalg.inv(precision(k))).logpdf(z)
        for k, mu in enumerate(np.asarray(params["centers"], np.float64))
    ]
    found = head.apply({"params": params}, z)
    np.testing.assert_allclose(found - D / 2 * np.log(2 * np.pi), np.stack(want, 1), rtol=1e-4)


def test_a_full_precision_of_the_general_head_starts_at_half_the_identity():
    head, plain = (build("gsce", precisions=p).head for p in ("full", "isotropic"))
    z = jax.random.normal(jax.random.key(0), (3, D))
    params = plain.init(jax.random.key(1), z)["params"]
    full = {name: params[name] for name in ("centers", "biases")}
    full["factors"] = head.init(jax.random.key(1), z)["params"]["factors"]
    want = plain.apply({"params": params}, z)
    np.testing.assert_allclose(head.apply({"params": full}, z), want, rtol=1e-5)


def test_biases_are_added_to_the_logits_of_fixed_centers():
    z, biases = jax.random.normal(jax.random.key(0), (3, D)), [0.0, -1.0, -2.0, 3.0]
    plain, biased = (build("max-mahalanobis", biases=b).head for b in (None, biases))
    want = plain.apply({}, z) + np.array([biases])
    np.testing.assert_allclose(biased.apply({}, z), want, rtol=1e-6)


def test_logits_of_features_beside_a_center_are_exact_at_norm_10():
    """The expansion ||z||^2 - 2 z.mu + ||mu||^2 would be off by 1e-5, and may be positive."""
    head = models.create("cnn", num_classes=10, head="max-mahalanobis", feature_dim=64).head
    mu = centers.max_mahalanobis(10, 64, 10.0)
    away = 1e-4 * np.random.default_rng(0).normal(size=mu.shape)
    z = (mu + away).astype(np.float32)
    exact = -0.5 * ((z.astype(np.float64) - mu) ** 2).sum(-1)
    own = np.diag(head.apply({}, jnp.asarray(z)))
    np.testing.assert_allclose(own, exact, rtol=1e-5)
    assert (np.asarray(head.apply({}, jnp.asarray(z))) <= 0).all()


@pytest.mark.parametrize(
    ("classes", "dim", "apart"),
    [(100, 64, 2**0.5), (10, 2, 2 * np.sin(np.pi / 10)), (6, 3, 2**0.5), (4, 6, (8 / 3) ** 0.5)],
)
def test_a_packing_has_room_for_more_classes_than_a_simplex(classes, dim, apart):
    """CIFAR-100 in 64 dimensions, and a picture of ten classes in the plane."""
    head = models.create(
        "cnn", num_classes=classes, head="packing", feature_dim=dim, center_norm=5.0
    ).head
    (mu,) = jax.tree.leaves(head.init(jax.random.key(0), jnp.zeros((1, dim))))
    assert mu.shape == (classes, dim)
    assert centers.smallest_distance(mu) == pytest.approx(5 * apart, rel=1e-5)


def test_a_packing_is_the_one_that_was_saved():
    """A search may end elsewhere with another release of SciPy."""
    head = models.create("cnn", num_classes=10, head="packing", feature_dim=3).head
    variables = head.init(jax.random.key(0), jnp.zeros((1, 3)))
    turned = jax.tree.map(lambda mu: -mu, variables)
    z = jax.random.normal(jax.random.key(1), (5, 3))
    np.testing.assert_allclose(head.apply(turned, z), head.apply(variables, -z), rtol=1e-5)


def test_equal_heads_make_equal_programs():
    assert build("max-mahalanobis").head == build("max-mahalanobis", center_norm=10.0).head
    assert build("max-mahalanobis").head != build("max-mahalanobis", center_norm=5.0).head
    other = build("random-centers", center_seed=1).head
    z = jnp.zeros((1, D))
    assert (build("random-centers").head.constant(D) != other.constant(D)).all()
    np.testing.assert_allclose(other.apply({}, z), -50, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "max-mahalanobis", "feature_dim": None}, "'max-mahalanobis' needs a feature_dim"),
        ({"head": "random-centers", "feature_dim": None}, "'random-centers' needs a feature_dim"),
        ({"head": "max-mahalanobis", "feature_dim": K - 2}, "need 3 dimensions, got 2"),
        ({"head": "max-mahalanobis", "center_norm": 0.0}, "radius must be a positive number"),
        ({"head": "linear", "feature_dim": 0}, "feature_dim must be at least 1"),
        ({"head": "linear", "center_norm": 10.0}, "'linear' takes no center_norm; .* none"),
        ({"head": "max-mahalanobis", "center_seed": 1}, "takes no center_seed; .* center_norm"),
        ({"head": "max-mahalanobis", "feature_dim": K - 2}, "or a packing: .* head='packing'"),
        ({"head": "gsce", "precisions": "best"}, "precisions must be isotropic, diagonal or full"),
        ({"head": "max-mahalanobis", "biases": [0.0]}, "biases must be one for each of 4 classes"),
        ({"head": "arcs"}, "unknown head 'arcs'; choose one of linear, cosine"),
    ],
)
def test_heads_that_cannot_be_built_say_why(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_scaling_features_or_a_class_s_weights_changes_no_cosine():
    z = jax.random.normal(jax.random.key(0), (5, D)).at[0].set(0.0)
    head = HEADS["cosine"][0](K, scale=7.0)
    variables = head.init(jax.random.key(1), z)
    logits = head.apply(variables, z)
    assert np.abs(logits).max() <= 7.0 and (logits[0] == 0).all()
    longer = jax.tree.map(lambda w: w * jnp.array([[0.5, 1.0, 3.0, 100.0]]), variables)
    for same in (head.apply(variables, 30 * z), head.apply(longer, z)):
        np.testing.assert_allclose(same, logits, atol=1e-5)
    gradient = jax.grad(lambda z: head.apply(variables, z).sum())(z)
    assert jnp.isfinite(gradient).all() and (gradient[0] == 0).all()


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e25])
def test_features_whose_squares_are_no_numbers_have_a_cosine_and_a_gradient(scale):
    """That of z / 1e-15 is 1e15 times that of z, and no infinity."""
    z = jax.random.normal(jax.random.key(0), (5, D))
    head = HEADS["cosine"][0](K)
    variables = head.init(jax.random.key(1), z)
    np.testing.assert_allclose(
        head.apply(variables, scale * z), head.apply(variables, z), atol=1e-5
    )
    first = jax.grad(lambda z: head.apply(variables, z)[:, 0].sum())
    np.testing.assert_allclose(scale * first(scale * z), first(z), atol=1e-5)
