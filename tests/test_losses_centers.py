"""The g-SCE family against its definitions, written out in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from robustjax import centers, losses

K, D = 5, 7
RNG = np.random.default_rng(0)
Z = RNG.normal(size=D).astype(np.float32)
MU = RNG.normal(size=(K, D)).astype(np.float32)
B = RNG.normal(size=K).astype(np.float32)
ROOTS = RNG.normal(size=(K, D, D))
PRECISIONS = {
    "isotropic": RNG.uniform(0.1, 2, K),
    "diagonal": RNG.uniform(0.1, 2, (K, D)),
    "full": ROOTS @ ROOTS.transpose(0, 2, 1),
}
H = -0.5 * ((Z - MU) ** 2).sum(-1)
SOFT = np.array([0.1, 0.2, 0.5, 0.15, 0.05], np.float32)


def half_distances(z, mu):
    """h_i = -1/2 ||z - mu_i||^2, as the Max-Mahalanobis heads have it."""
    return losses.gsce_logits(z, mu, jnp.full(len(mu), 0.5), jnp.zeros(len(mu)))


# ---- logits


@pytest.mark.parametrize("kind", PRECISIONS)
def test_the_logits_are_their_definition(kind):
    sigma = PRECISIONS[kind]
    full = {1: lambda: sigma[:, None, None] * np.eye(D), 2: lambda: [np.diag(s) for s in sigma]}
    full = full.get(sigma.ndim, lambda: sigma)()
    want = [b - (Z - m) @ s @ (Z - m) for m, s, b in zip(MU, full, B, strict=True)]
    got = losses.gsce_logits(jnp.asarray(Z), MU, jnp.asarray(sigma, jnp.float32), B)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("kind", PRECISIONS)
def test_the_logit_of_a_center_is_its_bias_and_no_logit_is_larger(kind):
    sigma = jnp.asarray(PRECISIONS[kind], jnp.float32)
    at = jax.vmap(lambda z: losses.gsce_logits(z, 10 * MU, sigma, B))(10 * jnp.asarray(MU))
    np.testing.assert_array_equal(jnp.diag(at), B)
    near = jax.vmap(lambda z: losses.gsce_logits(z, 10 * MU, sigma, B))(10 * MU * (1 + 1e-6))
    assert (near <= B[None]).all()


@pytest.mark.parametrize("kind", ["isotropic", "diagonal"])
def test_no_bit_of_logits_or_gradients_depends_on_the_batch(kind):
    z = 10 * jax.random.normal(jax.random.key(0), (64, 40))
    mu = 10 * jax.random.normal(jax.random.key(1), (10, 40))
    shape = (10,) if kind == "isotropic" else (10, 40)
    sigma = jax.random.uniform(jax.random.key(2), shape)
    weights = jax.random.normal(jax.random.key(3), (64, 10))

    @jax.jit
    def both(z, weights):
        def value(z, w):
            h = losses.gsce_logits(z, mu, sigma, jnp.zeros(10))
            return h @ w, h

        return jax.vmap(jax.grad(value, has_aux=True))(z, weights)

    whole = both(z, weights)
    for n in (1, 2, 3, 17):
        for part, all_ in zip(both(z[:n], weights[:n]), whole, strict=True):
            np.testing.assert_array_equal(part, all_[:n])


def test_the_softmax_is_a_member_of_the_family():
    """W z + b differs from its g-SCE logits by ||z||^2 alone, so the loss is the same."""
    with jax.enable_x64(True):
        z, weights, bias = (jnp.asarray(a, jnp.float64) for a in (Z, MU, B))
        linear = weights @ z + bias
        members = losses.gsce_logits(z, *losses.sce_as_gsce(weights, bias))
        np.testing.assert_allclose(members - linear, -(z @ z), atol=1e-10)
        for label in range(K):
            one, other = (losses.cross_entropy(h, label) for h in (linear, members))
            assert abs(float(one - other)) < 1e-10


# ---- Max-Mahalanobis losses


@pytest.mark.parametrize("label", range(K))
def test_mmc_is_half_the_squared_distance_and_its_gradient_the_difference(label):
    value, gradient = jax.value_and_grad(lambda z: losses.mmc(half_distances(z, MU), label))(Z)
    assert float(value) == pytest.approx(0.5 * ((Z - MU[label]) ** 2).sum(), rel=1e-6)
    np.testing.assert_allclose(gradient, Z - MU[label], rtol=1e-6)


@pytest.mark.parametrize(
    "loss", [losses.mmc, losses.mmlda, functools.partial(losses.mmlda, temperature=0.5)]
)
def test_a_distribution_is_the_mean_over_its_labels(loss):
    each = np.array([loss(jnp.asarray(H), k) for k in range(K)])
    assert float(loss(jnp.asarray(H), SOFT)) == pytest.approx(float(SOFT @ each), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 10.0])
def test_mmlda_is_a_softmax_over_the_distances(temperature):
    value = float(losses.mmlda(jnp.asarray(H), 2, temperature))
    assert value == pytest.approx(-log_softmax(H / temperature)[2], rel=1e-5)


def test_mmlda_with_centers_of_one_norm_is_a_softmax_over_dot_products():
    mu = centers.max_mahalanobis(K, D, 2.0)
    for scaled, agrees in ((mu, True), (mu * np.linspace(1, 2, K, dtype=np.float32)[:, None], 0)):
        distances = losses.mmlda(half_distances(Z, scaled), 1)
        products = losses.cross_entropy(jnp.asarray(scaled @ Z), 1)
        assert (abs(float(distances - products)) < 1e-5) == agrees


def test_the_cross_entropy_has_no_gradient_at_a_center_of_norm_10():
    """Why attacks on it see robustness that is not there. The margin has one, of known size."""
    mu = centers.max_mahalanobis(10, 64, 10.0)
    gradient = jax.jit(jax.grad(lambda z: losses.mmlda(half_distances(z, mu), 3)))
    assert (gradient(mu[3]) == 0).all()
    assert (gradient(mu[3] + 0.1 * (mu[4] - mu[3])) == 0).all()
    assert (gradient(mu[3] + 0.45 * (mu[4] - mu[3])) != 0).any()
    margin = jax.grad(lambda z: losses.margin(half_distances(z, mu), 3))(0.9 * mu[3] + 0.1 * mu[4])
    np.testing.assert_allclose(margin, mu[4] - mu[3], atol=1e-4)


# ---- L-GM and the center loss


def test_lgm_without_margin_and_likelihood_is_cross_entropy_on_half_the_distances():
    for label in range(K):
        plain = losses.lgm(jnp.asarray(H), label, margin=0.0, weight=0.0)
        assert float(plain) == pytest.approx(-log_softmax(H)[label], rel=1e-5)


@pytest.mark.parametrize("label", range(K))
def test_lgm_is_its_definition(label):
    alpha, weight = 0.3, 0.1
    moved = H.astype(np.float64)
    moved[label] *= 1 + alpha
    want = logsumexp(moved) - moved[label] - weight * H[label]
    got = losses.lgm(jnp.asarray(H), label, alpha, weight)
    one_hot = losses.lgm(jnp.asarray(H), jax.nn.one_hot(label, K), alpha, weight)
    assert float(got) == pytest.approx(want, rel=1e-5)
    assert float(one_hot) == pytest.approx(float(got), rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "setting"),
    [(losses.lgm, "margin"), (losses.lgm, "weight"), (losses.mmlda, "temperature")],
)
def test_settings_that_turn_a_loss_around_are_refused(loss, setting):
    with pytest.raises(ValueError, match=setting):
        loss(jnp.asarray(H), 0, **{setting: -1.0})


def test_the_margin_of_lgm_makes_it_harder():
    values = [float(losses.lgm(jnp.asarray(H), 0, margin)) for margin in (0.0, 0.3, 1.0)]
    assert values == sorted(set(values))


def test_the_center_pull_is_half_the_squared_distance():
    value, gradient = jax.value_and_grad(losses.center_pull)(jnp.asarray(Z), MU, 3)
    assert float(value) == pytest.approx(-H[3], rel=1e-6)
    np.testing.assert_allclose(gradient, Z - MU[3], rtol=1e-6)


def test_the_losses_read_the_logits_in_what_a_model_returns():
    h = jnp.asarray(H)
    for loss in (losses.mmc, losses.mmlda, losses.lgm):
        assert float(loss({"logits": h, "features": Z}, 1)) == float(loss(h, 1))


def test_names_are_of_losses_that_take_an_output_and_a_target():
    assert {"mmc", "lgm"} <= set(set(losses.NAMED))
    assert not {"gsce_logits", "sce_as_gsce", "center_pull"} & set(set(losses.NAMED))
