"""No attack is silent where it did not work: a row per attack on a linear model, laws over all.

The model and the poison in it are data, so that every law but those of types shares one program.
"""

import functools
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from robustjax import attacks, parallel
from robustjax.attacks import starts, steps
from robustjax.attacks.targets import TrueLabel
from robustjax.detection import JointPGD
from robustjax.evaluation import evaluate
from robustjax.losses import margin, targeted_dlr
from robustjax.threats import L0, L1, L2, Linf
from robustjax.training import METHODS
from robustjax.training.step import IN_AXES as AXES
from robustjax.training.step import OUT_AXES, make_step

N, SHAPE, K = 8, (4, 4, 1), 4
RNG = np.random.default_rng(0)
X = RNG.uniform(size=(N, *SHAPE)).astype(np.float32)
W = RNG.normal(size=(16, K)).astype(np.float32)
Y = (X.reshape(N, -1) @ W).argmax(-1)
BALL, EUCLID, KEY = Linf(0.3), L2(2.0), jax.random.key(0)


def poisoned(output, y):
    """The margin times what the model says: 1 or NaN."""
    return margin(output, y) * output["poison"]


RIGHT = {"loss": poisoned}
ROWS = {
    "pgd": attacks.PGD(BALL, steps=5, start=starts.Zero(), **RIGHT),
    "momentum": attacks.PGD(BALL, steps=5, rule=steps.Momentum(), **RIGHT),
    "apgd": attacks.APGD(BALL, steps=10, **RIGHT),
    "square": attacks.Square(BALL, queries=150, **RIGHT),
    "spsa": attacks.SPSA(BALL, 10, 8, step_size=0.1, **RIGHT),
    "ddn": attacks.DDN(EUCLID, steps=30, **RIGHT),
    "fmn": attacks.FMN(BALL, steps=40, **RIGHT),
    "c&w-l2": attacks.CarliniWagnerL2(EUCLID, steps=30, rounds=3, constant=0.1, **RIGHT),
    "c&w-linf": attacks.CarliniWagnerLinf(BALL, steps=30, rounds=6, **RIGHT),
    "ead": attacks.EAD(L1(6.0), steps=30, rounds=3, constant=1.0, **RIGHT),
    "jsma": attacks.JSMA(L0(16.0), gamma=1.0, target=TrueLabel(), **RIGHT),
    "noise": attacks.GaussianNoise(0.01, draws=3, **RIGHT),
    "fab": attacks.FAB(BALL, steps=10),
    "deepfool": attacks.DeepFool(EUCLID),
}
PLANES = ("fab", "deepfool")
"""Their objectives are the gaps of the logits, so that only these can be NaN."""


def model(weights, x):
    """Linear, but on sick images the loss or the logits' gradient is NaN; the logits never are."""
    nearest = ((x[:, None] - X[None]) ** 2).sum((2, 3, 4)).argmin(-1)
    root = jnp.sqrt(jnp.where(weights["rooted"][nearest], 0 * x.sum((1, 2, 3)), 1))
    z = x.reshape(len(x), -1) @ weights["w"] + weights["b"][None] + 0 * root[:, None]
    return {"logits": z, "poison": jnp.where(weights["nan"][nearest], jnp.nan, 1.0)}


WELL = {"w": W, "b": np.zeros(K, np.float32), "nan": np.zeros(N, bool), "rooted": np.zeros(N, bool)}


def run(row, x=X, y=Y, attack=None, **weights):
    """The report and what it says of the attack, by default without the costly diagnostics."""
    partial = jax.tree_util.Partial(model, WELL | weights)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = evaluate(
            partial, x, y, {row: attack or ROWS[row]}, KEY, diagnose=attack is not None
        )
    return found, " ".join(str(w.message) for w in said)


@functools.cache
def healthy(row):
    found, said = run(row)
    assert said == ""
    return found


def ill(row, images):
    return {"rooted" if row in PLANES else "nan": np.isin(np.arange(N), images)}


@pytest.mark.parametrize("row", ROWS)
def test_nan_everywhere_is_told(row):
    _, said = run(row, **ill(row, range(N)))
    assert "or its gradient is NaN or infinite at 100.0% of the images that resist" in said


@pytest.mark.parametrize("row", ROWS)
def test_nan_at_an_image_costs_that_image_alone(row):
    found, said = run(row, **ill(row, [2, 5]))
    assert "is NaN or infinite at" in said
    others = np.isin(np.arange(N), [2, 5], invert=True)
    np.testing.assert_array_equal(
        found.adversarial[row][others], healthy(row).adversarial[row][others]
    )
    assert np.isfinite(found.adversarial[row]).all()


@pytest.mark.parametrize("row", ROWS)
def test_a_masked_class_is_none(row):
    """A logit of -inf gives what a logit gives that no image brings near the others."""
    y = (X.reshape(N, -1) @ W[:, :3]).argmax(-1)
    masked, low = (run(row, y=y, b=np.float32([0, 0, 0, last])) for last in (-np.inf, -1e4))
    assert masked[1] == low[1] == ""
    np.testing.assert_allclose(masked[0].adversarial[row], low[0].adversarial[row], atol=1e-5)
    assert row == "noise" or masked[0].robust[row] < 1


