"""Attacks by their command line names."""

import pytest

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
    Restarts,
    Square,
    names,
    parse,
)
from robustjax.attacks._registry import ROWS
from robustjax.losses import TemperedCrossEntropy, best_wrong, targeted_dlr
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
    ],
)
def test_names(text, attack):
    assert parse(text, THREAT) == attack


@pytest.mark.parametrize(
    "text", ["pdg", "", "pgd-", "pgd-x", "pgd40", "pgd-40-10", "ce-t", "auto-attack"]
)
def test_unknown_names_list_the_known(text):
    with pytest.raises(ValueError, match="known: fgsm, r-fgsm, bim, ilcm"):
        parse(text, THREAT)


def test_one_step_attacks_take_no_steps():
    with pytest.raises(ValueError, match="fgsm takes no number of steps"):
        parse("fgsm-10", THREAT)


@pytest.mark.parametrize("name", names())
def test_every_name_parses_for_its_threats_and_no_other(name):
    for kind in (Linf, L2, L1, L0):
        if kind in ROWS[name].threats:
            attack = parse(name, kind(2.0))
            assert getattr(attack, "threat", kind(2.0)) == kind(2.0)
        else:
            with pytest.raises(ValueError, match=f"{name} is defined for .*not for"):
                parse(name, kind(2.0))


def test_the_norm_chooses_the_carlini_wagner_attack():
    assert parse("cw", Linf(0.1)) == CarliniWagnerLinf(Linf(0.1))
