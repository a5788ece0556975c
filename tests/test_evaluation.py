"""Reports on linear models, where every number is known."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks import (
    BIM,
    DDN,
    FAB,
    FGSM,
    PGD,
    RFGSM,
    GaussianNoise,
    Restarts,
    WorstOf,
    bpda,
)
from robustjax.attacks.starts import Zero
from robustjax.attacks.targets import LeastLikely
from robustjax.evaluation import curve, evaluate, zero_gradient
from robustjax.losses import margin
from robustjax.threats import L2, Linf

N = 60
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0.3, 0.7, (N, 4, 4, 1)).astype(np.float32)
W = RNG.normal(size=(16, 2)).astype(np.float32)
LOGITS = IMAGES.reshape(N, -1) @ W
B = -np.median(LOGITS, axis=0)
LABELS = (LOGITS + B).argmax(-1)
LABELS[:6] = 1 - LABELS[:6]  # the model gets these wrong
gap = np.abs((LOGITS + B)[:, 0] - (LOGITS + B)[:, 1])
SLOPE = W[:, 0] - W[:, 1]
RIGHT = np.arange(N) >= 6
TRACES = []


def apply(weights, x):
    TRACES.append(x.shape)
    return weights["scale"] * (x.reshape(len(x), -1) @ weights["w"] + weights["b"][None])


def model(scale=1.0, w=W):
    return jax.tree_util.Partial(apply, {"scale": jnp.float32(scale), "w": w, "b": B})


def report(attacks, logits_fn=None, **more):
    logits_fn = model() if logits_fn is None else logits_fn
    return evaluate(logits_fn, IMAGES, LABELS, attacks, jax.random.key(0), **more)


def robust_linf(eps):
    """The distance to the boundary in Linf is |gap| / ||slope||_1 (the box is out of reach)."""
    return (RIGHT & (gap > eps * np.abs(SLOPE).sum())).mean()


EPS = 0.5 * float(np.median(gap)) / np.abs(SLOPE).sum()
ATTACKS = {"fgsm": FGSM(Linf(EPS)), "l2": BIM(L2(0.1)), "pgd": Restarts(PGD(Linf(2 * EPS)), 3)}


@pytest.fixture(scope="module")
def result():
    return report(ATTACKS, batch_size=16)


def test_accuracies_are_the_closed_form(result):
    l2 = RIGHT & (gap > 0.1 * np.linalg.norm(SLOPE))
    assert result.clean == pytest.approx(54 / 60)
    assert result.robust["fgsm"] == pytest.approx(robust_linf(EPS))
    assert result.robust["pgd"] == pytest.approx(robust_linf(2 * EPS))
    assert result.robust["l2"] == pytest.approx(l2.mean())
    worst = RIGHT & l2 & (gap > 2 * EPS * np.abs(SLOPE).sum())
    assert result.worst_case == pytest.approx(worst.mean())
    assert 0 < result.worst_case < result.robust["fgsm"] < result.clean


def test_standard_errors_are_binomial(result):
    assert set(result.stderr) == {"clean", "worst_case", *ATTACKS}
    assert result.stderr["clean"] == pytest.approx(np.sqrt(0.9 * 0.1 / 60))


def test_the_table_holds_every_example(result):
    table = result.examples
    np.testing.assert_array_equal(table["index"], np.arange(N))
    np.testing.assert_array_equal(table["label"], LABELS)
    np.testing.assert_array_equal(table["prediction"] == LABELS, RIGHT)
    for name, attack in ATTACKS.items():
        row, images = table[name], result.adversarial[name]
        after = (images.reshape(N, -1) @ W + B).argmax(-1)
        np.testing.assert_array_equal(row["prediction"], after)
        np.testing.assert_array_equal(row["fooled"], after != LABELS)
        assert 1 - row["fooled"].mean() == pytest.approx(result.robust[name])
        d = (images - IMAGES).reshape(N, -1)
        norm = np.linalg.norm(d, axis=1) if name == "l2" else np.abs(d).max(1)
        np.testing.assert_allclose(row["distance"], norm, atol=1e-6)
        assert row["distance"].max() == pytest.approx(
            float((attack.stages(2)[0] if name == "pgd" else attack).threat.eps), rel=1e-4
        )


def test_only_what_is_right_is_attacked(result):
    for name in ATTACKS:
        np.testing.assert_array_equal(result.adversarial[name][~RIGHT], IMAGES[~RIGHT])


def test_batch_size_and_order_change_nothing(result):
    order = RNG.permutation(N)
    other = evaluate(
        model(),
        IMAGES[order],
        LABELS[order],
        ATTACKS,
        jax.random.key(0),
        indices=order,
        batch_size=24,
    )
    for name in ATTACKS:
        np.testing.assert_array_equal(other.adversarial[name], result.adversarial[name][order])
    assert without_seconds(other.to_json()) == without_seconds(result.to_json())


def without_seconds(content):
    for rows in content["stages"].values():
        for row in rows:
            assert row.pop("seconds") >= 0
    return content


def test_json_is_plain(result):
    data = json.loads(json.dumps(result.to_json()))
    assert data["n"] == N and "examples" not in data
    assert data["robust"]["fgsm"] == result.robust["fgsm"]
    assert data["attacks"]["fgsm"]["type"] == "PGD"
    full = json.loads(json.dumps(result.to_json(examples=True)))
    assert len(full["examples"]["fgsm"]["fooled"]) == N


def test_masked_gradients_are_reported():
    """Saturated: p = 1 in float32, so the cross-entropy's gradient is zero, a margin's is not."""
    attacks = {"ce": FGSM(Linf(2 * EPS)), "margin": PGD(Linf(2 * EPS), loss=margin)}
    with pytest.warns(UserWarning, match="gradient is exactly zero at .* try a margin loss"):
        masked = report(attacks, model(1e4))
    assert masked.zero_gradient["ce"] > 0.5 and masked.zero_gradient["margin"] == 0
    assert masked.robust["margin"] == pytest.approx(robust_linf(2 * EPS))
    assert masked.robust["ce"] > masked.robust["margin"]
    assert len(masked.warnings) == 1 and masked.warnings[0].startswith("ce:")


def test_an_ensemble_is_blind_where_all_of_its_objectives_are():
    masked = report(
        {"both": WorstOf((FGSM(Linf(2 * EPS)), PGD(Linf(2 * EPS), loss=margin)))}, model(1e4)
    )
    assert masked.zero_gradient["both"] == 0 and masked.warnings == []
    assert masked.robust["both"] == pytest.approx(robust_linf(2 * EPS))


def test_the_fraction_without_a_gradient_is_that_of_what_is_right():
    """In float32 exp(-104) is 0, and exp(-88) where the tiniest numbers count as 0."""

    def confident(x):
        return x.reshape(len(x), -1) @ (1e4 * W) + (1e4 * B)[None]

    def blind(n, **fields):
        return zero_gradient(confident, IMAGES[:n], LABELS[:n], PGD(**fields), jax.random.key(0))

    saturated = 1e4 * gap[RIGHT] > 104
    assert saturated.mean() < 1
    np.testing.assert_array_equal(saturated, 1e4 * gap[RIGHT] > 87)
    assert blind(N) == pytest.approx(saturated.mean())
    assert blind(N, loss=margin) == 0
    assert blind(6) == 0  # the model has these wrong


def test_honest_gradients_are_not(result):
    assert result.zero_gradient == {name: 0.0 for name in ATTACKS}
    assert result.warnings == []


def test_a_successful_targeted_attack_is_no_masked_gradient():
    """Where the target's probability reached 1 the gradient may vanish: the image is fooled."""
    attack = PGD(Linf(0.3), steps=20, target=LeastLikely(), start=Zero())
    done = report({"targeted": attack}, model(30.0))
    assert done.robust["targeted"] == 0 and done.zero_gradient["targeted"] <= 0.5


