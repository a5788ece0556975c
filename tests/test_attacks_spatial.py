"""Rotations and translations with known results."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import counting
from hypothesis import given, settings
from hypothesis import strategies as st

from robustjax.attacks import (
    Draws,
    Grid,
    Spatial,
    perturb,
)
from robustjax.attacks._black_box.spatial import rotate_and_translate
from robustjax.attacks._core.iterative import Example
from robustjax.losses import kl

RNG = np.random.default_rng(0)
X = RNG.uniform(0.1, 1, (5, 8, 8, 2)).astype(np.float32)
KEY = jax.random.key(0)
move = jax.jit(rotate_and_translate)


@pytest.mark.parametrize("down", [-3, 0, 2])
@pytest.mark.parametrize("right", [-2, 0, 7])
def test_whole_pixels_move_and_do_not_change(down, right):
    padded = np.pad(X[0], ((8, 8), (8, 8), (0, 0)))
    expected = padded[8 - down : 16 - down, 8 - right : 16 - right]
    np.testing.assert_array_equal(move(X[0], 0.0, np.float32([down, right])), expected)


@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
def test_right_angles_are_those_of_numpy(quarters):
    turned = move(X[0], 90.0 * quarters, np.zeros(2, np.float32))
    np.testing.assert_allclose(turned, np.rot90(X[0], quarters), atol=1e-5)


def test_half_a_pixel_is_the_mean_of_two():
    z = move(X[0], 0.0, np.float32([0, 0.5]))
    np.testing.assert_allclose(z[:, 1:], (X[0][:, 1:] + X[0][:, :-1]) / 2, atol=1e-6)
    np.testing.assert_allclose(z[:, 0], X[0][:, 0] / 2, atol=1e-6)  # outside is zero


def test_the_rotation_comes_first():
    shift = np.float32([1, 2])
    turned = move(X[0], 90.0, np.zeros(2, np.float32))
    np.testing.assert_allclose(move(X[0], 90.0, shift), move(turned, 0.0, shift), atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.floats(-180, 180), st.floats(-9, 9), st.floats(-9, 9), st.integers(0, 99))
def test_images_stay_in_the_box(degrees, down, right, seed):
    x = np.random.default_rng(seed).integers(0, 2, (8, 8, 2)).astype(np.float32)
    z = move(x, np.float32(degrees), np.float32([down, right]))
    assert z.min() >= 0 and z.max() <= 1


def test_the_grid_is_the_product_of_its_axes():
    grid = Grid(rotations=3, translations=5)
    found = [tuple(np.asarray(grid(KEY, k)).tolist()) for k in range(grid.count)]
    assert found == list(
        itertools.product((-1, 0, 1), (-1, -0.5, 0, 0.5, 1), (-1, -0.5, 0, 0.5, 1))
    )
    assert np.asarray(Grid(1, 1)(KEY, 0)).tolist() == [0, 0, 0]
    assert Grid().count == 775


def test_draws_fill_the_cube_and_follow_the_key():
    draws = np.asarray(jax.vmap(lambda k: Draws(400)(KEY, k))(np.arange(400)))
    assert np.abs(draws).max() <= 1
    assert (draws.min(0) < -0.95).all() and (draws.max(0) > 0.95).all()
    assert not np.array_equal(Draws()(KEY, 0), Draws()(jax.random.key(1), 0))


@pytest.mark.parametrize("search", [Grid(2, 2), Draws(4)])
def test_the_identity_is_among_the_candidates(search):
    """An even grid has no zero; an image that only its own motion fools is returned as it is."""
    attack = Spatial(search=search)
    first = attack.candidate(Example(KEY, X[0], 0), 0)
    np.testing.assert_array_equal(first, X[0])
    assert attack.count == 1 + search.count


def bright(x):
    """Class 0 while the pixel (4, 4) is lit."""
    lit = x[4, 4, 0]
    return jnp.stack([lit, 0.5 - lit])


run_counted = counting(bright)


def test_the_known_offset_is_found():
    """A white image with one black pixel: only the shift that puts it at (4, 4) can win."""
    x = np.ones((9, 9, 1), np.float32)
    x[2, 5] = 0
    image, state, asked = run_counted(Spatial(0.0, 2.0, Grid(1, 5)), KEY, x, np.int32(0))
    black = np.argwhere(image[..., 0] == 0)
    assert [4, 4] in black.tolist() and bool(state.won)
    expected = move(x, 0.0, np.float32([2, -1]))
    np.testing.assert_array_equal(image, expected)
    assert len(asked) == int(state.tried) == 1 + 4 * 5 + 1 + 1


def test_the_worst_by_loss_where_none_succeeds():
    x = np.ones((9, 9, 1), np.float32)
    x[2, 5], x[4, 2] = 0.5, 0.3
    attack = Spatial(0.0, 2.0, Grid(1, 5), loss=darkness, success=lambda out, y: jnp.bool_(False))
    image, state, asked = run_counted(attack, KEY, x, np.int32(0))
    assert image[4, 4, 0] == np.float32(0.3)
    cost = attack.spent(state)
    assert (int(cost.forwards), cost.backwards) == (len(asked), 0) == (26, 0)


def darkness(output, target):
    return -output[0]


@pytest.mark.parametrize("search", [Grid(3, 3), Draws(20)])
def test_perturb_over_any_number_of_images(search):
    """Same bits for any order; misclassified images come back as they are."""
    w = RNG.normal(size=(128, 3)).astype(np.float32)

    def logits(w, x):
        return x.reshape(len(x), -1) @ w

    model, attack = jax.tree_util.Partial(logits, w), Spatial(search=search)
    y = np.asarray(logits(w, X)).argmax(-1)
    y[0] = (y[0] + 1) % 3
    z = perturb(attack, model, KEY, X, y)
    assert z.min() >= 0 and z.max() <= 1
    np.testing.assert_array_equal(z[0], X[0])
    order = np.array([3, 1, 4, 0, 2])
    again = perturb(attack, model, KEY, X[order], y[order], indices=order)
    np.testing.assert_array_equal(again, z[order])


def test_a_loss_that_needs_a_target_says_so():
    with pytest.raises(ValueError, match="kl needs a target"):
        run_counted(Spatial(loss=kl), KEY, np.ones((9, 9, 1), np.float32), np.int32(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Spatial(max_rotation=200.0), "max_rotation must lie in"),
        (lambda: Spatial(max_translation=-1.0), "max_translation must lie in"),
        (lambda: Grid(rotations=0), "rotations must lie in"),
        (lambda: Draws(0), "count must lie in"),
    ],
)
def test_bad_fields_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
