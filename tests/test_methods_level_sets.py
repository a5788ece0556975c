"""Neural level sets on a model linear in the pixels, where the boundary is a plane."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from tiny import CLASSES, SIZE, Flat, flat_net, on_one_device

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.threats import L2, Linf
from robustjax.training import LevelSets
from robustjax.training.methods.level_sets import TOLERANCE, false_position, follow

METHOD = LevelSets(PGD(Linf(0.05), steps=5), reach=1.0, least=0.5, wrong=0.8)


@pytest.fixture(scope="module")
def found():
    """(params, net, batch, crafted)."""
    params, net, batch = flat_net(METHOD)
    keys = jax.random.split(jax.random.key(3), SIZE)
    return params, net, batch, on_one_device(lambda: METHOD.perturb(net, params, batch, keys))


def margins(net, params, x, label):
    return jax.vmap(losses.margin)(net.logits(params, x), label)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_a_plane_is_followed_exactly_where_only_its_offset_moves(shift):
    """F(p) = g.p + b: the point moves by -dF g / ||g||^2, and F_theta of it is what F was."""
    gradient, point = jnp.array([[3.0, -4.0]]), jnp.array([[0.2, 0.7]])
    moved = follow(point, jnp.float32(shift), gradient)
    np.testing.assert_allclose(moved, point - shift * gradient / 25, rtol=1e-6)
    value = jnp.sum(gradient * moved) + shift
    assert value == pytest.approx(float(jnp.sum(gradient * point)), abs=1e-6)


def test_false_position_finds_the_zero_between_two_signs():
    root = jnp.array([0.1, 0.5, 0.93])

    def function(t):
        return (t - root) * (1 + (t + root) ** 2) * jnp.array([1.0, -4.0, 0.3])

    t, value = false_position(function, function(jnp.zeros(3)), function(jnp.ones(3)))
    np.testing.assert_allclose(t, root, atol=1e-3)
    np.testing.assert_allclose(value, function(t), atol=1e-6)


def test_false_position_of_a_constant_is_no_nan():
    t, value = false_position(jnp.ones_like, jnp.ones(2), jnp.ones(2))
    assert jnp.isfinite(t).all() and (value == 1).all()


def test_points_lie_on_the_boundary_and_others_are_their_images(found):
    params, net, batch, crafted = found
    sign, radius, hit, start, _ = crafted.extra
    here = margins(net, params, batch.image, batch.label)
    np.testing.assert_array_equal(sign, np.where(here < 0, 1, -1))
    np.testing.assert_allclose(radius, np.where(here < 0, 0.05, 0.04), rtol=1e-6)
    assert 0 < hit.sum() < SIZE and (sign[hit] > 0).any() and (sign[hit] < 0).any()
    at = np.abs(margins(net, params, crafted.x_adv, batch.label))
    assert (at[hit] < 1e-3).all() and TOLERANCE > 1e-3
    np.testing.assert_allclose(np.abs(start), at, atol=1e-5)
    np.testing.assert_array_equal(crafted.x_adv[~hit], batch.image[~hit])
    far = np.abs(crafted.x_adv - batch.image).max((1, 2, 3))
    assert (far <= radius * (1 + 1e-5)).all()


def test_the_radius_grows_with_training():
    params, net, batch = flat_net(METHOD)
    keys = jax.random.split(jax.random.key(3), SIZE)
    early = net.replace(progress=jnp.float32(0.125))
    sign, radius, *_ = on_one_device(lambda: METHOD.perturb(early, params, batch, keys)).extra
    np.testing.assert_allclose(radius[sign > 0], 0.05 * 0.75, rtol=1e-6)


def test_the_loss_is_its_formula_and_forgets_what_was_not_found(found):
    params, net, batch, crafted = found
    sign, radius, hit, _, gradient = map(np.asarray, crafted.extra)
    loss, aux = on_one_device(lambda: METHOD.loss(net, params, batch, crafted))
    rows, steepest = np.arange(SIZE), np.abs(gradient.reshape(SIZE, -1)).argmax(-1)
    gap = np.abs(np.asarray(batch.image - crafted.x_adv).reshape(SIZE, -1)[rows, steepest])
    each = np.where(sign > 0, 4.0, 1.0) * np.maximum(radius - sign * gap, 0)
    assert float(loss) == pytest.approx(np.where(hit, each, 0).sum() / SIZE, rel=1e-4)
    assert float(aux.metrics["found"]) == pytest.approx(hit.mean())


class Centred(Flat):
    """Linear in x - 1/2, so that no class wins everywhere."""

    @nn.compact
    def __call__(self, x, bn):
        kernel = self.param("kernel", nn.initializers.normal(), (x[0].size, CLASSES))
        return (x - 0.5).reshape(len(x), -1) @ kernel


def test_descending_moves_boundaries_across_wrong_images():
    """There is no cross-entropy: this alone makes wrong images right."""
    method = LevelSets(PGD(Linf(0.1), steps=5), reach=1.0, least=0.5, wrong=1.0)
    params, net, batch = flat_net(method)
    net = net.replace(module=Centred())

    def step(params, key):
        keys = jax.random.split(key, SIZE)

        def loss(p):
            crafted = method.perturb(net, jax.lax.stop_gradient(p), batch, keys)
            return method.loss(net, p, batch, crafted)

        grads, aux = on_one_device(lambda: jax.grad(loss, has_aux=True)(params))
        return jax.tree.map(lambda w, g: w - 0.1 * g, params, grads), aux.metrics["accuracy"]

    keys = jax.random.split(jax.random.key(4), 70)
    _, accuracy = jax.jit(lambda p, keys: jax.lax.scan(step, p, keys))(params, keys)
    assert accuracy[0] < 0.2 and accuracy[-10:].mean() > 0.65


@pytest.mark.parametrize("field", ["reach", "least", "wrong", "ramp", "weight"])
def test_bad_numbers_are_refused(field):
    with pytest.raises(ValueError, match=field):
        LevelSets(**{field: -1.0})


def test_other_norms_are_refused():
    with pytest.raises(ValueError, match="the threat of neural level sets must be a Linf"):
        LevelSets(PGD(L2(0.5)))
