"""How long an evaluation takes in all."""

import jax
import numpy as np
import pytest

from robustjax import attacks, progress
from robustjax.cli import estimate, evaluate
from robustjax.threats import Linf

SHAPE = (2, 2, 1)


def test_every_bar_of_an_evaluation_has_its_cost():
    pgd = attacks.PGD(Linf(0.1), steps=3)
    work = {"a": pgd, "b": attacks.Restarts(pgd, 2)} | evaluate.curve_attacks(pgd, [0.0, 0.1])
    assert estimate.costs(work, SHAPE, 4) == {
        title: 9.0 for title in ("a", "b 1/2", "b 2/2", "eps 0", "eps 0.1")
    }
    assert list(evaluate.curve_attacks(attacks.FMN(), [0.1])) == ["FMN"]
    assert evaluate.curve_attacks(None, [0.1]) == {}


@pytest.mark.parametrize("seconds", [20.0, 60.0])
def test_the_first_attack_that_takes_long_tells_the_rest_once(capsys, seconds):
    """100 images took 10 passes each, with many broken early; what is left takes 120 at most."""
    follower = estimate.Estimate(lambda: {"a": 30.0, "b": 90.0, "eps 0.1": 30.0})
    with follower.heard():
        follower._hear(estimate.COMPILED, 5.0)
        for title in ("a", "b"):
            progress.announce(progress.Work(title, 100, passes=1000.0, seconds=seconds + 5.0))
    said = "the attacks that are left take at most about 12 min\n" if seconds == 60 else ""
    assert capsys.readouterr().err == said


def test_quiet_says_nothing_and_estimates_nothing(capsys):
    asked = []
    follower = estimate.Estimate(lambda: asked.append("costs") or {})
    with progress.hidden(lines=True), follower.heard():
        progress.tell("at most")
        progress.announce(progress.Work("a", 100, passes=1000.0, seconds=60.0))
    assert not capsys.readouterr().err and not asked


def test_the_engine_announces_what_it_has_crafted():
    images, found = np.float32([[[[0.75, 0.25]]]]), []
    with progress.heard(found.append):
        attacks.perturb(
            attacks.PGD(Linf(0.1), steps=3),
            lambda x: x[:, 0, 0],
            jax.random.key(0),
            images,
            [0],
            progress=True,
        )
    (work,) = found
    assert (work.images, work.passes) == (1, 9.0) and work.seconds > 0
