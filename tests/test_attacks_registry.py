"""Attacks by their command line names."""

import jax
import jax.numpy as jnp
import pytest

import robustjax.attacks._registry as registry
from robustjax.attacks import (
    APGD,
    BIM,
    FAB,
    FGSM,
    ILCM,
    MIFGSM,
    PGD,
    RFGSM,
    Adaptive,
    AutoAttack,
    CarliniWagnerL2,
    CarliniWagnerLinf,
    GaussianNoise,
    MultiTargeted,
    MultiTargetedPGD,
    Restarts,
    Square,
    names,
    parse,
    register,
)
from robustjax.attacks.starts import Zero
from robustjax.attacks.stops import Misclassified
from robustjax.evaluation import evaluate
from robustjax.losses import TemperedCrossEntropy, best_wrong, dlr, targeted_dlr
from robustjax.names import Names
from robustjax.threats import L0, L1, L2, Linf

THREAT = L2(0.3)


@pytest.mark.parametrize(
    ("text", "attack"),
    [
        ("fgsm", FGSM(THREAT)),
        ("r-fgsm", RFGSM(THREAT)),
        ("bim", BIM(THREAT)),
        ("ilcm-5", ILCM(THREAT, 5)),
        ("MI-FGSM", MIFGSM(THREAT)),
        ("mi-fgsm-20", MIFGSM(THREAT, 20)),
        ("pgd", PGD(THREAT)),
        ("pgd-40", PGD(THREAT, steps=40)),
        ("pgd-40x10", Restarts(PGD(THREAT, steps=40), 10)),
        ("pgd-x3", Restarts(PGD(THREAT), 3)),
        (" r-fgsm-x5 ", Restarts(RFGSM(THREAT), 5)),
        ("own-un1-40x2", Restarts(PGD(THREAT, steps=40, loss=best_wrong), 2)),
        ("ce-t10-40", PGD(THREAT, steps=40, loss=TemperedCrossEntropy(10.0))),
        ("ce-t100", PGD(THREAT, loss=TemperedCrossEntropy(100.0))),
        ("adaptive-20", Adaptive(THREAT, steps=20)),
        ("adaptive-20x2", Adaptive(THREAT, steps=20, restarts=2)),
        ("apgd-t-50", MultiTargeted(APGD(THREAT, steps=50, loss=targeted_dlr))),
        ("fab-t", MultiTargeted(FAB(THREAT))),
        ("square-200", Square(THREAT, queries=200)),
        ("autoattack", AutoAttack(THREAT)),
        ("autoattack-plus-10", AutoAttack(THREAT, version="plus", steps=10)),
        ("cw-30", CarliniWagnerL2(THREAT, steps=30)),
        ("cw-hc", CarliniWagnerL2(THREAT, confidence=10.0)),
        ("gaussian-noise-4", GaussianNoise(draws=4)),
        ("apgd-ce:loss=dlr:steps=20", APGD(THREAT, steps=20, loss=dlr)),
        ("pgd-40x10:start=zero", Restarts(PGD(THREAT, steps=40, start=Zero()), 10)),
        ("pgd:stop=misclassified:stop.tau=2", PGD(THREAT, stop=Misclassified(2))),
        ("pgd-5:threat.eps=1/2", PGD(L2(0.5), steps=5)),
        ("pgd-mt:n=3:attack.steps=7", MultiTargetedPGD(THREAT, 7, 3)),
    ],
)
def test_names(text, attack):
    assert parse(text, THREAT) == attack