@pytest.mark.parametrize("row", ROWS)
def test_an_exact_tie_is_broken(row):
    """Four equal logits, of which the first counts: any move decides, and a short one does.

    The weights have few bits, so that the logits are equal in whichever order the products add up.
    """
    x, w = np.full_like(X, 0.5), np.round(64 * W) / 64
    found, _ = run(row, x, np.zeros(N, int), w=w, b=-x[0].reshape(-1) @ w)
    assert found.clean == 1 and found.robust[row] == 0


@pytest.mark.parametrize(
    ("attack", "told"),
    [
        (attacks.with_eps(ROWS["apgd"], 0.0), "eps = 0 is no room"),
        (attacks.with_eps(ROWS["fmn"], 0.0), "eps = 0 is no room"),
        (attacks.with_eps(ROWS["square"], 1e-9), "eps = 1e-09 is less than float32 pixels"),
        (attacks.PGD(BALL, step_size=1e-9), "the steps of PGD are 1e-09 long, less than"),
        (attacks.PGD(BALL, steps=0), "steps of PGD are 0|travel 0 eps"),
        (attacks.PGD(Linf(0.3, mask=np.zeros(SHAPE))), "100.0% of the images .* unchanged"),
        (attacks.JSMA(L0(16.0), gamma=0.01), "100.0% of the images .* unchanged"),
        (attacks.JSMA(L0(16.0), theta=0.0), "100.0% of the images .* unchanged"),
        (attacks.Spatial(0.0, 0.0, attacks.Draws(1)), "100.0% of the images .* unchanged"),
        (attacks.GaussianNoise(0.0), "100.0% of the images .* unchanged"),
        (attacks.CarliniWagnerL2(steps=5, rounds=1, step_size=0.0), "a search at any distance"),
    ],
)
def test_what_cannot_move_says_so(attack, told):
    found, said = run("still", attack=attack)
    assert found.robust["still"] == 1
    assert re.search(told, said)


def test_no_budget_is_refused():
    for make in (attacks.APGD, attacks.DDN, attacks.FAB, attacks.FMN, attacks.SPSA):
        with pytest.raises(ValueError, match=r"steps must lie in \[1, inf\], got 0"):
            make(steps=jnp.int32(0))
    for make in (attacks.Square, attacks.HopSkipJump):
        with pytest.raises(ValueError, match=r"queries must lie in \[1, inf\], got 0"):
            make(queries=0)
    with pytest.raises(ValueError, match="init_eps must lie in"):
        attacks.DDN(init_eps=0.0)
    with pytest.raises(ValueError, match="b1 must lie in"):
        steps.Adam(b1=1.0)
    with pytest.raises(ValueError, match="L0 counts pixels"):
        attacks.with_eps(ROWS["jsma"], 0.5)


def shape_of(attack, image, logits):
    """Trace the whole attack on one image of a model that returns logits of another type."""

    def one(x):
        z = x.reshape(-1) @ jnp.asarray(W, x.dtype)
        return {"logits": z.astype(logits), "poison": jnp.ones((), logits), "score": z[0]}

    x, y = jax.ShapeDtypeStruct(SHAPE, image), jax.ShapeDtypeStruct((), np.int32)
    return jax.eval_shape(lambda x, y: attack(one, jax.random.key(0), x, y), x, y)


MORE = {
    "fmn-l0": attacks.FMN(L0(4.0), steps=5),
    "fab-l1": attacks.FAB(L1(4.0), steps=5),
    "square-l2": attacks.Square(EUCLID, queries=5),
    "apgd-l1": attacks.APGD(L1(4.0), steps=10, larger_radii=True),
    "apgd-t": attacks.MultiTargeted(attacks.APGD(BALL, loss=targeted_dlr), 2),
    "hop-skip-jump": attacks.HopSkipJump(queries=20),
    "spatial": attacks.Spatial(),
    "nes": attacks.NES(BALL),
    "tim": attacks.TIM(BALL, size=3),
    "joint": JointPGD(BALL),
}


@pytest.mark.parametrize("row", [*ROWS, *MORE])
def test_types_of_floats_may_differ(row):
    attack = (ROWS | MORE)[row]
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        for image in ("float32", "float64"):
            assert shape_of(attack, image, "float64").dtype == image
    assert shape_of(attack, "bfloat16", "float16").dtype == "bfloat16"


@pytest.mark.parametrize("row", ["hop-skip-jump", "spatial"])
def test_strict_modes_find_nothing_in_ours(row):
    """From the images to the verdict: types that mix, axes that broadcast, NaN in any result."""
    attack = (ROWS | MORE)[row]
    with jax.numpy_dtype_promotion("strict"), jax.debug_nans(True):
        found = evaluate(jax.tree_util.Partial(strict, W), X, Y, {row: attack}, KEY)
    assert 0 <= found.robust[row] <= 1


def strict(w, x):
    return {"logits": x.reshape(len(x), -1) @ w, "poison": jnp.ones(len(x))}


@pytest.mark.parametrize("bits", [32, 64])
def test_a_training_step_is_traced_in_strict_modes(bits):
    method = METHODS["trades"]
    step = parallel.emulate(make_step(tiny.module(), tiny.RECIPE, 20, tiny.CLASSES), AXES, OUT_AXES)
    state, batch = tiny.fresh(method), parallel.split(tiny.examples(), 1)
    with jax.numpy_dtype_promotion("strict"), jax.enable_x64(bits == 64):
        after, _ = jax.eval_shape(step, state, method, jax.random.key(1), batch)
    assert jax.tree.map(jnp.shape, after.params) == jax.tree.map(jnp.shape, state.params)