def test_an_attack_that_cannot_cross_its_ball_says_so():
    short = PGD(Linf(EPS), steps=2, step_size=EPS / 10)
    with pytest.warns(UserWarning, match="out of reach"):
        notes = report({"short": WorstOf((FGSM(Linf(EPS)), short))}).warnings
    assert notes == [
        "short: all steps together travel 0.2 eps, so parts of the ball are out of reach from "
        "some starts"
    ]
    with pytest.warns(UserWarning, match="travel 0.5 eps"):
        report({"r-fgsm": RFGSM(Linf(EPS))})
    assert report({"pgd": PGD(Linf(EPS), steps=2)}).warnings == []


def test_the_curve_is_the_closed_form_in_one_compilation():
    attack, radii = BIM(Linf()), [0.0, EPS, 2 * EPS, 4 * EPS]
    points = curve(model(), IMAGES, LABELS, attack, radii[:1], jax.random.key(0))
    traced = len(TRACES)
    points = curve(model(), IMAGES, LABELS, attack, radii, jax.random.key(0))
    assert len(TRACES) == traced
    assert points["eps"] == radii
    assert points["accuracy"] == pytest.approx([robust_linf(eps) for eps in radii])
    assert points["stderr"][0] == pytest.approx(np.sqrt(0.9 * 0.1 / 60))


