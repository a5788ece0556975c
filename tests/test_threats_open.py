"""A user's own threat, in a module of theirs, through everything that knows threats."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import attacks, cli, config, data, evaluation, files, losses
from robustjax.attacks import APGD, FMN, PGD, Restarts
from robustjax.cli.flags import choose_threat
from robustjax.config import number
from robustjax.threats import Ball, Linf
from robustjax.threats._trees import map_threats
from robustjax.training import PGDAT, Recipe, fit, threat_of, with_threat
from robustjax.training.step import scale_eps


@config.config
class Half:
    """|z - x| <= share * eps in the upper half of an image, and nothing below; no base class."""

    eps: float = number(default=0.1)
    share: float = 1.0

    def box(self, x):
        upper = (jnp.arange(x.shape[0]) < x.shape[0] // 2)[:, None, None]
        return jnp.where(upper, 0, x), jnp.where(upper, 1, x)

    def project(self, x_adv, x):
        low, high = self.box(x)
        room = self.share * self.eps
        return jnp.clip(x_adv, jnp.maximum(x - room, low), jnp.minimum(x + room, high))

    def sample(self, key, x):
        return self.project(x + jax.random.uniform(key, x.shape, x.dtype, -1, 1), x)

    def steepest(self, gradient):
        return self.share * jnp.sign(gradient)

    def step(self, x_adv, gradient, size, x):
        return self.project(x_adv + size * self.steepest(gradient), x)

    def distance(self, x_adv, x):
        return jnp.max(jnp.abs(x_adv - x)) / self.share


N, SHAPE, CLASSES = 8, (4, 4, 1), 4
RNG = np.random.default_rng(0)
X = RNG.uniform(size=(N, *SHAPE)).astype(np.float32)
W = RNG.normal(size=(16, CLASSES)).astype(np.float32)
KEY = jax.random.key(0)
RADII = [0.0, 0.05, 0.1, 0.3, 1.0]


def logits(x):
    return x.reshape(len(x), -1) @ W


Y = np.asarray(logits(X)).argmax(-1)


def exact(eps, share):
    """The accuracy of the linear model: the upper half moves by share * eps, as far as it fits."""
    robust = []
    for x, y in zip(X, Y, strict=True):
        gaps = []
        for k in set(range(CLASSES)) - {y}:
            slope = (W[:, k] - W[:, y]).reshape(SHAPE)
            room = np.minimum(share * eps, np.where(slope > 0, 1 - x, x))
            gaps.append((x * slope).sum() + (np.abs(slope) * room)[:2].sum())
        robust.append(max(gaps) < 0)
    return np.mean(robust)


ATTACKS = {
    "pgd": lambda threat: attacks.MultiTargetedPGD(threat, steps=20),
    "fmn": lambda threat: attacks.MultiTargeted(FMN(threat, steps=100), 3),
}


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("name", ATTACKS)
def test_its_curve_is_the_exact_one(name, share):
    found = evaluation.curve(logits, X, Y, ATTACKS[name](Half(0.1, share)), RADII, KEY)
    assert found["accuracy"] == [exact(eps, share) for eps in RADII]
    assert found["accuracy"][0] == 1 > found["accuracy"][-1]


def test_what_changes_a_radius_keeps_the_other_fields():
    tree = {"a": PGD(Half(0.2, 0.5)), "b": [Restarts(PGD(Half(0.4, 3.0)), 2)]}
    assert scale_eps(tree, 0.5)["a"].threat == Half(0.1, 0.5)
    changed = attacks.with_eps(tree["b"][0], 0.3)
    assert changed.attack.threat == Half(0.3, 3.0)
    method = with_threat(PGDAT(), Half(0.2, 0.5))
    assert threat_of(method) == Half(0.2, 0.5)
    assert choose_threat(None, 0.3, Half(0.2, 0.5)) == Half(0.3, 0.5)
    start = attacks.starts.Uniform(0.1)(KEY, X[0], Half(1.0, 0.5))
    assert 0 < np.abs(start - X[0]).max() <= 0.05 + 1e-6


def test_perturb_and_evaluate_hold_it_to_its_own_box_and_distance():
    threat = Half(0.1, 0.5)
    z = attacks.perturb(APGD(threat, 10), logits, KEY, X, Y)
    np.testing.assert_array_equal(z[:, 2:], X[:, 2:])
    np.testing.assert_allclose(np.abs(z - X)[:, :2].max(), 0.05, atol=1e-6)
    report = evaluation.evaluate(logits, X, Y, {"pgd": PGD(threat, 40)}, KEY)
    assert report.examples["pgd"]["distance"].max() == pytest.approx(0.1, abs=1e-5)
    assert report.attacks["pgd"]["fields"]["threat"] == {
        "type": f"{__name__}.Half",
        "fields": {"eps": 0.1, "share": 0.5},
    }


NAMES = ["FAB", "Square", "AutoAttack", "DeepFool", "HopSkipJump", "DDN", "EAD", "JSMA"]


@config.config
class Rounded(Ball):
    """A norm of one's own on the base class of ours."""

    def norm(self, d):
        return jnp.sum(d**4) ** 0.25

    def project(self, x_adv, x):
        return x + (x_adv - x) * jnp.minimum(1, self.eps / self.norm(x_adv - x))

    def sample(self, key, x):
        return x

    def steepest(self, gradient):
        return jnp.sign(gradient) / gradient.size**0.25


