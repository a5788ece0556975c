"""The steps of docs/how_to/own_loop.md run as they stand, and learn."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import attacks, data, losses, training
from robustjax.attacks import RFGSM
from robustjax.threats import Linf

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "how_to" / "own_loop.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
IMAGES, LABELS = (lambda d: (data.to_float(d.images), jnp.asarray(d.labels)))(
    data.load("digits", "train").head(64)
)


@pytest.fixture(scope="module")
def page():
    """The names that the page defines; each example is at most ten lines."""
    names = {}
    exec("\n".join(BLOCKS), names)
    return names


def start():
    first, second = jax.random.split(jax.random.key(0))
    return {
        "first": {"kernel": 0.1 * jax.random.normal(first, (64, 16))},
        "second": {"kernel": 0.3 * jax.random.normal(second, (16, 10))},
    }


STEPS = ["pgd_step", "trades_step", "mart_step", "awp_step", "quick_step"]


@pytest.mark.parametrize("name", STEPS)
def test_a_step_of_the_page_learns(page, name):
    params, opt_state = start(), page["tx"].init(start())
    values = []
    for key in jax.random.split(jax.random.key(1), 12):
        params, opt_state, value = page[name](params, opt_state, key, IMAGES, LABELS)
        values.append(float(value))
    assert np.isfinite(values).all() and values[-1] < 0.9 * values[0]


def test_under_jit_the_images_are_those_of_perturb(page):
    attack, key, asked = RFGSM(Linf(0.1)), jax.random.key(3), (IMAGES[:8], LABELS[:8])
    here = jax.jit(page["perturb"])(attack, start(), key, *asked)
    there = attacks.perturb(attack, jax.tree_util.Partial(page["apply"], start()), key, *asked)
    np.testing.assert_allclose(here, there, atol=1e-5)


def test_examples_are_short():
    assert len(BLOCKS) == 8
    for block in BLOCKS[3:]:
        body = block[block.index("@jax.jit") :].strip().splitlines()
        assert len(body) <= 10


def test_the_weights_move_as_far_as_gamma_says():
    params = start()
    moved = training.awp_step(params, params, 0.1)
    for name in ("first", "second"):
        np.testing.assert_allclose(moved[name]["kernel"], 1.1 * params[name]["kernel"], rtol=1e-5)
    with pytest.raises(ValueError, match="no weight of two or more axes is named kernel or weight"):
        training.awp_step({"table": jnp.ones((2, 2))}, {"table": jnp.ones((2, 2))})


def test_the_losses_are_their_formulas():
    clean, adversarial = jax.random.normal(jax.random.key(0), (2, 5))
    p, q = jax.nn.softmax(clean), jax.nn.softmax(adversarial)
    kl = jnp.sum(p * jnp.log(p / q))
    want = -jnp.log(p[2]) + 3 * kl
    np.testing.assert_allclose(losses.trades(clean, adversarial, 2, 3.0), want, rtol=1e-5)
    wrong = jnp.delete(q, 2).max()
    want = -jnp.log(q[2]) - jnp.log(1 - wrong) + 3 * kl * (1 - p[2])
    np.testing.assert_allclose(losses.mart(clean, adversarial, 2, 3.0), want, rtol=1e-5)
    hot = jax.nn.one_hot(2, 5)
    lowered = losses.trades(clean, adversarial, hot, 3.0, margin=0.5 * hot)
    want = losses.cross_entropy(clean - 0.5 * hot, 2) + 3 * kl
    np.testing.assert_allclose(lowered, want, rtol=1e-5)
