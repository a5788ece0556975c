"""Each flag: a model or an attack that deserves it, and one that does not."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks import (
    BIM,
    FAB,
    PGD,
    Iterative,
    Randomized,
    Restarts,
    Square,
    WorstOf,
)
from robustjax.config import config
from robustjax.evaluation import diagnostics, evaluate
from robustjax.losses import dlr, margin
from robustjax.threats import Linf
from robustjax.typing import Cost

N, K = 64, 5
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0.25, 0.75, (N, 4, 4, 1)).astype(np.float32)
W = RNG.normal(size=(16, K)).astype(np.float32)
B = -(0.5 * W.sum(0))
LABELS = (IMAGES.reshape(N, -1) @ W + B).argmax(-1)
THREAT = Linf(0.03)


def linear(x, w=W, b=B):
    return x.reshape(len(x), -1) @ jnp.asarray(w) + jnp.asarray(b)[None]


def flags(model=linear, attacks=None, labels=LABELS):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        report = evaluate(model, IMAGES, labels, attacks or {}, jax.random.key(0))
    return report.warnings


@pytest.fixture(scope="module")
def honest():
    """What an ordinary model under ordinary attacks is told: nothing."""
    bim = dataclasses.replace(BIM(THREAT, steps=4), loss=margin)
    return flags(attacks={"bim": bim, "twice": Restarts(bim, 2), "then": WorstOf((bim, Known()))})


def test_an_honest_evaluation_has_no_flags(honest):
    assert honest == []


def test_a_model_that_gets_nothing_right_leaves_nothing_to_attack():
    wrong = (LABELS + 1) % K
    said = flags(attacks={"bim": BIM(THREAT), "square": Square(THREAT)}, labels=wrong)
    assert len(said) == 1 and "[-1, 1]" in said[0]  # it is sometimes right there


def test_whole_numbers_as_logits_have_no_gradient():
    def rounded(x):
        return jnp.round(10 * linear(x)).astype(jnp.int32)

    said = flags(rounded, {"bim": BIM(THREAT, steps=1)}, np.asarray(rounded(IMAGES)).argmax(-1))
    assert any("the loss gradient is exactly zero at 100.0%" in text for text in said)


def test_a_gradient_of_nan_is_told():
    """A minimum-norm attack that follows it finds nothing and reports full robustness."""

    def root(x):
        return linear(x) + 0 * jnp.sqrt(jnp.maximum(x - 1, 0)).sum((1, 2, 3))[:, None]

    (flag,) = flags(root, {"fab": FAB(THREAT, steps=2)})
    assert "fab: the loss of FAB or its gradient is NaN or infinite at 100.0%" in flag


def test_flags_are_warnings_too():
    with pytest.warns(UserWarning, match="returns probabilities"):
        evaluate(lambda x: jax.nn.softmax(linear(x)), IMAGES, LABELS, {}, jax.random.key(0))


def test_probabilities():
    (flag,) = flags(lambda x: jax.nn.softmax(linear(x)))
    assert "returns probabilities, not logits" in flag and "return what goes into" in flag
    assert flags(lambda x: jax.nn.log_softmax(linear(x))) == []


MEAN, STD = IMAGES.mean(), IMAGES.std()


@pytest.mark.parametrize(
    ("model", "scale"),
    [
        (lambda x: linear(x / 255), r"[0, 255]"),
        (lambda x: linear(x / 2 + 0.5), r"[-1, 1]"),
        (lambda x: linear(x * STD + MEAN), "mean 0 and deviation 1"),
    ],
)
def test_pixels_on_another_scale(model, scale):
    flag, *_ = flags(model)  # it may be constant as well
    assert f"scaled to {scale}" in flag and "put that scaling inside the model" in flag


def test_a_random_model():
    def noisy(key, x):
        return linear(x + 0.02 * jax.random.normal(key, x.shape))

    (flag,) = flags(Randomized(noisy))
    assert "output is random" in flag and "version 'rand'" in flag
    assert flags(Randomized(lambda key, x: linear(x))) == []


def test_an_attack_on_one_draw_of_a_random_model():
    """PGD draws at every step; Square does not."""
    attacks = {
        "sq": Square(THREAT, queries=2),
        "pgd": dataclasses.replace(BIM(THREAT, 4), loss=margin),
    }
    (flag,) = flags(Randomized(lambda key, x: linear(x)), attacks)
    assert flag.startswith("sq: one fixed draw") and "that Square looked at" in flag


def in_bits(dtype, normalise=False):
    """A net with a hidden layer that computes in few bits and returns float32."""
    wide = RNG.normal(size=(16, 64)).astype(dtype) / 4, RNG.normal(size=(64, K)).astype(dtype)

    def net(x):
        hidden = x.reshape(len(x), -1).astype(dtype) @ wide[0]
        if normalise:
            hidden = (hidden - hidden.mean(0, keepdims=True)) / (hidden.std(0, keepdims=True) + 0.1)
        return (jax.nn.relu(hidden) @ wide[1]).astype(jnp.float32)

    return net


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_batch_normalisation_in_train_mode(dtype):
    model = in_bits(dtype, normalise=True)
    found = flags(model, labels=np.asarray(model(IMAGES)).argmax(-1))
    assert any("depends on the images beside it" in flag for flag in found)
    model = in_bits(dtype)
    assert flags(model, labels=np.asarray(model(IMAGES)).argmax(-1)) == []


def test_one_mask_of_dropout_for_a_whole_batch():
    def dropped(x):
        keep = jax.random.bernoulli(jax.random.key(0), 0.5, x.shape)
        return linear(jnp.where(keep, 2 * x, 0.0))

    found = flags(dropped, labels=np.asarray(dropped(IMAGES)).argmax(-1))
    assert any("place in the batch" in flag and "dropout" in flag for flag in found)


def test_a_logit_that_saturates():
    """Clipped from above, the label's does not move; one that others are compared with may."""
    attack = {"bim": dataclasses.replace(BIM(THREAT, 4), loss=margin)}
    found = flags(lambda x: jnp.minimum(linear(x), 0.5), attack)
    (flag,) = (flag for flag in found if "the logit of the label does not change" in flag)
    assert "bpda" in flag

    def compared(x):
        return linear(x) - linear(x)[:, :1]

    assert flags(compared, attack) == []


