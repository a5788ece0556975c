"""Models with randomness: reproducible, order-independent, drawn anew, averaged by EOT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks import (
    APGD,
    PGD,
    SPSA,
    Randomized,
    Restarts,
    Square,
    perturb,
)
from robustjax.attacks._core.randomized import expected, redraw
from robustjax.attacks._core.success import fooled
from robustjax.attacks._engine.examples import check_examples
from robustjax.attacks._engine.judgement import judge
from robustjax.attacks._engine.ledger import Ledger
from robustjax.attacks._engine.model import check_model
from robustjax.attacks._engine.setting import Setting
from robustjax.attacks.starts import Zero
from robustjax.attacks.targets import Goal
from robustjax.config import config
from robustjax.evaluation import evaluate
from robustjax.losses import cross_entropy
from robustjax.threats import L2, Linf

N = 9
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0.3, 0.7, (N, 4, 4, 1)).astype(np.float32)
W = RNG.normal(size=(16, 3)).astype(np.float32)
LABELS = (IMAGES.reshape(N, -1) @ W).argmax(-1)
KEY, KEY2 = jax.random.key(0), jax.random.key(9)
total = lambda output, target: output.sum()  # noqa: E731


def noisy(w, key, x):
    """Gaussian noise of the size of the image on every logit's weights."""
    return x.reshape(len(x), -1) @ (w + jax.random.normal(key, w.shape))


def coins(w, key, x):
    """Sixteen logits, pixel by pixel times the signs of the draw: the gradient tells them."""
    return jax.random.rademacher(key, (1, 16), jnp.float32) * x.reshape(len(x), -1)


NOISY = Randomized(jax.tree_util.Partial(noisy, W))
COINS = Randomized(jax.tree_util.Partial(coins, W))


def run(attack, model=NOISY, order=slice(None), size=None):
    return perturb(
        attack,
        model,
        KEY,
        IMAGES[order],
        LABELS[order],
        indices=np.arange(N)[order],
        batch_size=size,
    )


def test_reproducible_and_independent_of_order_and_batch_size():
    attack = PGD(L2(0.3), steps=3, eot=2)
    whole = run(attack)
    np.testing.assert_array_equal(run(attack), whole)
    order = RNG.permutation(N)
    # The quick compiler of the tests rounds in L2 by the number of images; XLA itself does not.
    smaller = run(attack, order=order, size=2)
    np.testing.assert_allclose(smaller, whole[order], rtol=0, atol=1e-6)


def climbing(steps):
    return PGD(Linf(1.0), steps=steps, step_size=0.01, start=Zero(), loss=total)


def signs(steps):
    """Sum of the signs of the draws of all steps, per pixel: each step moves by 0.01."""
    return np.round((run(climbing(steps), COINS) - IMAGES) / 0.01).reshape(N, 16)


def test_every_step_and_every_example_has_its_own_draw():
    one, five = signs(1), signs(5)
    assert set(one.ravel()) == {-1, 1}
    assert len({tuple(row) for row in one}) == N
    assert set(five.ravel()) <= {-5, -3, -1, 1, 3, 5}
    assert (np.abs(five) < 5).any(1).all()  # five equal draws would move every pixel by 5


def test_restarts_have_their_own_draws():
    """The stages of an ensemble have other keys, so the last restart is not the only attack."""
    never = lambda output, y: jnp.asarray(False)  # noqa: E731
    last = perturb(
        Restarts(climbing(1), 2), COINS, KEY, IMAGES, LABELS, success=never
    )  # fmt: skip
    assert (np.round((last - IMAGES) / 0.01).reshape(N, 16) != signs(1)).any(1).all()


def offset(w, key, x):
    """Noise on the logits alone: an image at the boundary fools every second draw."""
    return x.reshape(len(x), -1) @ w + jax.random.normal(key, (1, 3))


@pytest.mark.parametrize(
    "attack",
    [APGD(Linf(0.5), 20, eot=4), SPSA(Linf(0.5), 20, 32, 0.1), Square(Linf(0.5), queries=100)],
)
def test_an_attack_does_not_stop_where_some_draws_are_fooled(attack):
    images = np.tile(IMAGES, (4, 1, 1, 1))
    labels = (images.reshape(len(images), -1) @ W).argmax(-1)
    z = perturb(attack, Randomized(jax.tree_util.Partial(offset, W)), KEY, images, labels)
    logits = z.reshape(len(z), -1) @ W
    ahead = logits.max(-1) - logits[np.arange(len(z)), labels]
    assert (ahead > 4).mean() > 0.7  # of a noise of deviation sqrt(2)


def setting(model):
    examples = check_examples(IMAGES, LABELS)
    return Setting(check_model(model, examples), KEY, fooled, N, Ledger()), examples


def test_the_verdict_is_a_draw_that_no_attack_has_seen():
    @config
    class Peek:
        """Writes the draw that an attack in one call sees into the image."""

        def __call__(self, logits_fn, key, x, y, target=None):
            return (logits_fn(jnp.ones_like(x)) > 0).astype(x.dtype).reshape(x.shape)

    where, examples = setting(COINS)
    verdict = np.sign(np.asarray(judge(where, examples).logits))
    assert len({tuple(row) for row in verdict}) == N
    np.testing.assert_array_equal(np.sign(judge(where, examples).logits), verdict)
    peeked = 2 * perturb(Peek(), COINS, KEY, IMAGES, LABELS).reshape(N, 16) - 1
    stepped = signs(1)
    assert (verdict != stepped).any(1).all()
    assert (verdict != peeked).any(1).all()
    assert (peeked != stepped).any(1).all()


