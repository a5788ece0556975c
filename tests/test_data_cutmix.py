"""CutMix against its definition."""

import jax
import numpy as np
import pytest

from robustjax.data import cutmix

SHAPE = (9, 12, 2)


@pytest.fixture(scope="module")
def drawn():
    """4,000 boxes: which pixels came from the other image, and what was said to be kept."""
    keys = jax.random.split(jax.random.key(0), 4000)
    image, other = np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32)
    mixed, kept = jax.jit(jax.vmap(cutmix, (0, None, None)))(keys, image, other)
    return np.asarray(mixed), np.asarray(kept)


def test_what_is_pasted_is_a_box_in_its_place(drawn):
    pasted = drawn[0] == 1
    assert ((drawn[0] == 0) | pasted).all() and (pasted[..., 0] == pasted[..., 1]).all()
    pasted = pasted[..., 0]
    rows, columns = pasted.any(2), pasted.any(1)
    np.testing.assert_array_equal(pasted, rows[:, :, None] & columns[:, None, :])
    for side in (rows, columns):  # no gap
        assert (np.abs(np.diff(side, axis=1, prepend=0, append=0)).sum(1) <= 2).all()


def test_kept_is_the_fraction_of_the_area(drawn):
    mixed, kept = drawn
    np.testing.assert_allclose(kept, (mixed[..., 0] == 0).mean((1, 2)), atol=1e-6)


def test_areas_are_those_of_the_formula(drawn):
    """The same means as 200,000 boxes drawn with NumPy as in the published code."""
    rng = np.random.default_rng(0)
    ratio = np.sqrt(1 - rng.beta(1, 1, 200_000))
    sides = []
    for size in SHAPE[:2]:
        cut, middle = (size * ratio).astype(int), rng.integers(0, size, len(ratio))
        sides.append(np.clip(middle + cut // 2, 0, size) - np.clip(middle - cut // 2, 0, size))
    want = 1 - sides[0] * sides[1] / (SHAPE[0] * SHAPE[1])
    kept = drawn[1]
    assert abs(kept.mean() - want.mean()) < 4 * want.std() / np.sqrt(len(kept))
    assert abs((kept < 0.7).mean() - (want < 0.7).mean()) < 0.03
    assert abs((kept == 1).mean() - (want == 1).mean()) < 0.03


def test_a_batch_needs_vmap():
    with pytest.raises(ValueError, match="vmap"):
        cutmix(jax.random.key(0), np.zeros((2, *SHAPE)), np.zeros((2, *SHAPE)))
