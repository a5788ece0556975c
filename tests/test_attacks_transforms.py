"""DIM, TIM and SI against hand-written ones; order, randomness, cost."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from robustjax.attacks import (
    DIM,
    NIFGSM,
    PGD,
    SINIFGSM,
    perturb,
)
from robustjax.attacks.starts import Zero
from robustjax.attacks.targets import Goal, Prediction
from robustjax.attacks.transforms import (
    DiverseInput,
    ScaleInvariant,
    TranslationInvariant,
    shrink,
    through,
)
from robustjax.losses import cross_entropy
from robustjax.threats import L2, Linf

RNG = np.random.default_rng(0)
X = RNG.uniform(0.1, 0.9, (10, 10, 2)).astype(np.float32)
W = RNG.normal(size=X.shape).astype(np.float32)
V = RNG.normal(size=(200, 3)).astype(np.float32)
PLACES = list(itertools.product((0, 1), (0, 1)))


def bilinear(x, height, top, left):
    """Half-pixel centres, edges repeated, black around."""
    rows, columns = x.shape[:2]
    width = -(-height * columns // rows)
    z = np.zeros_like(x)
    for i in range(height):
        for j in range(width):
            a, b = (np.clip((k + 0.5) * rows / height - 0.5, 0, None) for k in (i, j))
            for r, c in itertools.product((int(a), int(a) + 1), (int(b), int(b) + 1)):
                weight = (1 - abs(a - r)) * (1 - abs(b - c))
                z[top + i, left + j] += weight * x[min(r, rows - 1), min(c, columns - 1)]
    return z


@pytest.mark.parametrize(("height", "top", "left"), [(9, 0, 0), (9, 1, 0), (7, 2, 3), (10, 0, 0)])
def test_shrink_is_bilinear_on_black(height, top, left):
    expected = bilinear(X.astype(np.float64), height, top, left)
    np.testing.assert_allclose(shrink(X, height, top, left), expected, atol=1e-5)


def test_an_oblong_image_keeps_its_proportions():
    x = X[:8, :5]
    z = np.asarray(shrink(x, 4, 3, 1))
    assert (z[3:7, 1:4] > 0).all()
    assert not z[:3].any() and not z[7:].any() and not z[:, :1].any() and not z[:, 4:].any()


def test_diverse_inputs_are_of_every_size_and_at_every_place():
    views = jax.vmap(lambda k: DiverseInput(p=1.0, low=0.7).view(k, X))
    views = np.asarray(views(jax.random.split(jax.random.key(0), 400)))
    rows, columns = (views.any(axis) for axis in ((2, 3), (1, 3)))
    heights = rows.sum(1)
    assert set(heights) == {7, 8, 9}
    np.testing.assert_array_equal(heights, columns.sum(1))
    places = set(zip(heights, rows.argmax(1), columns.argmax(1), strict=True))
    assert places == {(h, i, j) for h in (7, 8, 9) for i in range(11 - h) for j in range(11 - h)}


def test_diverse_inputs_leave_the_image_with_probability_one_minus_p():
    def views(transform, n):
        return np.asarray(jax.jit(jax.vmap(lambda k: transform.view(k, X)))(keys(n)))

    untouched = (views(DiverseInput(p=0.3), 400) == X).all((1, 2, 3)).mean()
    assert abs(untouched - 0.7) < 4 * np.sqrt(0.3 * 0.7 / 400)
    assert (views(DiverseInput(p=0.0), 5) == X).all()
    np.testing.assert_allclose(views(DiverseInput(p=1.0, low=1.0), 2), [X, X], atol=1e-6)


def gradients(transforms, value, keys):
    objective = through(transforms, lambda x: x, value).function
    return np.asarray(jax.jit(jax.vmap(lambda k: jax.grad(lambda x: objective(k, x))(X)))(keys))


def gradient(transforms, value):
    return gradients(transforms, value, jax.random.split(jax.random.key(0), 1))[0]


def test_translation_invariance_convolves_the_gradient():
    kernel = np.exp(-(np.linspace(-3, 3, 7) ** 2) / 2)
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    g = gradient((TranslationInvariant(7),), lambda x: jnp.sum(W * x**2))
    for channel in range(2):
        plain = 2 * W[..., channel] * X[..., channel]
        expected = scipy.signal.convolve2d(plain, kernel, mode="same")
        np.testing.assert_allclose(g[..., channel], expected, atol=1e-5)
    one = gradient((TranslationInvariant(1),), lambda x: jnp.sum(W * x))
    np.testing.assert_array_equal(one, W)


def test_translation_invariance_leaves_the_value():
    objective = TranslationInvariant(5)(lambda key, x: jnp.sum(W * x))
    assert float(objective(jax.random.key(0), X)) == float(jnp.sum(W * X))


def test_scale_invariance_is_the_mean_over_halved_images():
    def value(x):
        return jnp.sum(jnp.sin(5 * x) * W)

    g = gradient((ScaleInvariant(4),), value)
    expected = np.mean([jax.grad(lambda x, i=i: value(x / 2**i))(X) for i in range(4)], axis=0)
    np.testing.assert_allclose(g, expected, atol=1e-6)


SHRUNK = [
    np.asarray(jax.jit(lambda p: jax.vjp(lambda x: shrink(x, 9, *p), X)[1](W)[0])(jnp.array(place)))
    for place in PLACES
]
"""The gradient of <W, shrink(x)> at every place."""


def keys(n):
    return jax.random.split(jax.random.key(0), n)


def test_each_copy_is_resized_on_its_own():
    """The tuple is in the order in which the image passes: scaled first, each copy then shrunk."""
    transforms = (ScaleInvariant(2), DiverseInput(p=1.0))
    seen = set()
    for g in gradients(transforms, lambda x: jnp.sum(W * x), keys(12)):
        match = [
            (a, b)
            for a, b in itertools.product(range(4), range(4))
            if np.allclose(g, (SHRUNK[a] + SHRUNK[b] / 2) / 2, atol=1e-5)
        ]
        assert len(match) == 1
        seen |= set(match)
    assert len(seen) > 4 and any(a != b for a, b in seen)


def test_every_step_draws_anew():
    """A linear model: the steps add up to 0.02 in length only where both saw the same place."""
    attack = PGD(
        L2(1e3),
        steps=2,
        step_size=0.01,
        start=Zero(),
        loss=lambda out, y: jnp.sum(W * out),
        transforms=(DiverseInput(p=1.0),),
    )
    z = jax.jit(jax.vmap(lambda key: attack(lambda x: x, key, X, 0)))(keys(30))
    length = np.sqrt(((np.asarray(z) - X) ** 2).sum((1, 2, 3)))
    candidates = [g / np.linalg.norm(g) for g in SHRUNK]
    possible = {
        (i, j): 0.01 * np.linalg.norm(a + b)
        for i, a in enumerate(candidates)
        for j, b in enumerate(candidates)
    }
    same = length > 0.02 - 1e-5
    assert 0 < same.sum() < 30
    nearest = [min(abs(v - n) for v in possible.values()) for n in length]
    np.testing.assert_allclose(nearest, 0, atol=1e-5)


def test_the_gradient_with_eot_is_the_mean_over_draws_of_the_transform():
    attack = PGD(loss=lambda out, y: jnp.sum(W * out), eot=3, transforms=(DiverseInput(p=1.0),))
    goal, x = Goal(0, attack.loss), jnp.asarray(X)
    g = jax.jit(lambda k: attack.gradient(lambda x: x, x, goal, k))(jax.random.key(5))
    matches = [
        combination
        for combination in itertools.combinations_with_replacement(range(4), 3)
        if np.allclose(g, sum(SHRUNK[i] for i in combination) / 3, atol=1e-5)
    ]
    assert len(matches) == 1


def logits(v, x):
    return jnp.tanh(x.reshape(len(x), -1) @ v)


IMAGES = RNG.uniform(size=(11, 10, 10, 2)).astype(np.float32)
LABELS = RNG.integers(0, 3, 11)


def test_same_bits_for_any_batch_size_and_order():
    every = (TranslationInvariant(5), ScaleInvariant(2), DiverseInput())
    attack = dataclasses.replace(NIFGSM(Linf(0.1), 3), transforms=every)
    model, key = jax.tree_util.Partial(logits, V), jax.random.key(0)
    whole = perturb(attack, model, key, IMAGES, LABELS, batch_size=11)
    assert float(np.abs(whole - IMAGES).max()) > 0.05
    order = np.random.default_rng(1).permutation(11)
    other = perturb(attack, model, key, IMAGES[order], LABELS[order], indices=order, batch_size=2)
    np.testing.assert_array_equal(other, whole[order])


def test_cost_counts_every_copy():
    assert tuple(SINIFGSM(steps=7, copies=3).cost) == (21, 21)
    assert tuple(DIM(steps=7).cost) == (7, 7)
    both = (ScaleInvariant(2), TranslationInvariant(3), ScaleInvariant(3))
    assert tuple(PGD(steps=5, eot=2, transforms=both, target=Prediction()).cost) == (61, 60)


def test_training_takes_the_plain_gradient():
    key = jax.random.key(0)
    for attack in (DIM(), PGD(eot=2)):
        with pytest.raises(ValueError, match="leave transforms empty and eot at 1"):
            attack.ascend(lambda s, x: (x, s), (), key, X, 0)


def test_zero_gradients_are_found_through_transforms():
    """`gradient` without a key, as the diagnostics call it."""
    attack = DIM(Linf(0.1))
    goal, x = Goal(0, attack.loss), jnp.asarray(X)
    assert not np.asarray(attack.gradient(lambda x: 0 * x.ravel()[:3], x, goal)).any()
    assert np.asarray(attack.gradient(lambda x: x.ravel()[:3], x, goal)).any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: DiverseInput(p=1.5),
        lambda: DiverseInput(low=-0.1),
        lambda: TranslationInvariant(4),
        lambda: TranslationInvariant(-1),
        lambda: ScaleInvariant(0),
    ],
)
def test_bad_settings_are_refused(make):
    with pytest.raises(ValueError, match="must"):
        make()


def test_the_library_s_losses_see_through_too():
    attack = SINIFGSM(Linf(0.1), 1, copies=2)
    x = jnp.asarray(X)
    one = lambda x: logits(V, x[None])[0]  # noqa: E731
    halves = jax.grad(lambda x: (cross_entropy(one(x), 1) + cross_entropy(one(x / 2), 1)) / 2)(x)
    expected = np.clip(X + 0.1 * np.sign(halves), 0, 1)
    np.testing.assert_allclose(attack(one, jax.random.key(0), x, 1), expected, atol=1e-6)
