"""Configs as text: reading and writing are inverses, and errors name the word."""

import dataclasses
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustjax import attacks, data, detection, spec
from robustjax.attacks.starts import Gaussian, Start, Uniform, Zero
from robustjax.attacks.steps import Adam, Rule
from robustjax.attacks.stops import Misclassified, Stop
from robustjax.attacks.transforms import DiverseInput, ScaleInvariant
from robustjax.config import config, number, static
from robustjax.detection import DETECTORS, Autoencoder, KDensity, ReconstructionDivergence
from robustjax.losses import TemperedCrossEntropy, dlr
from robustjax.threats import L2, Linf
from robustjax.training import SCHEDULES
from robustjax.training.schedules import MultipleDecay, OneCycle, Piecewise, Schedule
from robustjax.typing import Loss

STARTS, RULES, STOPS = (spec.KINDS[kind] for kind in (Start, Rule, Stop))
TABLES = [*spec.KINDS.values(), DETECTORS, data.AUGMENTATIONS]


@pytest.mark.parametrize(
    ("text", "names", "want"),
    [
        ("zero", STARTS, Zero()),
        ("uniform:scale=1/2", STARTS, Uniform(0.5)),
        ("adam:b1=0.5:drop=1", RULES, Adam(b1=0.5, drop=1.0)),
        ("misclassified:later=", STOPS, Misclassified(later=())),
        ("misclassified:later=1/2", STOPS, Misclassified(later=(0.5,))),
        ("one-cycle:peak=0.4", SCHEDULES, OneCycle(0.4)),
        ("piecewise:boundaries=1/2,3/4:factor=0.2", SCHEDULES, Piecewise((0.5, 0.75), 0.2)),
        ("multiple-decay:drops=5", SCHEDULES, MultipleDecay(5)),
        ("k-density:sigma2=1/2:count=none", DETECTORS, KDensity(0.5, None)),
        ("k-density:count=20", DETECTORS, KDensity(count=20)),
        ("dlr", spec.KINDS[Loss], dlr),
        ("tempered_cross_entropy:temperature=9", spec.KINDS[Loss], TemperedCrossEntropy(9.0)),
        (
            "divergence:temperature=40:autoencoder.epochs=20:autoencoder.noise=1/40",
            DETECTORS,
            ReconstructionDivergence(Autoencoder(epochs=20, noise=1 / 40), 40.0),
        ),
        ("crop:mode=zero:flip=true", data.AUGMENTATIONS, data.Augment(mode="zero")),
        ("crop-flip:flip=0", data.AUGMENTATIONS, data.Augment(flip=False)),
    ],
)
def test_what_a_text_means(text, names, want):
    got = spec.parse(text, names)
    assert got == want
    assert spec.parse(spec.write(got, names), names) == want
    if dataclasses.is_dataclass(want):
        fields = [[type(getattr(v, f.name)) for f in dataclasses.fields(v)] for v in (got, want)]
        assert fields[0] == fields[1]


@pytest.mark.parametrize("names", TABLES, ids=lambda names: names.kind)
def test_what_has_a_name_is_written_by_it(names):
    assert [spec.write(value, names) for value in names.values()] == list(names)


@config
class Composed:
    """A user's config with a field of every sort."""

    start: Start = Uniform()
    stop: Stop | None = None
    loss: Loss = static(default=dlr)
    steps: int = number(default=10)
    count: int | None = number(default=None, low=1, static=True)
    size: float | None = number(default=None)
    factors: tuple[float, ...] = (1.0, 0.1)
    inner: Autoencoder = Autoencoder()
    schedule: Schedule = Piecewise()
    redraw: bool = static(default=False)


NAMES = spec.Names("composed config", {"composed": Composed(), "bare": Composed(start=Zero())})
NUMBERS = st.floats(0, 1e6) | st.fractions(0, 1, max_denominator=1000).map(float)
STOPPED = st.builds(Misclassified, st.integers(0, 9), st.lists(st.floats(0, 1)).map(tuple))
STARTED = st.just(Zero()) | st.builds(Uniform, NUMBERS) | st.builds(Gaussian, NUMBERS)


@given(
    st.builds(
        Composed,
        start=STARTED,
        stop=st.none() | STOPPED,
        loss=st.sampled_from([dlr, TemperedCrossEntropy(3.0)]),
        steps=st.integers(0, 2**31 - 1),
        count=st.none() | st.integers(1, 100),
        size=st.none() | NUMBERS,
        factors=st.lists(NUMBERS).map(tuple),
        inner=st.builds(Autoencoder, noise=NUMBERS, epochs=st.integers(1, 9), pool=st.booleans()),
        schedule=st.builds(OneCycle, st.floats(0, 1)) | st.just(Piecewise()),
        redraw=st.booleans(),
    )
)
def test_reading_and_writing_are_inverses(value):
    assert spec.parse(spec.write(value, NAMES), NAMES) == value