@pytest.mark.parametrize(
    "text", ["pdg", "", "pgd-", "pgd-x", "pgd40", "pgd-40-10", "ce-t", "auto-attack", "k:steps=1"]
)
def test_unknown_names_list_the_known(text):
    with pytest.raises(ValueError, match="known: fgsm, r-fgsm, bim, ilcm"):
        parse(text, THREAT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pdg", "unknown attack 'pdg'; did you mean pgd?"),
        ("fgsm-10", "fgsm takes no number of steps"),
        ("square-0", "the number of queries in 'square-0' must be at least 1"),
        ("pgd-99999999999999999999", "steps must lie in"),
        ("pgd-4x99999999999999999999", "n must lie in"),
        ("pgd-4:steps=3", "'pgd-4:steps=3' gives steps twice"),
        ("apgd-t:steps=3", "did you mean attack.steps?"),
        ("pgd:threat=l2", "threat of pgd is a config"),
    ],
)
def test_what_no_attack_is_called(text, message):
    with pytest.raises(ValueError) as raised:
        parse(text, THREAT)
    assert message in str(raised.value)


def mine(threat, tries=3):
    return Restarts(FGSM(threat), tries)


def test_a_users_attack_is_known_by_name(monkeypatch):
    monkeypatch.setattr(registry, "ATTACKS", Names("attack", registry.ATTACKS))
    register("my-attack2", mine, budget="tries", threats=(L2,), paper="Me 2026")
    assert parse("my-attack2-4", THREAT) == Restarts(FGSM(THREAT), 4)
    assert parse("my-attack2-x2:attack.steps=2", THREAT).n == 2
    with pytest.raises(ValueError, match="defined for L2, not for Linf"):
        parse("my-attack2", Linf(0.1))
    with pytest.raises(ValueError, match="a number after a dash would be its steps"):
        register("my-2", mine)
    with pytest.raises(ValueError, match="the attack 'pgd' is robustjax's own"):
        register("pgd", mine)


@pytest.mark.parametrize("name", names())
def test_every_name_parses_for_its_threats_and_no_other(name):
    for kind in (Linf, L2, L1, L0):
        if isinstance(kind(), registry.ATTACKS[name].threats):
            attack = parse(name, kind(2.0))
            assert getattr(attack, "threat", kind(2.0)) == kind(2.0)
        else:
            with pytest.raises(ValueError, match=f"{name} is defined for .*not for"):
                parse(name, kind(2.0))


def test_the_norm_chooses_the_carlini_wagner_attack():
    assert parse("cw", Linf(0.1)) == CarliniWagnerLinf(Linf(0.1))


def spent(name, steps):
    """(forwards, backwards) of one image that resists, on a model of eleven classes."""
    row = registry.ATTACKS[name]
    threats = (Linf(0.05), L2(0.3), L1(0.5), L0(1.0))
    threat = next(threat for threat in threats if isinstance(threat, row.threats))
    attack = parse(f"{name}-{steps}" if row.budget else name, threat)
    weights = 1e-4 * jax.random.normal(jax.random.key(0), (12, 10))

    def firm(images):
        logits = images.reshape(len(images), -1) @ weights
        return jnp.concatenate([logits, 50 + logits[:, :1]], -1)

    image, label = jnp.full((1, 2, 2, 3), 0.5), jnp.full(1, 10)
    found = evaluate(firm, image, label, {name: attack}, jax.random.key(0)).to_json()
    stages = found["stages"][name]
    return tuple(sum(stage[kind] for stage in stages) for kind in ("forwards", "backwards"))


COUNTED = (
    "fgsm",
    "bim",
    "pgd-odi",
    "pgd",
    "apgd-ce",
    "ddn",
    "fmn",
    "si-ni-fgsm",
    "pgd-mt",
    "apgd-t",
)
COUNTED += ("fab", "fab-t", "deepfool", "square", "spsa", "nes", "spatial", "gaussian-noise")
COUNTED += ("autoattack",)
"""Those that take their whole budget on this model, one of each cost."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", COUNTED)
def test_the_cost_that_is_listed_is_what_a_unit_of_the_budget_adds(name):
    row = registry.ATTACKS[name]
    least, most = spent(name, 2), spent(name, 4)
    added = most if row.budget is None else [(b - a) / 2 for a, b in zip(least, most, strict=True)]
    parts = dict(reversed(part.split()) for part in row.cost.split(" + "))
    want = [int(parts.get(kind, parts.get("FB", 0))) for kind in ("F", "B")]
    assert list(added) == want
