"""AutoAttack: the published stages, the closed form in every norm, equal bits in any order."""

import jax
import numpy as np
import pytest
from test_attacks_apgd import IMAGES, THREATS, W, gap, linear, optimum

from robustjax.attacks import (
    APGD,
    AutoAttack,
    FastAutoAttack,
    MultiTargeted,
    Restarts,
    Square,
    perturb,
)
from robustjax.attacks._core.ensemble import Ensemble
from robustjax.attacks._minimum_norm.fab import FAB
from robustjax.attacks.targets import Ranked
from robustjax.losses import cross_entropy, dlr, targeted_dlr
from robustjax.threats import L0, L1, L2, Linf


def flat(attack, num_classes):
    """The attacks in turn, restarts and targets written out."""
    if not isinstance(attack, Ensemble):
        return [attack]
    return [a for stage in attack.stages(num_classes) for a in flat(stage, num_classes)]


def ranked(attack, n):
    return [type(attack)(**{**vars(attack), "target": Ranked(r + 1)}) for r in range(n)]


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)])
def test_standard_is_what_the_field_reports(threat):
    expected = [APGD(threat)]
    expected += ranked(APGD(threat, loss=targeted_dlr), 9) + ranked(FAB(threat), 9)
    assert flat(AutoAttack(threat), 10) == [*expected, Square(threat)]
    assert expected[0].loss is cross_entropy and expected[0].steps == 100
    assert Square(threat).queries == 5000


def test_standard_in_l1_has_restarts_and_larger_radii():
    threat = L1(12.0)
    expected = [APGD(threat, larger_radii=True)] * 5
    expected += ranked(APGD(threat, loss=targeted_dlr, larger_radii=True), 5)
    assert flat(AutoAttack(threat), 10) == [*expected, *ranked(FAB(threat), 9), Square(threat)]


@pytest.mark.parametrize("threat", [Linf(0.1), L1(12.0)])
def test_plus_and_rand(threat):
    random = [FAB(threat), *[FAB(threat, random_start=True)] * 4]
    expected = [APGD(threat)] * 5 + [APGD(threat, loss=dlr)] * 5 + random + [Square(threat)]
    expected += ranked(APGD(threat, loss=targeted_dlr), 9) + ranked(FAB(threat), 9)
    assert flat(AutoAttack(threat, "plus"), 10) == expected
    expected = [APGD(threat, eot=20), APGD(threat, loss=dlr, eot=20)]
    assert flat(AutoAttack(threat, "rand"), 10) == expected


def test_few_classes_have_few_targets_and_settings_reach_every_stage():
    def won(output, y):
        return output[0] > 0

    stages = AutoAttack(Linf(0.1), steps=7, queries=11, success=won).stages(3)
    assert [type(s) for s in stages] == [APGD, MultiTargeted, MultiTargeted, Square]
    assert all(s.success is won for s in stages)
    leaves = [a for stage in stages for a in flat(stage, 3)]
    assert len(leaves) == 1 + 2 + 2 + 1 and all(a.success is won for a in leaves)
    assert all(a.steps == 7 for a in leaves[:-1]) and leaves[-1].queries == 11
    plus = AutoAttack(Linf(0.1), "plus", success=won).stages(3)
    assert all(s.success is won for s in plus if isinstance(s, Restarts))


def test_fast_stages_come_before_those_of_the_version():
    for version in ("standard", "plus"):
        attack = AutoAttack(L2(0.5), version, success=cheated, first="fast")
        fast, *rest = attack.stages(10)
        assert fast == FastAutoAttack(L2(0.5), success=cheated)
        assert tuple(rest) == AutoAttack(L2(0.5), version, success=cheated).stages(10)


def cheated(output, y):
    return output[0] > 0


@pytest.mark.parametrize("norm", THREATS)
def test_robust_exactly_where_the_closed_form_says(norm):
    """Four classes; up to points within 0.1 % of the boundary. The same bits in another order."""
    w, threat = W[4], THREATS[norm]
    y = linear(w, IMAGES).argmax(-1)
    best, clean = optimum(threat, w, IMAGES, y), gap(w, IMAGES, y)
    attack, model = AutoAttack(threat, queries=50), jax.tree_util.Partial(linear, w)
    z = perturb(attack, model, jax.random.key(1), IMAGES, y, batch_size=16)
    decided = np.abs(best) > 1e-3 * (best - clean)
    assert decided.sum() >= len(y) - 2 and 3 < (best > 0).sum() < len(y) - 3
    np.testing.assert_array_equal((gap(w, z, y) > 0)[decided], (best > 0)[decided])
    order = np.random.default_rng(0).permutation(len(y))
    shuffled = perturb(
        attack, model, jax.random.key(1), IMAGES[order], y[order], indices=order, batch_size=16
    )
    np.testing.assert_array_equal(shuffled, z[order])


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="version must be one of"):
        AutoAttack(version="custom")
    with pytest.raises(ValueError, match="leave first at None"):
        AutoAttack(L1(3.0), first="fast")
    with pytest.raises(ValueError, match="leave first at None"):
        AutoAttack(version="rand", first="fast")
    with pytest.raises(ValueError, match="not L0"):
        AutoAttack(L0(3))