def test_the_curve_of_a_minimum_norm_attack_keeps_its_own_start():
    """A random start lies in a ball of its eps, so the one run is at that eps, not at infinity."""
    attack = FAB(Linf(EPS), steps=10, random_start=True)
    points = curve(model(), IMAGES, LABELS, attack, [EPS, 4 * EPS], jax.random.key(0))
    assert points["accuracy"] == pytest.approx([robust_linf(EPS), robust_linf(4 * EPS)], abs=0.05)


def test_where_no_radius_is_enough_an_infinite_one_is_not():
    found = evaluate(
        model(0.0), IMAGES, 0 * LABELS, {"ddn": DDN(steps=2)}, jax.random.key(0), diagnose=False
    )
    assert found.curve("ddn", [1e6, np.inf])["accuracy"] == [1.0, 1.0]


def test_new_weights_compile_nothing():
    report({"fgsm": ATTACKS["fgsm"]}, diagnose=False)
    traced = len(TRACES)
    other = report({"fgsm": ATTACKS["fgsm"]}, model(w=-W), diagnose=False)
    assert len(TRACES) == traced and other.clean < 0.9


def test_a_model_that_is_always_wrong_is_reported():
    subject = model(), IMAGES, 1 - LABELS, ATTACKS, jax.random.key(0)
    wrong = evaluate(*subject, diagnose=False)
    assert wrong.clean == pytest.approx(0.1)
    subject = model(), IMAGES[6:], 1 - LABELS[6:], ATTACKS, jax.random.key(0)
    none = evaluate(*subject, diagnose=False)
    assert none.clean == none.worst_case == 0 and none.robust["fgsm"] == 0


def test_no_attacks_leave_the_clean_accuracy():
    assert report({}).worst_case == report({}).clean == pytest.approx(0.9)


def test_the_table_is_saved_flat(result, tmp_path):
    result.save_examples(tmp_path / "examples.npz")
    with np.load(tmp_path / "examples.npz") as saved:
        parts = {f"{name}/{part}" for name in ATTACKS for part in result.examples[name]}
        assert set(saved) == {"index", "label", "prediction", "wrong"} | parts
        np.testing.assert_array_equal(saved["label"], LABELS)
        for name in parts:
            attack, part = name.split("/")
            np.testing.assert_array_equal(saved[name], result.examples[attack][part])


