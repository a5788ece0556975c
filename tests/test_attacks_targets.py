"""Targets: what they choose, what a loss is compared with, and what each attack reaches.

The model is linear, so whether an image of a class lies in a set of boxes is a linear program.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from robustjax import config, evaluation, losses, spec
from robustjax.attacks import (
    APGD,
    DDN,
    EAD,
    FAB,
    FMN,
    JSMA,
    NES,
    PGD,
    AutoAttack,
    CarliniWagnerL2,
    CarliniWagnerLinf,
    DeepFool,
    HopSkipJump,
    MultiTargeted,
    Restarts,
    Square,
    WorstOf,
    perturb,
    stops,
)
from robustjax.attacks.targets import (
    LeastLikely,
    Prediction,
    Random,
    Ranked,
    Target,
    TrueLabel,
    rivals,
)
from robustjax.losses import compares_with
from robustjax.threats import L0, L2, Linf

N, SHAPE, K, EPS = 16, (4, 4, 1), 4, 0.1
RNG = np.random.default_rng(0)
X = RNG.uniform(0.2, 0.8, (N, *SHAPE)).astype(np.float32)
W = RNG.normal(size=(16, K)).astype(np.float32)
Y = (X.reshape(N, -1) @ W).argmax(1)
T = (Y + 1) % K
KEY, INF = jax.random.key(0), float("inf")
MODEL = jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w, W)


def one(x):
    return x.reshape(-1) @ W


def predictions(images):
    return np.asarray(MODEL(images)).argmax(1)


def lead(x, t, eps):
    """The largest lead of class t over the best of the others, in the box of radius eps."""
    others = [k for k in range(K) if k != t]
    # Variables (z, m): maximise m with (w_k - w_t) z + m <= 0 for each other class k.
    rows = np.stack([np.append(W[:, k] - W[:, t], 1) for k in others])
    room = [(max(p - eps, 0), min(p + eps, 1)) for p in x.ravel()] + [(None, None)]
    worst = np.append(np.zeros(16), -1)
    return -scipy.optimize.linprog(worst, rows, np.zeros(K - 1), bounds=room).fun


BOX = np.array([lead(x, t, 1.0) for x, t in zip(X, T, strict=True)])
BALL = np.array([lead(x, t, EPS) for x, t in zip(X, T, strict=True)])
BALL_ATTACKS = {
    "pgd": PGD(Linf(EPS), 100, loss=losses.margin),
    "pgd-ce": PGD(Linf(EPS), 100),
    "apgd": APGD(Linf(EPS)),
    "fab": FAB(Linf(EPS)),
    "fmn": FMN(Linf(EPS)),
    "nes": NES(Linf(EPS), 60),
    "square": Square(Linf(EPS), queries=3000),
    "restarts": Restarts(PGD(Linf(EPS), 100, loss=losses.margin), 2),
    "worst-of": WorstOf((PGD(Linf(EPS), 5), APGD(Linf(EPS)))),
    "autoattack": AutoAttack(Linf(EPS)),
}
BOX_ATTACKS = {
    "fmn": FMN(Linf(INF)),
    "ddn": DDN(),
    "cw": CarliniWagnerL2(),
    "cw-linf": CarliniWagnerLinf(),
    "ead": EAD(),
    "jsma": JSMA(L0(16.0), gamma=1.0),
    "fab": FAB(L2(INF)),
    "deepfool": DeepFool(),
    "hop-skip-jump": HopSkipJump(queries=500),
}


def test_some_classes_lie_inside_the_ball_and_some_do_not():
    decided = np.abs(BALL) > 0.05
    assert decided.sum() >= N - 3 and 3 < (BALL > 0)[decided].sum() < decided.sum() - 3
    assert (BOX > 0).all()


@pytest.mark.parametrize("name", BALL_ATTACKS)
def test_a_given_class_is_reached_wherever_the_ball_has_one(name):
    """Cross-entropy and estimated gradients do not find a class that is just inside."""
    attack = {name: BALL_ATTACKS[name]}
    report = evaluation.evaluate(MODEL, X, Y, attack, KEY, targets=T, diagnose=False)
    there, slack = report.examples[name]["reached"], 0.05 if "pgd" not in name else 0.3
    np.testing.assert_array_equal(there & (BALL < -1e-3), False)
    np.testing.assert_array_equal(there[slack < BALL], True)
    assert report.reached[name] == there.mean()
    np.testing.assert_array_equal(report.examples["target"], T)
    found = predictions(report.adversarial[name])
    inside = report.examples[name]["distance"] <= EPS + 1e-6  # a minimum-norm attack may leave it
    np.testing.assert_array_equal(there, (found == T) & inside)
    np.testing.assert_array_equal(report.examples[name]["fooled"], (found != Y) & inside)
    assert report.robust[name] == 1 - report.examples[name]["fooled"].mean()


@pytest.mark.parametrize("name", BOX_ATTACKS)
def test_a_search_stops_at_the_given_class_alone(name):
    found = predictions(perturb(BOX_ATTACKS[name], MODEL, KEY, X, Y, targets=T))
    np.testing.assert_array_equal(found, T)


@pytest.mark.parametrize("stop", [stops.Never(), stops.Misclassified()])
def test_without_targets_nothing_is_reported_of_them(stop):
    report = evaluation.evaluate(MODEL, X, Y, {"pgd": PGD(Linf(EPS), stop=stop)}, KEY)
    assert report.reached == {} and "target" not in report.examples


def test_a_misclassified_image_is_not_attacked_but_may_be_there():
    y = np.where(np.arange(N) < 4, T, Y)
    targets = np.where(np.arange(N) < 2, Y, (y + 1) % K)
    report = evaluation.evaluate(MODEL, X, y, {"pgd": PGD(Linf(0.01))}, KEY, targets=targets)
    assert (
        report.examples["pgd"]["reached"][:2].all() and report.examples["pgd"]["fooled"][:4].all()
    )


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.full(N, K), "the model has 4 classes, but there is a target 4"),
        (np.full(N, -1), "the model has 4 classes, but there is a target -1"),
        (Y, "that of image 0 is its own label"),
        (T[:3], "leading axis 16"),
    ],
)
def test_targets_that_are_no_classes_to_go_to_are_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        perturb(PGD(), MODEL, KEY, X, Y, targets=targets)
    with pytest.raises(ValueError, match=message):
        evaluation.evaluate(MODEL, X, Y, {"pgd": PGD()}, KEY, targets=targets)


@pytest.mark.parametrize(
    ("attack", "targets", "message"),
    [
        (PGD(loss=losses.kl), T, "kl needs a target, arrays"),
        (PGD(loss=losses.squared_error), T, "squared_error needs a target, arrays"),
        (PGD(loss=losses.targeted_dlr), (Y, T), "give that alone"),
        (FAB(), np.eye(K, dtype=np.float32)[T], "FAB goes to a class"),
        (DeepFool(), (Y, T), "DeepFool goes to a class"),
    ],
)
def test_what_an_attack_cannot_go_to_is_refused(attack, targets, message):
    with pytest.raises(ValueError, match=message):
        perturb(attack, MODEL, KEY, X, Y, targets=targets)


def test_a_reference_is_left():
    reference = np.asarray(MODEL(X))
    z = perturb(PGD(Linf(0.1), loss=losses.kl), MODEL, KEY, X, Y, targets=reference)
    grown = jax.vmap(losses.kl)(MODEL(z), reference)
    assert (np.asarray(grown) > 0.1).all()


def chosen(target, key=KEY, y=2):
    return int(target(key, X[0], jnp.asarray(y), one))


def test_what_targets_choose():
    z = np.asarray(one(X[0]))
    assert chosen(TrueLabel()) == 2 and not TrueLabel().towards
    assert chosen(Prediction(), y=1) == z.argmax() and not Prediction().towards
    assert chosen(LeastLikely()) == z.argmin()
    ranked = [k for k in np.argsort(-z) if k != 2]
    assert [chosen(Ranked(r)) for r in (1, 2, 3, 9)] == [*ranked, ranked[-1]]
    drawn = {
        t: {chosen(Random(with_label=t), jax.random.key(i)) for i in range(40)}
        for t in (False, True)
    }
    assert drawn == {0: {0, 1, 3}, 1: {0, 1, 2, 3}}


def test_the_label_is_never_its_own_rival():
    masked = -np.inf
    for logits, y, known in (
        ([1.0, 2.0, 3.0, masked], 0, [2, 1, 1]),
        ([masked, 2.0, masked, 5.0], 0, [3, 1, 1]),
        ([5.0, masked, masked, masked], 0, [1, 1, 1]),
        ([0.0, 0.0, 0.0, 0.0], 1, [0, 2, 3]),
    ):
        np.testing.assert_array_equal(rivals(jnp.asarray(logits), y), known)


@pytest.mark.parametrize("target", spec.KINDS[Target])
def test_names_and_files_keep_a_target(target):
    named = spec.KINDS[Target].find(target)
    attack = PGD(target=named)
    assert config.decode(config.encode(attack), losses.NAMED) == attack
    assert spec.write(named, spec.KINDS[Target]) == target


def test_files_from_before_targets_are_read():
    old = {"label": "any", "rank": 1, "redraw": True, "targeted": False, "steps": 3}
    read = config.decode({"type": "PGD", "fields": old}, losses.NAMED)
    assert read == PGD(steps=3, target=Random(redraw=True, with_label=True))
    old = {"type": "FAB", "fields": {"label": "ranked", "rank": 3}}
    assert config.decode(old, losses.NAMED) == FAB(target=Ranked(3))


@compares_with("pair")
def ahead(output, pair):
    label, aim = pair
    return output[aim] - output[label]


PAIRED = [
    losses.targeted_dlr,
    functools.partial(losses.targeted_dlr),
    jax.tree_util.Partial(losses.targeted_margin),
    ahead,
    functools.partial(ahead),
    jax.jit(ahead),
]


@pytest.mark.parametrize("loss", PAIRED, ids=range(len(PAIRED)))
def test_a_paired_loss_says_so_through_a_partial(loss):
    assert losses.compared_with(loss) == "pair"
    attack = PGD(Linf(EPS), 20, loss=loss, target=Ranked())
    wrong = predictions(perturb(attack, MODEL, KEY, X, Y)) != Y
    every = predictions(perturb(MultiTargeted(attack, 3), MODEL, KEY, X, Y)) != Y
    assert wrong.sum() > 2 and (every | ~wrong).all()
    with pytest.raises(ValueError, match="needs a target, a class to go to"):
        perturb(PGD(loss=loss), MODEL, KEY, X, Y)


@pytest.mark.parametrize("make", [APGD, FMN, Square, NES, CarliniWagnerL2, JSMA])
def test_every_attack_takes_a_user_s_paired_loss(make):
    z = perturb(make(loss=ahead, target=Ranked()), MODEL, KEY, X[:2], Y[:2])
    assert z.shape == X[:2].shape


def test_a_loss_that_hides_a_pair_says_what_to_do():
    with pytest.raises(TypeError, match="compares_with"):
        hidden = lambda output, target: losses.targeted_margin(output, target)  # noqa: E731
        perturb(PGD(loss=hidden, target=Ranked()), MODEL, KEY, X, Y)


@pytest.mark.parametrize("make", [PGD, APGD, DDN, FAB, DeepFool, CarliniWagnerL2, JSMA, Square])
def test_a_field_that_is_no_target_is_refused(make):
    with pytest.raises(ValueError, match="target must be a Target"):
        make(target="random")


@pytest.mark.parametrize("make", [APGD, DDN, FAB, DeepFool, CarliniWagnerL2, JSMA, Square])
def test_only_an_ascent_draws_again(make):
    with pytest.raises(ValueError, match="chooses its target once"):
        make(target=Random(redraw=True))


def test_a_given_class_makes_one_attack_of_many():
    attack = MultiTargeted(PGD(Linf(EPS), 5), 3)
    report = evaluation.evaluate(MODEL, X, Y, {"mt": attack}, KEY, targets=T, diagnose=False)
    assert [row["path"] for row in report.stages["mt"]] == [[0]]
    one_call = attack(one, jax.random.fold_in(KEY, 0), X[0], Y[0], T[0])
    np.testing.assert_allclose(one_call, report.adversarial["mt"][0], atol=1e-6)
