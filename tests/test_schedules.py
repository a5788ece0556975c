import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import spec
from robustjax.config import config, decode, encode, number
from robustjax.training import Recipe
from robustjax.training.schedules import (
    SCHEDULES,
    Interpolated,
    MultipleDecay,
    OneCycle,
    Piecewise,
    Schedule,
    warm_up,
)

EPOCHS = 110


@pytest.mark.parametrize(
    ("schedule", "epoch_to_rate"),
    [
        ("piecewise", {1: 0.1, 99.99: 0.1, 100: 0.01, 104.99: 0.01, 105: 0.001, 110: 0.001}),
        ("cosine", {55: 0.05, 110: 0.0}),
        ("linear", {110 / 3: 0.1, 220 / 3: 0.01, 110: 0.001}),
        ("one-cycle", {55: 0.1, 27.5: 0.05, 110: 0.0}),
        ("multiple-decay", {10.9: 0.1, 11.1: 0.09, 109: 0.01, 110: 0.01}),
        ("constant", {1: 0.1, 110: 0.1}),
    ],
)
def test_rates_by_epoch(schedule, epoch_to_rate):
    for epoch, rate in epoch_to_rate.items():
        got = 0.1 * SCHEDULES[schedule](jnp.float32(epoch / EPOCHS))
        np.testing.assert_allclose(got, rate, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_factors_stay_in_the_unit_interval(schedule):
    factors = jnp.stack([schedule(t) for t in jnp.linspace(1e-3, 1, 50)])
    assert ((factors >= -1e-7) & (factors <= 1)).all()


def test_warm_up_is_linear_then_one():
    np.testing.assert_allclose(warm_up(jnp.float32(0.05), 0.1), 0.5)
    assert warm_up(jnp.float32(0.5), 0.1) == 1
    assert warm_up(jnp.float32(1e-3), 0.0) == 1


def test_bad_fractions_are_refused():
    with pytest.raises(ValueError, match="boundaries"):
        Piecewise((100.0, 105.0))
    with pytest.raises(ValueError, match="peak"):
        OneCycle(2.0)
    with pytest.raises(ValueError, match="drops"):
        MultipleDecay(0)
    with pytest.raises(ValueError, match="4 times and 2 values"):
        Interpolated(values=(1.0, 0.0))
    assert MultipleDecay(5)(jnp.float32(0.5)) == pytest.approx(0.6)
    assert Interpolated((0.0, 1.0), (1.0, 0.0))(jnp.float32(0.25)) == 0.75


@config
class Halved(Schedule):
    """1, then 1/2: a schedule of one's own."""

    at: float = number(default=0.5, high=1)

    def __call__(self, t):
        return 1 - 0.5 * (t >= self.at)


def test_a_schedule_of_one_s_own_has_a_name_and_goes_through_a_recipe():
    SCHEDULES.register("halved", Halved())
    recipe = Recipe(schedule=spec.parse("halved:at=1/4", SCHEDULES))
    del SCHEDULES["halved"]
    assert recipe.schedule == Halved(0.25) and decode(encode(recipe), {}) == recipe
    rates = jax.jit(lambda recipe, t: recipe.schedule(t))
    assert [float(rates(recipe, t)) for t in (0.2, 0.3)] == [1.0, 0.5]
    with pytest.raises(ValueError, match=r"schedule must be a Schedule, got 'halved'"):
        Recipe(schedule="halved")