def test_unusable_requests_are_refused():
    for attacks in ([ATTACKS["fgsm"]], ATTACKS["fgsm"]):
        with pytest.raises(ValueError, match="attacks must be a mapping from the names"):
            report(attacks)
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, got 0"):
        report(ATTACKS, batch_size=0)
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, got -3"):
        curve(model(), IMAGES, LABELS, FGSM(), [0.1], jax.random.key(0), batch_size=-3)
    with pytest.raises(ValueError, match=r"key must be a PRNG key such as jax.random.key\(0\)"):
        evaluate(model(), IMAGES, LABELS, ATTACKS, 0)
    with pytest.raises(ValueError, match="cannot be named clean"):
        report({"clean": ATTACKS["fgsm"]})
    with pytest.raises(ValueError, match="NaN on 60 clean images"):
        report(ATTACKS, model(np.nan))


def test_the_worst_case_is_under_the_threat_of_the_evaluation():
    """Attacks outside it are reported beside it, and a nearest image counts up to its eps."""
    threat, noise = Linf(EPS), GaussianNoise(sigma=0.5, draws=20)
    inside = {"fgsm": FGSM(threat), "fab": FAB(Linf(np.inf), steps=20)}
    others = {"l2": BIM(L2(2.0)), "large": FGSM(Linf(4 * EPS)), "noise": noise}
    others["mixed"] = WorstOf((FGSM(threat), noise))
    with pytest.warns(UserWarning, match="does not count in the worst case, which is under Linf"):
        found = report(inside | others, threat=threat, diagnose=False)
    assert found.worst_case_over == ["fgsm", "fab"] and found.robust["fab"] < 0.1
    assert found.worst_case == pytest.approx(robust_linf(EPS), abs=0.02)
    for name in others:
        assert found.robust[name] < found.worst_case and not found.examples[name]["counts"].any()
    assert [note.partition(":")[0] for note in found.warnings] == list(others)
    assert "noise: it has no threat" in found.warnings[2]


def test_the_threat_is_the_one_that_the_attacks_share():
    noise = GaussianNoise(sigma=0.5, draws=20)
    with pytest.warns(UserWarning, match="noise: it has no threat, so it does not count"):
        found = report({"fgsm": FGSM(Linf(EPS)), "noise": noise}, diagnose=False)
    assert found.worst_case == found.robust["fgsm"] > found.robust["noise"]
    assert report({"noise": noise}, diagnose=False).worst_case_over == ["noise"]
    assert report(ATTACKS, diagnose=False).worst_case_over == list(ATTACKS)


def test_a_curve_needs_a_radius():
    noise = GaussianNoise(sigma=0.1)
    for attack in (noise, WorstOf((FGSM(Linf(EPS)), noise))):
        with pytest.raises(ValueError, match=r"a curve needs an attack with a radius.*Gauss"):
            curve(model(), IMAGES, LABELS, attack, [0.1], jax.random.key(0))


def test_accuracies_of_classes(result):
    for name in ("clean", "worst_case", *ATTACKS):
        rows = result.per_class[name]
        accuracy = result.stderr and {"clean": result.clean, "worst_case": result.worst_case}
        shares = [(k == LABELS).mean() for k in range(2)]
        whole = (accuracy | result.robust)[name]
        assert np.dot(rows, shares) == pytest.approx(whole)
        assert result.balanced[name] == pytest.approx(np.mean(rows))
    only = LABELS == 1
    found = evaluate(model(), IMAGES[only], LABELS[only], {}, jax.random.key(0), diagnose=False)
    assert (
        found.per_class["clean"] == [None, found.clean] and found.balanced["clean"] == found.clean
    )


@pytest.mark.parametrize(("odd", "where"), [(0, "everywhere"), (1, "nearly everywhere")])
def test_a_constant_model_is_not_95_percent_robust_in_silence(odd, where):
    images = np.where(np.arange(N) < odd, 0.0, 0.5)[:, None, None, None] * np.ones((1, 4, 4, 1))
    labels = (np.arange(N) >= 57).astype(int)

    def constant(x):
        return jnp.stack([x.mean((1, 2, 3)), jnp.full(len(x), 0.25)], 1)

    with pytest.warns(UserWarning, match=f"one class predicted {where}: class 0"):
        found = evaluate(constant, images, labels, {"fgsm": FGSM(Linf(0.1))}, jax.random.key(0))
    assert found.robust["fgsm"] >= 0.9 and found.balanced["fgsm"] == pytest.approx(0.5, abs=0.02)
    labels = labels * (np.arange(N) < 0)
    found = evaluate(constant, images[1:], labels[1:], {}, jax.random.key(0))
    assert found.warnings == []  # there is only one class


