"""Attacks on classifier and detector together: linear ones, whose joint problem is solved exactly.

Logits and score are linear in the pixels: the nearest image that is of a class and accepted is the
shortest vector under three linear constraints, and whether an Linf ball holds one a linear program.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.optimize import linprog

from robustjax.attacks import MultiTargeted, perturb
from robustjax.attacks._engine.inputs import check_request
from robustjax.attacks._engine.slots import over_slots
from robustjax.attacks.steps import Momentum, Nesterov, Steepest
from robustjax.attacks.targets import TrueLabel
from robustjax.detection import (
    CarliniWagnerWB,
    Confidence,
    JointPGD,
    accepted_and_wrong,
    scores,
    with_score,
)
from robustjax.detection.joint_pgd import orthogonal
from robustjax.deterministic import ordered_sum, spread
from robustjax.evaluation import evaluate
from robustjax.threats import L2, Linf

N, SHAPE, SIZE, K = 24, (4, 4, 2), 32, 3
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0.35, 0.65, (N, *SHAPE)).astype(np.float32)
FLAT = IMAGES.reshape(N, -1)
W = (0.4 * RNG.normal(size=(SIZE, K + 1))).astype(np.float32)
BIAS = -np.median(FLAT @ W, axis=0).astype(np.float32)
BIAS[K] -= 0.1  # the detector is in the way
KEY = jax.random.key(0)


def linear(weights, x):
    """The last column is the score; a product whose bits do not depend on the batch."""
    w, bias = weights
    out = jax.vmap(lambda row: ordered_sum(spread(row.reshape(-1), K + 1).T * w) + bias)(x)
    return {"logits": out[:, :K], "score": out[:, K]}


def model(scale=1.0, least=0.0):
    """The logits times `scale`, the score less `least`."""
    factor = np.array([scale] * K + [1], np.float32)
    return Partial(linear, (W * factor, BIAS * factor - np.float32([0] * K + [least])))


MODEL = model()
LABELS = np.asarray(MODEL(IMAGES)["logits"]).argmax(-1)
TARGETS = (LABELS + 1 + np.arange(N) % (K - 1)) % K


def out(images, model=MODEL):
    """Logits and scores in float64."""
    w, bias = (np.asarray(a, np.float64) for a in model.args[0])
    found = images.reshape(len(images), -1).astype(np.float64) @ w + bias
    return found[:, :K], found[:, K]


def ahead(images, targets, model=MODEL):
    """By how much the target class leads."""
    logits, _ = out(images, model)
    own = logits[np.arange(len(images)), targets]
    logits[np.arange(len(images)), targets] = -np.inf
    return own - logits.max(1)


def constraints(i, t, confidence=0.0):
    """Rows a and needs m of a @ d >= m: class t leads, and the score is not negative."""
    logits, score = out(IMAGES[i : i + 1])
    others = [j for j in range(K) if j != t]
    rows = [W[:, t].astype(np.float64) - W[:, j] for j in others] + [W[:, K].astype(np.float64)]
    needs = [logits[0, j] - logits[0, t] + confidence for j in others] + [-score[0]]
    return np.stack(rows), np.array(needs)


def shortest(rows, needs):
    """min |d|_2 with rows @ d >= needs: every set of active constraints is tried."""
    best = np.inf if (needs > 0).any() else 0.0
    for n in range(1, len(needs) + 1):
        for active in map(list, itertools.combinations(range(len(needs)), n)):
            d = np.linalg.lstsq(rows[active], needs[active])[0]
            if (rows @ d >= needs - 1e-9).all():
                best = min(best, np.linalg.norm(d))
    return best


def slack(i, t, eps):
    """max over |d|_inf <= eps of the least that a constraint is exceeded by."""
    rows, needs = constraints(i, t)
    found = linprog(
        [0] * SIZE + [-1],
        A_ub=np.hstack([-rows, np.ones((len(needs), 1))]),
        b_ub=-needs,
        bounds=[(-eps, eps)] * SIZE + [(None, None)],
    )
    return found.x[-1]


# ---- C&W-wb

WB = CarliniWagnerWB(confidence=0.3, steps=150)


def run(attack, model=MODEL, labels=LABELS, targets=TARGETS, **rest):
    rest = {"batch_size": N} | rest
    return perturb(attack, model, KEY, IMAGES, labels, targets=targets, **rest)


def length(z):
    return np.linalg.norm((z - IMAGES).reshape(N, -1), axis=1)


def test_the_nearest_accepted_image_of_the_class_is_found():
    z = run(WB)
    assert (ahead(z, TARGETS) >= 0.3).all() and (out(z)[1] >= 0).all()
    best = [shortest(*constraints(i, TARGETS[i], 0.3)) for i in range(N)]
    ratio = length(z) / best
    assert ratio.min() > 1 - 1e-4 and np.median(ratio) < 1.01 and ratio.max() < 1.1
    oblivious = [shortest(*(c[:-1] for c in constraints(i, TARGETS[i], 0.3))) for i in range(N)]
    assert np.median(np.divide(best, oblivious)) > 1.05  # the detector is in the way


def test_a_score_out_of_reach_leaves_the_image_of_the_class_that_is_detected_least():
    far = model(least=50.0)
    z, plain = run(WB, far), run(WB, model(least=-50.0))
    assert (ahead(z, TARGETS) >= 0.3).all()
    assert (out(z, far)[1] < -10).all()  # none is a success, and none says so
    assert (out(z)[1] > out(plain)[1] + 0.1).all()
    judged = jax.vmap(accepted_and_wrong)(far(z), jnp.asarray(LABELS))
    assert not judged.any() and (np.asarray(far(z)["logits"]).argmax(-1) == TARGETS).all()


def test_a_class_that_is_never_reached_leaves_the_clean_image():
    np.testing.assert_array_equal(run(WB, model(scale=0.0)), IMAGES)


def test_an_image_that_is_accepted_as_the_class_stays_as_it_is():
    accepted = out(IMAGES)[1] >= 0
    wrong = (LABELS + 1) % K
    z = run(dataclasses.replace(WB, confidence=0.0), labels=wrong, targets=LABELS)
    same = (z == IMAGES).all((1, 2, 3))
    np.testing.assert_array_equal(same, accepted)
    assert 4 < same.sum() < N - 4 and (out(z)[1] >= 0).all()


def test_the_class_it_goes_to_is_drawn_for_each_image_and_may_be_any_of_them():
    z = run(WB, targets=None)
    reached = out(z)[0].argmax(1)
    assert (reached != LABELS).all() and len(set((reached - LABELS) % K)) == K - 1
    every = run(MultiTargeted(WB, 2), targets=None, success=accepted_and_wrong)
    assert (out(every)[0].argmax(1) != LABELS).all()


def test_a_step_is_a_pass_forward_and_a_pass_back():
    m, key, examples, batch = check_request(MODEL, KEY, IMAGES, LABELS, None, N, TARGETS)
    cost = over_slots(WB, m, key, (), examples, batch)[0].cost
    np.testing.assert_array_equal(cost.forwards, 1 + cost.backwards)
    assert (cost.backwards > 150).all() and (cost.backwards <= 3 * 75 + 9 * 150).all()


# ---- PGD on both

EPS = 0.025
PUBLISHED = {"rule": Steepest(), "rel_step": 2.5}
JOINT = {
    "sum": JointPGD(Linf(EPS)),
    "sum by momentum": JointPGD(Linf(EPS), rule=Momentum()),
    "selective": JointPGD(Linf(EPS), weight=0.0, **PUBLISHED),
    "orthogonal": JointPGD(Linf(EPS), constraint="orthogonal", **PUBLISHED),
}


@pytest.mark.parametrize("name", JOINT)
def test_what_no_image_of_the_ball_is_is_never_reported_and_what_one_is_is_found(name):
    z = run(JOINT[name], targets=None)
    room = [max(slack(i, t, EPS) for t in {*range(K)} - {LABELS[i]}) for i in range(N)]
    logits, score = out(z)
    won = (logits.argmax(1) != LABELS) & (score >= 0)
    possible, clearly = np.greater(room, 0), np.greater(room, 0.06)
    assert not (won & ~possible).any()
    assert clearly.sum() > 6 and (~possible).sum() > 3
    assert won[clearly].all()


@pytest.mark.parametrize("name", JOINT)
def test_evaluate_counts_what_is_wrong_and_accepted(name):
    attacks = {name: JOINT[name]}
    found = evaluate(
        MODEL, IMAGES, LABELS, attacks, KEY, success=accepted_and_wrong, diagnose=False
    )
    z = found.adversarial[name]
    np.testing.assert_array_equal(z, run(JOINT[name], targets=None))
    logits, score = out(z)
    won = (logits.argmax(1) != LABELS) & (score >= 0)
    np.testing.assert_array_equal(found.examples[name]["fooled"], won)
    assert found.clean == 1


def test_where_nothing_fools_it_goes_to_the_corner_of_the_sum():
    """Of unit gradients: units of the score do not matter."""
    logits, _ = out(IMAGES)
    second, best = np.argsort(logits)[:, -2], np.sort(logits)[:, -2:]
    firm = np.flatnonzero(best[:, 1] - best[:, 0] > 0.05)
    assert len(firm) > N / 2
    attack = JointPGD(Linf(1e-3), weight=0.5, **PUBLISHED)
    for least, scale in ((0.0, 1.0), (3.0, 1e3)):
        z = run(attack, model(scale, least), targets=None)
        for i in firm:
            lead, hide = W[:, second[i]] - W[:, LABELS[i]], W[:, K]
            direction = lead / np.linalg.norm(lead) + hide / np.linalg.norm(hide) / 2
            corner = FLAT[i] + np.float32(1e-3) * np.sign(direction)
            np.testing.assert_allclose(z[i].reshape(-1), corner, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e15])
def test_an_orthogonal_direction_has_no_component_along_the_other(scale):
    a, b = (scale * RNG.normal(size=SHAPE).astype(np.float32) for _ in range(2))
    left = np.asarray(orthogonal(a, b), np.float64)
    assert abs(np.sum(left * b)) < 1e-6 * np.linalg.norm(left) * np.linalg.norm(b.astype(float))
    along = np.sum(a.astype(float) * b) / np.sum(b.astype(float) ** 2)
    np.testing.assert_allclose(left, a - along * b, atol=1e-5 * scale)
    np.testing.assert_array_equal(orthogonal(a, np.zeros_like(b)), a)


def test_in_l2_it_stays_in_the_ball_and_finds_what_is_well_inside():
    attack = JointPGD(L2(0.2), steps=60, rule=Momentum())
    z = run(attack, targets=None)
    logits, score = out(z)
    won = (logits.argmax(1) != LABELS) & (score >= 0)
    near = [min(shortest(*constraints(i, t)) for t in range(K) if t != LABELS[i]) for i in range(N)]
    assert (length(z) <= 0.2 + 1e-6).all()
    assert not (won & np.greater(near, 0.2)).any() and won[np.less(near, 0.17)].all()
    assert 3 < won.sum() < N


def test_its_passes_are_counted():
    attack = dataclasses.replace(JOINT["sum"], steps=4)
    m, key, examples, batch = check_request(MODEL, KEY, IMAGES, LABELS, None, N)
    cost = over_slots(attack, m, key, (), examples, batch)[0].cost
    assert (cost.forwards == 5).all() and (cost.backwards == 10).all()


# ---- both


@pytest.mark.parametrize("attack", [WB, JOINT["orthogonal"]], ids=["wb", "joint"])
def test_any_order_and_batch_size_give_the_same_bits(attack):
    whole, order = run(attack), RNG.permutation(N)
    rest = {"targets": TARGETS[order], "indices": order, "batch_size": 8}
    again = perturb(attack, MODEL, KEY, IMAGES[order], LABELS[order], **rest)
    np.testing.assert_array_equal(again, whole[order])


@pytest.mark.parametrize("attack", [WB, JOINT["orthogonal"]], ids=["wb", "joint"])
def test_a_constant_model_makes_no_nan(attack):
    m = Partial(linear, (0 * W, 0 * BIAS))
    assert np.isfinite(run(attack, m)).all()


def test_a_threshold_for_each_class_is_that_of_the_predicted_one():
    fitted = Confidence().fit(Partial(only_logits, MODEL), IMAGES, LABELS)
    plain, thresholds = scores(fitted, IMAGES), np.array([0.5, -0.25, 2.0])
    assert len(set(LABELS)) == K
    found = with_score(fitted, thresholds)(IMAGES)["score"]
    np.testing.assert_allclose(found, plain - thresholds[LABELS], atol=1e-6)
    np.testing.assert_allclose(with_score(fitted, 0.5)(IMAGES)["score"], plain - 0.5, atol=1e-6)
    for bad in (np.nan, np.zeros((2, 2))):
        with pytest.raises(ValueError, match="threshold"):
            with_score(fitted, bad)


def only_logits(inner, x):
    return inner(x)["logits"]


@pytest.mark.parametrize(
    ("make", "bad", "match"),
    [
        (CarliniWagnerWB, {"confidence": -1.0}, "confidence"),
        (CarliniWagnerWB, {"steps": 1}, "steps"),
        (CarliniWagnerWB, {"target": TrueLabel()}, "target"),
        (JointPGD, {"constraint": "product"}, "constraint"),
        (JointPGD, {"weight": -1.0}, "weight"),
        (JointPGD, {"target": "best"}, "target"),
        (JointPGD, {"rule": Nesterov()}, "rule Nesterov looks ahead"),
    ],
)
def test_bad_input_is_refused(make, bad, match):
    with pytest.raises(ValueError, match=match):
        make(**bad)