@pytest.mark.parametrize("name", attacks.names())
def test_the_settings_of_an_attack_make_it(name):
    for threat in (Linf(0.1), L2(0.5)):
        try:
            attack = attacks.parse(name, threat)
        except ValueError:  # not defined for it
            continue
        settings = spec.settings_of(attack)
        assert spec.change(attack, settings, name) == attack
        assert attacks.parse(":".join([name, *map("=".join, settings)]), threat) == attack


def test_lists_of_names():
    attack = attacks.parse("pgd:transforms=diverse-input,scale-invariant", Linf())
    assert attack.transforms == (DiverseInput(), ScaleInvariant())
    names = spec.Names("attack", {"pgd": attacks.PGD()})
    assert spec.parse(spec.write(attack, names), names) == attack
    other = dataclasses.replace(attack, transforms=(DiverseInput(p=0.1),))
    with pytest.raises(ValueError, match="a list can only hold names"):
        spec.write(other, names)


def test_a_function_without_a_name_cannot_be_written():
    names = spec.Names("attack", {"pgd": attacks.PGD()})
    with pytest.raises(ValueError, match="has no name"):
        spec.write(attacks.PGD(loss=max), names)
    assert "loss" not in dict(spec.settings_of(attacks.PGD(loss=max)))


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("corners", STARTS, "unknown start 'corners'; did you mean corner?"),
        ("zero:scale=1", STARTS, "unknown field of zero: 'scale'; known: none"),
        ("uniform:scale", STARTS, "'scale' in 'uniform:scale' is not a setting"),
        ("uniform:scale=", STARTS, "scale of uniform: '' is not a number"),
        ("uniform:scale=-1", STARTS, "scale must lie in"),
        ("uniform:scale=2:scale=2", STARTS, "uniform: scale is given twice"),
        ("misclassified:tau=1.9", STOPS, "tau must be a whole number"),
        ("piecewise:factor=-1", SCHEDULES, "factor must lie in"),
        ("piecewise:boundaries=1/2,x", SCHEDULES, "'x' is not a number"),
        ("k-density:count=1.5", DETECTORS, "count must be a whole number"),
        ("k-density:sigma2=1e400", DETECTORS, "too large or too small"),
        ("k-density:sigma2=1e-999999999", DETECTORS, "too large or too small"),
        ("k-densty", DETECTORS, "did you mean k-density?"),
        ("divergence:autoencoder=3", DETECTORS, "autoencoder of divergence is a config"),
        ("divergence:epochs=3", DETECTORS, "did you mean autoencoder.epochs?"),
        ("divergence:autoencoder.epoch=3", DETECTORS, "divergence.autoencoder: 'epoch'; did you"),
        ("divergence:temperature.x=3", DETECTORS, "divergence.temperature: 'x'; known: none"),
        (
            "crop:mode=reflection",
            data.AUGMENTATIONS,
            "unknown mode of crop: 'reflection'; did",
        ),
        ("crop:flip=1/2", data.AUGMENTATIONS, "flip of crop is true or false, not '1/2'"),
    ],
)
def test_errors_name_the_word(text, names, message):
    start = time.process_time()
    with pytest.raises(ValueError) as raised:
        spec.parse(text, names)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert time.process_time() - start < 1  # no number is computed digit by digit


@config
class Patch(Start):
    """A user's start."""

    side: int = number(default=3, low=1)

    def __call__(self, key, x, threat, logits_fn=None):
        return x.at[: self.side, : self.side].set(1)


def test_a_users_own_is_known_by_name():
    known = spec.Names("start", STARTS)
    with pytest.raises(ValueError, match="the start 'zero' is robustjax's own"):
        known.register("zero", Patch())
    with pytest.raises(ValueError, match="lower-case letters"):
        known.register("my:patch", Patch())
    known.register("patch", Patch())
    known.register("patch", Patch(5))  # a notebook's cell runs twice
    assert spec.parse("patch:side=4", known) == Patch(4) and spec.parse("patch", known) == Patch(5)


def test_a_users_attack_and_detector(monkeypatch):
    monkeypatch.setitem(spec.KINDS, Start, spec.Names("start", STARTS | {"patch": Patch()}))
    attack = attacks.parse("pgd-5x2:start=patch:start.side=2", Linf())
    assert attack == attacks.Restarts(attacks.PGD(steps=5, start=Patch(2)), 2)
    assert detection.parse("energy:temperature=2") == detection.Energy(2.0)