def test_the_held_key_is_one_draw_however_often_it_is_called():
    one, again, other = NOISY(IMAGES), NOISY(IMAGES), redraw(NOISY, KEY2)(IMAGES)
    np.testing.assert_array_equal(one, again)
    assert (np.asarray(one) != other).all()


def test_the_eot_gradient_is_the_mean_over_draws():
    one = Randomized(lambda key, x: noisy(W, key, x[None])[0])
    x = jnp.asarray(IMAGES[0])
    keys = jax.random.split(jax.random.key(3), 7)

    def plain(key):
        return jax.grad(lambda x: cross_entropy(redraw(one, key)(x), 1))(x)

    mean = np.mean([plain(key) for key in keys], axis=0)
    found = PGD(eot=7).gradient(one, x, Goal(1, cross_entropy), jax.random.key(3))
    np.testing.assert_allclose(found, mean, atol=1e-6)
    single = PGD().gradient(one, x, Goal(1, cross_entropy), jax.random.key(4))
    np.testing.assert_array_equal(single, plain(jax.random.key(4)))


def test_many_draws_approach_the_gradient_of_the_mean_model():
    """A linear loss: each weight's noise has variance 1, so the mean of n draws 1 / n."""
    one = Randomized(lambda key, x: noisy(W, key, x[None])[0])
    first = lambda output, target: output[0]  # noqa: E731
    attack = PGD(loss=first, eot=400)
    found = attack.gradient(one, jnp.asarray(IMAGES[0]), Goal(0, first), jax.random.key(5))
    error = np.asarray(found).ravel() - W[:, 0]
    assert np.abs(error).max() < 4.5 / np.sqrt(400)
    assert error.std() > 0.5 / np.sqrt(400)


def test_more_draws_climb_the_mean_model_higher():
    reached = [
        (run(PGD(L2(0.5), steps=10, eot=eot, start=Zero(), loss=first_logit)).reshape(N, -1) @ W)
        for eot in (1, 30)
    ]
    assert (reached[1][:, 0] > reached[0][:, 0]).all()


def first_logit(output, target):
    return output[0]


def test_a_model_without_randomness_is_attacked_as_it_is():
    plain = jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w, W)
    wrapped = Randomized(jax.tree_util.Partial(lambda w, key, x: x.reshape(len(x), -1) @ w, W))
    attack = PGD(L2(0.3), steps=3)
    np.testing.assert_array_equal(run(attack, plain), run(attack, wrapped))


def test_training_s_loop_takes_the_same_steps():
    """A model with state draws nothing: `ascend` equals the call, bit for bit."""
    one = lambda x: jnp.tanh(x.reshape(-1) @ W)  # noqa: E731
    attack, x = PGD(Linf(0.1), steps=4), jnp.asarray(IMAGES[0])
    called = jax.jit(lambda key: attack(one, key, x, 1))(jax.random.key(1))
    threaded, state = jax.jit(
        lambda key: attack.ascend(lambda n, x: (one(x), n + 1), 0, key, x, 1)
    )(jax.random.key(1))
    np.testing.assert_array_equal(called, threaded)
    assert int(state) == 4


def coin(key, x):
    """Right with probability one half, whatever the image."""
    return (
        jax.random.rademacher(key, (), float) * jnp.array([[1.0, -1.0]])
        + 0 * x.reshape(len(x), -1)[:, :2]
    )


COIN = Randomized(coin)


def coin_report(seed, order, size):
    images = np.tile(IMAGES[:1], (64, 1, 1, 1))
    return evaluate(
        COIN,
        images,
        np.ones(64, int),
        {"pgd": PGD(steps=1)},
        jax.random.key(seed),
        indices=order,
        batch_size=size,
        diagnose=False,
    )


def test_evaluations_of_random_models_are_reproducible_and_order_independent():
    order = np.arange(64)
    one, other = coin_report(0, order, 64), coin_report(0, order[::-1], 16)
    assert one.clean == other.clean and one.robust == other.robust
    np.testing.assert_array_equal(one.examples["prediction"], other.examples["prediction"][::-1])
    assert abs(one.clean - 0.5) < 4 * 0.5 / 8
    assert (coin_report(1, order, 64).examples["prediction"] != one.examples["prediction"]).any()


def test_expected_averages_floats_and_keeps_the_first_of_the_others():
    one = Randomized(lambda key, x: {"u": jax.random.uniform(key) + x, "n": jnp.int32(3)})
    keys = jax.random.split(jax.random.key(0), 4)
    mean = np.mean(jax.vmap(jax.random.uniform)(keys))
    found = expected(lambda draw: draw(1.0), one, jax.random.key(0), 4)
    assert float(found["u"]) == pytest.approx(1 + mean) and int(found["n"]) == 3
    held = expected(lambda draw: draw(1.0), one, None, 4)
    assert float(held["u"]) == float(one(1.0)["u"])
    assert expected(lambda draw: draw(2), lambda x: x + 1, None, 4) == 3
