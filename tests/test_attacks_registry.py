"""Attacks by their command line names."""

import pytest

from robustjax.attacks import BIM, FGSM, ILCM, MIFGSM, PGD, RFGSM, Restarts, names, parse
from robustjax.threats import L2

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
    ],
)
def test_names(text, attack):
    assert parse(text, THREAT) == attack


@pytest.mark.parametrize("text", ["pdg", "", "pgd-", "pgd-x", "pgd40", "pgd-40-10", "autoattack"])
def test_unknown_names_list_the_known(text):
    with pytest.raises(ValueError, match="known: bim, fgsm, ilcm, mi-fgsm, pgd, r-fgsm"):
        parse(text, THREAT)


def test_one_step_attacks_take_no_steps():
    with pytest.raises(ValueError, match="fgsm takes one step"):
        parse("fgsm-10", THREAT)


def test_every_name_parses():
    assert all(parse(name, THREAT).threat == THREAT for name in names())