@pytest.mark.parametrize("threat", [Half(), Rounded()])
@pytest.mark.parametrize("name", [*NAMES, "CarliniWagnerL2", "CarliniWagnerLinf"])
def test_attacks_for_certain_norms_refuse_it(name, threat):
    own = type(threat).__name__
    with pytest.raises(ValueError, match=rf"{name} supports .*, not {own}; PGD and FMN support"):
        getattr(attacks, name)(threat)


@config.config
class Upright:
    """A search of one's own: no turn, and one shift."""

    @property
    def count(self):
        return 1

    def __call__(self, key, k):
        return jnp.array([0.0, 1.0, 0.0])


def test_the_motions_of_a_spatial_attack_may_be_ones_own():
    z = attacks.perturb(attacks.Spatial(0.0, 1.0, search=Upright()), logits, KEY, X, Y)
    shifted = np.pad(X, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
    own = [np.array_equal(a, b) or np.allclose(a, c) for a, b, c in zip(z, X, shifted, strict=True)]
    assert all(own) and not np.array_equal(z, X)


def test_what_is_no_threat_is_told_what_it_lacks():
    class NoDistance:
        eps = 0.1

        def project(self, x_adv, x):
            return x

    with pytest.raises(
        ValueError,
        match=r"must be a Threat, got .*NoDistance.*, which lacks distance, sample, steep",
    ):
        PGD(NoDistance())
    with pytest.raises(TypeError, match=r"declare its class with @robustjax.config.config"):
        attacks.perturb(PGD(Unregistered()), logits, KEY, X, Y)
    with pytest.raises(TypeError, match="an object such as"):
        map_threats(lambda t: t, (Linf,))


class Unregistered:
    """All members, and no dataclass."""

    eps = 0.1
    project = sample = steepest = step = distance = staticmethod(lambda *_: None)


def test_its_radius_may_be_one_per_example():
    eps = np.linspace(0, 0.4, N).astype(np.float32)
    z = attacks.perturb(PGD(Half(eps, 0.5), 20), logits, KEY, X, Y)
    np.testing.assert_allclose(np.abs(z - X).max((1, 2, 3)) <= 0.5 * eps + 1e-6, True)
    one = attacks.perturb(PGD(Half(float(eps[3]), 0.5), 20), logits, KEY, X, Y)
    np.testing.assert_array_equal(z[3], one[3])


METHOD = PGDAT(attack=PGD(Half(0.2, 0.5), steps=2))
MODEL = {"name": "cnn", "width": 2, "dtype": "float32"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two epochs on digits with a warm-up of eps, stopped after one and resumed."""
    out = tmp_path_factory.mktemp("open") / "run"
    train, few = data.load("digits", "train").head(64), data.load("digits", "test").head(32)
    recipe = Recipe(epochs=2, batch_size=32, lr=0.05, eps_warmup=0.5)
    options = {"model": MODEL, "recipe": recipe, "progress": False, "checkpoint_every": 1}
    options["validation_attack"] = PGD(Half(0.2, 0.5), 2)
    fit(METHOD, train, few, out=out, **options)
    for last in (out / "checkpoints" / "last").glob("4*"):
        shutil.rmtree(last)  # as if it had been killed after step 3
    return out, fit(METHOD, train, few, out=out, resume=True, **options)


def test_training_names_it_and_resumes(run):
    out, again = run
    assert again.start in (2, 3)  # a checkpoint that would wait for the disk may be left out
    written = files.read_json(out / "config.json")
    threat = config.decode(written["threat"], {})
    assert threat == Half(0.2, 0.5)
    functions = {"cross_entropy": losses.cross_entropy}
    assert config.decode(written["validation_attack"], functions).threat == threat


def test_the_command_line_evaluates_against_it(run, capsys):
    out, _ = run
    cli.main(["evaluate", str(out), "--attacks", "pgd-3", "fmn-5", "--n", "16", "--eps", "0.1"])
    report = files.read_json(out / "report.json")
    assert report["threat"] == {"type": f"{__name__}.Half", "fields": {"eps": 0.1, "share": 0.5}}
    cli.main(["report", str(out)])
    assert "Half" in capsys.readouterr().out