def test_few_classes():
    def some(k):
        return lambda x: linear(x)[:, :k]

    attack = {"dlr": PGD(THREAT, loss=dlr)}
    labels = np.asarray(linear(IMAGES))[:, :3].argmax(-1)
    (flag,) = flags(some(3), attack, labels)
    assert "dlr: the model has 3 classes" in flag
    labels = np.asarray(linear(IMAGES))[:, :4].argmax(-1)
    assert flags(some(4), attack, labels) == []


@config
class Known:
    """No gradient: goes where a margin's derivative is known to lead."""

    threat: Linf = THREAT
    cost = Cost(1, 0)

    def __call__(self, logits_fn, key, x, y, target=None):
        w = jnp.asarray(W)
        others = jnp.where(jnp.arange(K) == y, -jnp.inf, linear(x[None])[0])
        slope = (w[:, jnp.argmax(others)] - w[:, y]).reshape(x.shape)
        return self.threat.project(x + self.threat.eps * jnp.sign(slope), x)


def test_an_attack_without_gradients_that_beats_those_with_them():
    def quantised(x):
        return linear(jnp.round(x * 64) / 64)

    labels = np.asarray(quantised(IMAGES)).argmax(-1)
    both = {"both": WorstOf((PGD(THREAT, loss=margin), Known()))}
    found = flags(quantised, both, labels)
    assert any("both: Known, which sees no gradient, broke" in flag for flag in found)
    assert any("gradient is exactly zero at 100.0%" in flag for flag in found)
    alone = flags(quantised, {"alone": Known()}, labels)
    assert alone == []
    tiny = dataclasses.replace(both["both"].attacks[0], threat=Linf(1e-4))
    assert not any(
        "sees no gradient" in flag for flag in flags(attacks={"b": WorstOf((tiny, Known()))})
    )


def test_attacks_apart_are_compared_where_the_gradients_had_their_chance():
    """Two images in a hundred may be luck; nobody expects everything of one step."""

    def told(count, steps):
        won = {"pgd": np.arange(100) < 40, "square": np.arange(100) < 40 + count}
        stages = {
            name: [{"attacked": 100, "backwards": calls}]
            for name, calls in (("pgd", 100 * steps), ("square", 0))
        }
        return diagnostics.side_by_side(won, stages)

    (flag,) = told(2, steps=10)
    assert flag.startswith("square sees no gradient, and broke 2.0%") and "bpda" in flag
    assert told(1, steps=10) == told(2, steps=1) == []


def test_more_restarts_would_help():
    """Random points of the ball: every draw finds a few more."""
    draw = PGD(Linf(0.2), steps=0)
    found = flags(attacks={"random": Restarts(draw, 2)})
    assert any("the last of 2 restarts of PGD still broke" in flag for flag in found)


@config
class Rising(Iterative):
    """Moves next to nothing, and says that it has not done yet."""

    threat: Linf = THREAT
    rising: bool = True

    def begin(self, logits_fn, example):
        return jnp.asarray(self.rising)

    def step(self, logits_fn, example, state):
        return state

    def done(self, state):
        return jnp.asarray(True)

    def result(self, example, state):
        return 0.999 * example.x

    def spent(self, state):
        return Cost(0, 0)

    def unfinished(self, state):
        return state


def test_more_steps_would_help():
    (flag,) = flags(attacks={"rising": Rising()})
    assert "rising: Rising was still gaining at its end on 100% of the images" in flag
    assert flags(attacks={"flat": Rising(rising=False)}) == []
