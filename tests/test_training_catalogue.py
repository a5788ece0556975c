"""The listing of the methods: where each is from, what it carries and what a step of it costs."""

import pytest

from robustjax import cli, config, training
from robustjax.training import AWP, CATALOGUE, METHODS, PGDAT, SAT, TRADES, Entry, Recipe, methods

COSTS = {
    "natural": "1 FB",
    "pgd-at": "11 FB",
    "trades": "12 FB + 1 F",
    "mart": "12 FB",
    "llr": "15 FB",
    "avmixup": "11 FB",
    "score": "12 FB + 1 F",
    "fast-at": "2 FB",
    "n-fgsm": "2 FB",
    "grad-align": "6 FB",
    "curriculum": "1 FB",
    "fat": "11 FB",
    "feature-scattering": "2 FB + 1 F",
    "pgd-at-he": "11 FB",
    "trades-he": "12 FB + 1 F",
    "sat": "12 FB + 1 F",
    "mma": "12 FB + 11 F",
    "free": "8 FB",
    "tla": "11 FB + 2 F",
    "level-sets": "22 FB + 22 F",
    "lbgat": "13 FB + 1 F",
    "hat": "13 FB + 2 F",
    "rr": "12 FB",
    "rr-trades": "13 FB + 1 F",
    "yopo": "5 FB",
    "rst": "12 FB + 1 F",
    "uat-ot": "12 FB",
    "uat-ft": "11 FB",
    "uat++": "12 FB",
    "gowal": "12 FB + 1 F",
    "rebuffi": "12 FB",
    "wang": "12 FB + 1 F",
}
"""As the papers' algorithms count."""


@pytest.mark.parametrize("name", COSTS)
def test_costs_are_the_algorithms(name):
    assert CATALOGUE[name].cost == COSTS[name]


@pytest.mark.parametrize(("inner", "cost"), [(PGDAT(), "12 FB"), (TRADES(), "14 FB + 1 F")])
def test_awp_differentiates_the_loss_once_more(inner, cost):
    assert Entry(AWP(inner), "", "update").cost == cost


def test_state_is_what_a_method_carries():
    carried = {name: entry.state for name, entry in CATALOGUE.items() if entry.state != "-"}
    assert carried == {
        "sat": "per example",
        "mma": "per example",
        "cat": "per example",
        "free": "per position",
    }
    assert Entry(AWP(SAT()), "", "update").state == "per example"


def test_the_command_lists_every_method(capsys):
    cli.main(["methods"])
    lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines[2:]] == list(METHODS)
    assert "Madry et al. 2018" in lines[3] and "11 FB" in lines[3]
    cli.main(["methods", "--markdown"])
    assert capsys.readouterr().out.startswith("| method ")


def test_a_registered_method_is_listed_and_has_the_baseline_s_card(capsys):
    training.register("mine", TRADES(2.0), paper="this work", recipe=Recipe(epochs=3))
    cli.main(["methods", "mine"])
    assert capsys.readouterr().out.splitlines()[2].split()[:3] == ["mine", "this", "work"]
    assert training.card("mine") == (TRADES(2.0), Recipe(epochs=3), {})
    assert training.card("mine", "bot") == (TRADES(2.0), Recipe(), {})
    with pytest.raises(TypeError, match="register takes a method"):
        training.register("mine", TRADES)
    with pytest.raises(ValueError, match="the method 'trades' is robustjax's own"):
        training.register("trades", TRADES())
    del CATALOGUE["mine"], METHODS["mine"]


def test_every_class_of_a_method_is_exported():
    ours = {c for c in config.declare.CLASSES.values() if c.__module__.startswith(methods.__name__)}
    assert ours == {getattr(training, n) for n in methods.__all__} & ours
    assert {type(method) for method in METHODS.values()} <= ours
