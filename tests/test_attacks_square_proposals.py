"""The proposals of Square Attack against the pseudo-code of the paper, on images of odd shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks._black_box.square_proposals import bump, grid, move, recolour, stripes
from robustjax.threats import L1, L2, Linf

SHAPE = (7, 11, 2)
GREY = jnp.full(SHAPE, 0.5)


def many(function, *arguments):
    keys = jax.random.split(jax.random.key(0), 200)
    return np.asarray(jax.jit(jax.vmap(lambda key: function(key, *arguments)))(keys))


def nested_rectangles(rows, columns, exponent, order):
    """Andriushchenko et al. 2020, Sec. 3.4: ever larger rectangles of weight 1 / k^exponent."""
    hill, centre = np.zeros((rows, columns)), (rows // 2, columns // 2)
    for k in range(max(rows // 2, columns // 2) + 1):
        top, left = max(centre[0] - k, 0), max(centre[1] - k, 0)
        hill[top : centre[0] + k + 1, left : centre[1] + k + 1] += 1 / (k + 1) ** exponent
    return hill / np.linalg.norm(hill.ravel(), order)


@pytest.mark.parametrize(("threat", "exponent", "order"), [(L2(1.0), 2, 2), (L1(1.0), 4, 1)])
@pytest.mark.parametrize("side", [2, 3, 4, 7])
def test_a_bump_is_two_hills_of_opposite_sign(threat, exponent, order, side):
    upper = nested_rectangles(side // 2, side, exponent, order)
    lower = nested_rectangles(side - side // 2, side, exponent, order)
    expected = np.concatenate([upper, -lower]) / 2 ** (1 / order)
    u, v = np.mgrid[-1:7, -2:9, :1][:2]
    hills = np.array(bump(jnp.asarray(u), jnp.asarray(v), side, threat, 11)[..., 0])
    np.testing.assert_allclose(hills[1 : 1 + side, 2 : 2 + side], expected, rtol=1e-4)
    hills[1 : 1 + side, 2 : 2 + side] = 0
    assert (hills == 0).all()


def test_stripes_are_columns_of_plus_or_minus_eps():
    d = many(stripes, GREY, Linf(0.1)) - 0.5
    np.testing.assert_allclose(np.abs(d), 0.1, rtol=1e-5)
    assert (d == d[:, :1]).all() and 0.45 < (d > 0).mean() < 0.55


def test_recolouring_changes_a_square_of_the_right_size_and_reaches_every_border():
    threat, x_best = Linf(0.1), GREY - 0.1
    d = many(recolour, x_best, GREY, threat, 0.15) - np.asarray(x_best)
    changed = (d > 0.1).any(-1)
    side = round((0.15 * 77) ** 0.5)
    # Half of the channels go down, where they are already.
    assert set(changed.sum((1, 2))) == {0, side * side}
    np.testing.assert_allclose(np.unique(d[changed])[-1], 0.2, rtol=1e-5)
    rows, columns = changed.any(2).mean(0), changed.any(1).mean(0)
    assert rows[0] > 0.05 and rows[-1] > 0.05 and columns[0] > 0.05 and columns[-1] > 0.05
    assert all(np.ptp(np.flatnonzero(row.any(0))) == side - 1 for row in changed if row.any())


def test_windows_never_exceed_the_image_nor_vanish():
    for part, side in ((5.0, 7), (1e-6, 1)):
        d = many(recolour, GREY, GREY, Linf(0.1), part) - 0.5
        assert set(d.any(-1).sum((1, 2))) == {side * side}


@pytest.mark.parametrize("threat", [L2(0.6), L1(1.5)])
@pytest.mark.parametrize("shape", [(7, 11, 2), (12, 5, 1), (3, 4, 3)])
def test_the_grid_fills_the_ball_with_balanced_tiles(threat, shape):
    d = many(grid, jnp.full(shape, 0.5), threat) - 0.5
    order = 2 if isinstance(threat, L2) else 1
    np.testing.assert_allclose(np.linalg.norm(d.reshape(200, -1), order, -1), threat.eps, rtol=1e-4)
    assert abs(np.sign(d).mean()) < 0.05
    side = max(min(shape[:2]) // 5, 1)
    covered = d.any((0, 3)).sum()
    assert covered == (shape[0] // side) * side * (shape[1] // side) * side or order == 1


@pytest.mark.parametrize("threat", [L2(0.6), L1(1.5)])
def test_a_move_keeps_the_norm_and_changes_two_windows(threat):
    order = 2 if isinstance(threat, L2) else 1
    x_best = grid(jax.random.key(5), GREY, threat)
    z = many(move, x_best, GREY, threat, 0.1)
    d = z - 0.5
    np.testing.assert_allclose(np.linalg.norm(d.reshape(200, -1), order, -1), threat.eps, rtol=1e-4)
    if order == 2:  # in L1 the projection touches every pixel
        rest = np.asarray(x_best) - 0.5
        same = np.isclose(d, rest, atol=1e-3).all(-1).mean()
        assert 0.6 < same < 1 - 9 / 77 + 0.05
    emptied = (np.abs(d) < 1e-9).all(-1).sum((1, 2))
    assert (emptied > 0).mean() > 0.5
