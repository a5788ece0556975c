"""Inputs of any shape: vectors, signals, several arrays at once; and outputs of any kind.

A linear model has a known answer in every norm; and the same numbers in another shape are the same
problem, so they must give the same bits.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import attacks, config, detection, evaluation, losses, models
from robustjax.attacks import FMN, PGD, Randomized, Restarts, Square, perturb
from robustjax.attacks._engine.layout import layout_of
from robustjax.attacks.successes import FartherThan, MorePixelsWrong, wrong_sign
from robustjax.attacks.transforms import DiverseInput
from robustjax.evaluation import curve, evaluate, transfer, zero_gradient
from robustjax.threats import L0, L1, L2, Linf, per_entry

RNG = np.random.default_rng(0)
N, D = 12, 16
X = RNG.uniform(0.2, 0.8, (N, D)).astype(np.float32)
W = RNG.normal(size=(D, 2)).astype(np.float32)
KEY = jax.random.key(3)
MODEL = jax.tree_util.Partial(lambda w, x: (x.reshape(len(x), -1) - 0.5) @ w, W)
LABELS = np.asarray(MODEL(X)).argmax(1)
V = W[:, 1] - W[:, 0]
GAP = np.abs((X - 0.5) @ V)
"""The logit difference; the smallest change in Linf is GAP / |V|_1, if no bound is near."""

SHAPES = [((D,), Linf), ((8, 2), L2), ((2, 2, 2, 2), L1)]  # a vector, a signal, a video
FREE = {"bounds": None}


def robust_share(change: float) -> float:
    return float((change < GAP).mean())


@pytest.mark.parametrize(("shape", "norm"), SHAPES)
def test_a_linear_model_has_its_exact_accuracy(shape, norm):
    dual = {Linf: np.abs(V).sum(), L2: np.linalg.norm(V), L1: np.abs(V).max()}[norm]
    eps = float(np.median(GAP) / dual)
    attack = PGD(norm(eps, **FREE), steps=5, loss=losses.margin)
    found = evaluate(MODEL, X.reshape(-1, *shape), LABELS, {"pgd": attack}, KEY, diagnose=False)
    assert found.robust["pgd"] == robust_share(eps * dual)
    assert found.adversarial["pgd"].shape == (N, *shape)


@pytest.mark.parametrize(
    "attack",
    [Restarts(PGD(Linf(0.05), steps=2), 2), FMN(L2(0.1), steps=5)],
    ids=lambda a: type(a).__name__,
)
def test_a_vector_is_an_image_of_one_column(attack):
    flat = perturb(attack, MODEL, KEY, X, LABELS)
    image = perturb(attack, MODEL, KEY, X[:, :, None, None], LABELS)
    np.testing.assert_array_equal(flat, image[:, :, 0, 0])


TREE = {"a": X[:, :3], "b": X[:, 3:15].reshape(N, 2, 6), "c": X[:, 15]}


def of_tree(x):
    rows = len(x["c"])
    return MODEL(jnp.concatenate([jnp.reshape(x[k], (rows, -1)) for k in "abc"], 1))


def flat(tree) -> np.ndarray:
    return np.concatenate([np.asarray(leaf).reshape(N, -1) for leaf in tree.values()], 1)


def test_a_pytree_is_the_vector_of_its_entries():
    attack = PGD(Linf(0.05), steps=3)
    found = perturb(attack, of_tree, KEY, TREE, LABELS)
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in TREE.items()}
    np.testing.assert_array_equal(flat(found), perturb(attack, MODEL, KEY, X, LABELS))


def test_eps_and_bounds_for_each_input():
    eps = per_entry({"a": 0.5, "b": np.linspace(0, 0.1, 6), "c": 0.0}, TREE)
    high = per_entry({"a": 2.0, "b": 1.0, "c": 1.0}, TREE)
    threat = Linf(eps, bounds=(per_entry(-1.0, TREE), high))
    attack = PGD(threat, steps=20, loss=losses.margin)
    found = evaluate(of_tree, TREE, LABELS, {"pgd": attack}, KEY, diagnose=False)
    side = np.where(LABELS == 1, -1, 1)[:, None] * np.sign(V)
    best = np.clip(X + eps * side, -1, high)
    assert found.robust["pgd"] == np.mean(np.asarray(MODEL(best)).argmax(1) == LABELS)
    moved = np.abs(flat(found.adversarial["pgd"]) - X)
    assert (moved <= eps + 1e-6).all() and not moved[:, 15].any()


def test_per_entry_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="values do not fit"):
        per_entry({"a": 0.5, "b": 0.1}, TREE)
    with pytest.raises(ValueError, match="values do not fit"):
        per_entry({"a": np.zeros(4), "b": 0.1, "c": 0}, TREE)


def test_arrays_in_a_threat_have_the_shape_of_the_inputs():
    eps = np.zeros(D, np.float32)
    eps[3] = 0.1
    moved = perturb(PGD(Linf(eps), steps=3), MODEL, KEY, X, LABELS) - X
    assert moved[:, 3].all() and not np.delete(moved, 3, 1).any()
    mask = np.zeros((8, 2), bool)
    mask[:, 1] = True
    signal = X.reshape(N, 8, 2)
    moved = perturb(PGD(L2(0.1, mask=mask), steps=3), MODEL, KEY, signal, LABELS) - signal
    assert moved[..., 1].any() and not moved[..., 0].any()
    each = np.linspace(0, 0.1, N, dtype=np.float32)
    moved = np.abs(perturb(PGD(Linf(each), steps=3), MODEL, KEY, X, LABELS) - X).max(1)
    np.testing.assert_allclose(moved, each, atol=1e-6)
    both = each[:, None] * np.ones(D, np.float32)
    moved = np.abs(perturb(PGD(Linf(both), steps=3), MODEL, KEY, X, LABELS) - X).max(1)
    np.testing.assert_allclose(moved, each, atol=1e-6)


@pytest.mark.parametrize(
    ("threat", "inputs", "message"),
    [
        (Linf(np.full(5, 0.1)), X, r"eps of shape \(5,\) does not fit inputs \(N, 16\)"),
        (Linf(np.full((3, 16), 0.1)), X, r"eps of shape \(3, 16\) does not fit"),
        (Linf(np.full(12, 0.1)), X[:, :12], "ambiguous"),
        (L2(np.full(16, 0.1)), X, "only Linf has an eps per feature"),
        (Linf(0.1, mask=np.ones((4, 4, 1))), X, "mask of shape .* does not fit"),
        (Linf(0.1, bounds=(np.zeros(3), np.ones(3))), X, "bounds of shape .* does not fit"),
        (Linf(np.full(3, 0.1)), TREE, r"does not fit inputs \{a: \(N, 3\), b: \(N, 2, 6\), c: "),
    ],
)
def test_what_does_not_fit_is_refused(threat, inputs, message):
    model = of_tree if isinstance(inputs, dict) else lambda x: x[:, :2]
    with pytest.raises(ValueError, match=message):
        perturb(PGD(threat), model, KEY, inputs, LABELS)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, "images must be an array .* got None"),
        ("text", "images must be an array"),
        ([[1.0], [2.0, 3.0]], "images must be an array"),
        (np.zeros((0, 3)), "images must be an array"),
        ({"a": X, "b": X[:5]}, r"same leading axis.*\(12, 16\), \(5, 16\)"),
        ({"a": X, "b": np.arange(N)}, r"inputs\['b'\] must be floats, got int64"),
        (np.arange(N * 3).reshape(N, 3), "images must be floats"),
        (X + 1, "pixels must lie in"),
    ],
)
def test_unusable_inputs_are_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        perturb(PGD(Linf(0.1)), lambda x: x, KEY, inputs, LABELS)


@pytest.mark.parametrize(
    "attack", [attacks.Spatial(), PGD(transforms=(DiverseInput(),)), attacks.TIM(Linf(0.1))]
)
def test_what_moves_pixels_needs_images(attack):
    with pytest.raises(ValueError, match=r"moves the pixels of images.*inputs are \(N, 16\)"):
        perturb(attack, MODEL, KEY, X, LABELS)


def test_a_pixel_of_a_signal_is_a_time():
    """L0 counts positions with all their channels."""
    moved = perturb(PGD(L0(1), steps=3), MODEL, KEY, X.reshape(N, 8, 2), LABELS)
    assert ((moved != X.reshape(N, 8, 2)).any(2).sum(1) <= 1).all()


@pytest.mark.parametrize(
    ("threat", "shape"), [(Linf(0.1), (D,)), (L2(0.3), (1, D, 1)), (L1(0.6), (D,))]
)
def test_square_finds_on_a_line_what_the_linear_model_allows(threat, shape):
    """With many queries it comes close to the exact optimum of a linear function."""
    attack = Square(threat, queries=1500)
    far = np.float32([[0.0, 100.0 * (2 * LABELS[0] - 1)]])  # it never succeeds, and uses them all
    model = lambda x: MODEL(x) + far  # noqa: E731
    x_adv = perturb(attack, model, KEY, X[:1].reshape(1, *shape), LABELS[:1]).reshape(1, D)
    gain = np.abs((x_adv - X[:1]) @ V)
    dual = {Linf: np.abs(V).sum(), L2: np.linalg.norm(V), L1: np.abs(V).max()}[type(threat)]
    assert gain > 0.75 * threat.eps * dual


def test_every_evaluation_takes_vectors():
    threat = Linf(float(np.median(GAP) / np.abs(V).sum()))
    attack = PGD(threat, steps=5, loss=losses.margin)
    share = robust_share(float(threat.eps * np.abs(V).sum()))  # no bound is near
    assert 0 < share < 1
    assert curve(MODEL, X, LABELS, attack, [0, threat.eps], KEY)["accuracy"] == [1.0, share]
    assert zero_gradient(MODEL, X, LABELS, attack, KEY) == 0
    found = transfer(attack, {"a": MODEL}, {"a": MODEL}, X, LABELS, KEY)
    assert found.accuracy["a"]["a"].value == share
    fitted = detection.MaxMargin().fit(MODEL, X, LABELS)
    np.testing.assert_allclose(detection.scores(fitted, X), GAP, rtol=1e-5)
    seen = evaluation.detect(MODEL, {"margin": fitted}, X, LABELS, X, {"pgd": attack}, KEY)
    assert seen.n == N


def test_detectors_of_inputs_outside_the_unit_box():
    scaled = jax.tree_util.Partial(lambda w, x: x @ w / 9, W)
    inputs, low = 9 * (X - 0.5), -4.5
    with pytest.raises(ValueError, match=r"pixels must lie in \[0, 1\]"):
        detection.MaxMargin().fit(scaled, inputs, LABELS)
    threat = Linf(0.1, bounds=(low, 4.5))
    for bounds in (None, (low, 4.5), (np.full(D, low), 4.5)):
        fitted = detection.MaxMargin().fit(scaled, inputs, LABELS, bounds=bounds)
        np.testing.assert_allclose(detection.scores(fitted, inputs), GAP, rtol=1e-4)
    with pytest.raises(ValueError, match="pixels must lie in"):
        detection.scores(fitted, 2 * inputs)
    detectors, attack = {"margin": fitted}, {"fgsm": attacks.FGSM(threat)}
    seen = evaluation.detect(scaled, detectors, inputs, LABELS, inputs, attack, KEY)
    fooled = 0.1 * np.abs(V).sum() / 9 > GAP
    left = seen.views["margin"]["fgsm"].prediction == LABELS
    np.testing.assert_array_equal(left, ~fooled)
    assert 0 < fooled.mean() < 1
    both = detection.combine([fitted], inputs[: N // 2], inputs[N // 2 :])
    assert detection.scores(both, inputs).shape == (N,)
    with pytest.raises(ValueError, match=r"reads pixels in \[0, 1\], got bounds None"):
        detection.FeatureSqueezing().fit(scaled, inputs, LABELS, bounds=None)


def test_a_random_model_of_vectors():
    def noisy(key, x):
        return MODEL(x) + 0.01 * jax.random.normal(key, (len(x), 2))

    attack = PGD(Linf(0.2, **FREE), steps=3)
    found = evaluate(Randomized(noisy), X, LABELS, {"pgd": attack}, KEY, diagnose=False)
    assert found.robust["pgd"] < 0.5 < found.clean


def test_uint8_images_in_a_row_are_divided_by_255():
    rows = (X * 255).round().astype(np.uint8)
    found = perturb(PGD(Linf(0.0)), MODEL, KEY, rows, LABELS)
    np.testing.assert_array_equal(found, rows.astype(np.float32) / np.float32(255))


# Outputs of another kind


def test_one_logit():
    def model(x):
        return (x - 0.5) @ V

    eps = float(np.median(GAP) / np.abs(V).sum())
    attack = PGD(Linf(eps, **FREE), steps=5, loss=losses.binary_margin)
    found = evaluate(model, X, LABELS, {"pgd": attack}, KEY, success=wrong_sign, diagnose=False)
    assert found.clean == 1 and found.robust["pgd"] == robust_share(eps * np.abs(V).sum())


def test_many_labels():
    signs = (np.asarray(MODEL(X)) > 0).astype(int)
    least = np.abs(np.asarray(MODEL(X))) / np.abs(W).sum(0)
    eps = float(np.median(least.min(1)))
    attack = PGD(Linf(eps, **FREE), steps=10, loss=losses.binary_margin)
    how = {"success": wrong_sign, "diagnose": False}
    found = evaluate(MODEL, X, signs, {"pgd": attack}, KEY, **how)
    assert found.clean == 1 and found.robust["pgd"] == (least.min(1) > eps).mean()


def test_a_regression():
    def model(x):
        return x @ V

    targets = X @ V + np.linspace(-1, 1, N, dtype=np.float32)
    eps, error = 0.05, np.abs(np.linspace(-1, 1, N))
    attack = PGD(Linf(eps, **FREE), steps=5, loss=losses.absolute_error)
    farther = FartherThan(1.2)
    found = evaluate(model, X, targets, {"pgd": attack}, KEY, success=farther, diagnose=False)
    assert found.clean == 1
    assert found.robust["pgd"] == np.mean(error + eps * np.abs(V).sum() <= 1.2)
    assert 0 < found.robust["pgd"] < 1


def test_a_segmentation():
    def model(x):  # each pixel is its own logit
        return jnp.stack([x, 1 - x], -1)

    images = X.reshape(N, 4, 4)
    classes = (images < 0.5).astype(int)
    attack = PGD(Linf(0.1), steps=5, loss=losses.pixel_cross_entropy)
    half = MorePixelsWrong(0.25)
    found = evaluate(model, images, classes, {"pgd": attack}, KEY, success=half, diagnose=False)
    flipped = (np.abs(images - 0.5) < 0.1).mean((1, 2))
    assert found.robust["pgd"] == np.mean(flipped <= 0.25)
    assert 0 < found.robust["pgd"] < 1


def test_losses_say_what_does_not_fit():
    with pytest.raises(ValueError, match="a number for each output"):
        losses.binary_cross_entropy(jnp.zeros(3), jnp.zeros(2))
    with pytest.raises(ValueError, match="a class for each pixel"):
        losses.pixel_cross_entropy(jnp.zeros((2, 2, 3)), jnp.zeros(4, int))


# Constraints of the user's own


@config.config
class Counts(Linf):
    """Whole numbers: a change is rounded towards the original."""

    def project(self, x_adv, x):
        return x + jnp.trunc(super().project(x_adv, x) - x)


def test_whole_numbers_stay_whole():
    counts = np.round(X * 20)
    model = lambda x: MODEL(x / 20)  # noqa: E731
    labels = np.asarray(model(counts)).argmax(1)
    attack = PGD(Counts(2.5, bounds=(0, 20)), steps=5, step_size=1.0, loss=losses.margin)
    found = perturb(attack, model, KEY, counts, labels)
    best = np.clip(counts + 2 * np.where(labels == 1, -1, 1)[:, None] * np.sign(V), 0, 20)
    np.testing.assert_array_equal(found, best)


# Models that read images another way


def test_channels_first_and_normalized():
    weights = RNG.normal(size=(3 * 16, 4)).astype(np.float32)
    mean, std = np.float32([0.1, 0.2, 0.3]), np.float32([0.5, 0.25, 2.0])
    torch_like = jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w, weights)
    model = models.normalized(models.channels_first(torch_like), mean, std)
    images = RNG.uniform(size=(2, 4, 4, 3)).astype(np.float32)
    rows = ((images - mean) / std).transpose(0, 3, 1, 2).reshape(2, -1)
    np.testing.assert_allclose(model(images), rows @ weights, rtol=1e-4)
    assert any(leaf.shape == weights.shape for leaf in jax.tree.leaves(model))
    drawn = models.channels_first(Randomized(lambda key, x: x[:, 0, 0]))
    np.testing.assert_allclose(drawn(images), images[:, 0, :, 0])
    with pytest.raises(ValueError, match="std must be positive"):
        models.normalized(torch_like, mean, 0.0)


def test_layouts_of_equal_shapes_share_programs():
    assert layout_of(X) == layout_of(X[:5]) and hash(layout_of(X)) == hash(layout_of(X[:5]))
    assert layout_of(X) != layout_of(X[:, :5])
