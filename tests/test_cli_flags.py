"""What flags mean."""

import dataclasses

import pytest

from robustjax.attacks.starts import Gaussian, Uniform, Zero
from robustjax.attacks.steps import Adam, Momentum, Steepest
from robustjax.cli import choose_threat
from robustjax.cli.flags import RULES, STARTS, STOPS, VARIANTS, read_variant, write_variant
from robustjax.data import Augment
from robustjax.detection import DETECTORS, Autoencoder, ReconstructionDivergence
from robustjax.threats import L2, Linf
from robustjax.training import SCHEDULES
from robustjax.training.schedules import MultipleDecay, OneCycle, Piecewise


@pytest.mark.parametrize(
    ("norm", "eps", "want"),
    [
        (None, None, Linf(0.1)),
        (None, 0.2, Linf(0.2)),
        ("linf", None, Linf(0.1)),
        ("linf", 0.2, Linf(0.2)),
        ("l2", None, L2()),
        ("l2", 2.0, L2(2.0)),
    ],
)
def test_threats_fall_back(norm, eps, want):
    assert choose_threat(norm, eps, Linf(0.1)) == want


def test_a_radius_in_grey_levels_is_refused():
    with pytest.raises(ValueError, match=r"is 8/255 meant\?"):
        choose_threat(None, 8.0, Linf(0.1))
    with pytest.raises(ValueError, match="eps must lie in"):
        choose_threat(None, -1.0, Linf(0.1))
    assert choose_threat("l2", 8.0, Linf(0.1)) == L2(8.0)
    assert choose_threat("linf", 1.0, L2()) == Linf(1.0)


@pytest.mark.parametrize(
    ("text", "table", "want"),
    [
        ("zero", STARTS, Zero()),
        ("uniform:scale=1/2", STARTS, Uniform(0.5)),
        ("gaussian:sigma=0.01", STARTS, Gaussian(0.01)),
        ("steepest", RULES, Steepest()),
        ("momentum", RULES, Momentum()),
        ("adam:b1=0.5:drop=1", RULES, Adam(b1=0.5, drop=1.0)),
        ("one-cycle:peak=0.4", SCHEDULES, OneCycle(0.4)),
        ("piecewise:boundaries=1/2,3/4:factor=0.2", SCHEDULES, Piecewise((0.5, 0.75), 0.2)),
        ("multiple-decay:drops=5", SCHEDULES, MultipleDecay(5)),
    ],
)
def test_variants_by_name_and_numbers(text, table, want):
    got = read_variant(text, table)
    assert got == want
    assert read_variant(write_variant(got, table), table) == want
    types = [[type(getattr(v, f.name)) for f in dataclasses.fields(v)] for v in (got, want)]
    assert types[0] == types[1]


def test_a_dot_leads_into_a_config():
    detector = read_variant(
        "divergence:temperature=40:autoencoder.epochs=20:autoencoder.noise=1/40", DETECTORS
    )
    assert detector == ReconstructionDivergence(Autoencoder(epochs=20, noise=1 / 40), 40.0)
    for wrong, known in (("autoencoder.epoch", "filters, pool"), ("temperature.x", "none")):
        with pytest.raises(ValueError, match=f"divergence.{wrong.split('.')[0]} has no .*{known}"):
            read_variant(f"divergence:{wrong}=3", DETECTORS)


def test_counts_and_switches_take_no_fractions():
    with pytest.raises(ValueError, match="tau must be a whole number"):
        read_variant("misclassified:tau=1.9", STOPS)
    with pytest.raises(ValueError, match="a switch is 0 or 1"):
        read_variant("crop:flip=1/2", {"crop": Augment()})
    assert read_variant("crop:flip=0", {"crop": Augment()}) == Augment(flip=False)


@pytest.mark.parametrize("table", VARIANTS.values())
def test_defaults_are_written_as_their_names(table):
    assert [write_variant(value, table) for value in table.values()] == list(table)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("corners", "unknown name 'corners'; choose one of zero, uniform"),
        ("zero:scale=1", "zero has no field 'scale'; fields: none"),
        ("uniform:scale", "'' is not a number"),
        ("uniform:scale=-1", "scale must lie in"),
    ],
)
def test_what_is_no_variant_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        read_variant(text, STARTS)