def test_successes_that_survive_rounding(result):
    """A nearest image lies just beyond the boundary, where half a level undoes it."""
    near, far = FAB(Linf(np.inf), steps=30), BIM(Linf(0.3))
    found = report({"near": near, "far": far}, levels=255, diagnose=False)
    for name, images in found.adversarial.items():
        logits = np.round(255 * images).reshape(N, -1) / 255 @ W + B
        won = RIGHT & found.examples[name]["fooled"]
        survives = won & (logits.argmax(-1) != LABELS)
        np.testing.assert_array_equal(found.examples[name]["survives"], survives)
        share = {"levels": 255, "survive": pytest.approx(survives.sum() / won.sum())}
        assert found.rounded[name] == share
    assert found.rounded["near"]["survive"] < 0.9 < found.rounded["far"]["survive"]
    assert result.rounded == {}
    eight_bits = bpda(lambda x: jnp.round(255 * x) / 255)
    found = report({"near": near}, lambda x: apply(model().args[0], eight_bits(x)), levels=255)
    assert found.rounded["near"]["survive"] == 1 and found.robust["near"] < 0.5
    with pytest.raises(ValueError, match="levels must lie in"):
        report({}, levels=0)


def test_the_numbers_say_what_they_depend_on(result):
    about = result.to_json()["setting"]
    assert about["n"] == N and about["key"] == result.key
    assert about["versions"]["jax"] == jax.__version__
    assert about["devices"]["count"] == jax.device_count()
    same = report({}).setting
    assert same == about
    assert report({}, model(2.0)).setting["weights_sha256"] != about["weights_sha256"]
    closure = report({}, lambda x: x.reshape(len(x), -1) @ W, diagnose=False)
    assert closure.setting["weights_sha256"] == {"model": None}
    changed = evaluate(model(), IMAGES, np.roll(LABELS, 1), {}, jax.random.key(0), diagnose=False)
    assert changed.setting["data_sha256"] != about["data_sha256"]


def test_the_model_judges_what_attacks_find_on_a_surrogate():
    """Its bias is another one, its slope is not: FGSM makes the same images."""
    shift = np.float32([1.5 * EPS * np.abs(SLOPE).sum(), 0])
    other = jax.tree_util.Partial(apply, {"scale": jnp.float32(1), "w": W, "b": B + shift})
    attacks = {"fgsm": FGSM(Linf(EPS))}
    found = report(attacks, surrogate=other)
    assert found.robust["fgsm"] == pytest.approx(robust_linf(EPS))
    x = found.adversarial["fgsm"]
    wrong = [np.asarray(judge(x)).argmax(-1) != LABELS for judge in (model(), other)]
    differed = int((RIGHT & (wrong[0] != wrong[1])).sum())
    assert found.stages["fgsm"][0]["differed"] == differed > 5
    assert set(found.setting["weights_sha256"]) == {"model", "surrogate"}
    assert "differed" not in report(attacks).stages["fgsm"][0]
    eps = [EPS, 2 * EPS]
    key, subject = jax.random.key(0), (model(), IMAGES, LABELS, attacks["fgsm"], eps)
    assert curve(*subject, key, surrogate=other) == curve(*subject, key)


def test_a_surrogate_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match="the surrogate has 3 classes and the model 2"):
        report({}, surrogate=lambda x: x.reshape(len(x), -1)[:, :3])
    with pytest.raises(ValueError, match=r"surrogate: logits_fn must be a JAX function of a batch"):
        report({"fgsm": FGSM(Linf(EPS))}, surrogate=lambda x: x @ np.ones((3, 2)))
