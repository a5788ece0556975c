"""The cards: Table 1 row by row, the authors' code in samples, all of them legal and as listed."""

import dataclasses
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import cli, config, losses, models, spec, training
from robustjax.attacks import PGD
from robustjax.attacks.starts import Gaussian, UnclippedUniform, Zero
from robustjax.attacks.steps import Adam
from robustjax.attacks.stops import Misclassified
from robustjax.cli.methods import MethodsOptions, changes, methods
from robustjax.cli.train import TrainOptions
from robustjax.data import AUGMENTATIONS, Augment
from robustjax.threats import Linf
from robustjax.training import METHODS, Recipe, card, cards_of, threat_of
from robustjax.training.schedules import Piecewise

ALL = [(method, name) for method in METHODS for name in cards_of(method)]
every = pytest.mark.parametrize(("method", "name"), ALL)

# Of Pang et al. 2021: rate, epochs, drops, batch, decay, warm-up (rate, eps). Two rows stop early:
# TRADES and that of Rice et al. The epochs of Free count replays.
TABLE1 = """
pgd-at             0.1  200 100,150    128 2e-4 no  no
curriculum         0.1  300 150,250    200 5e-4 no  yes
trades             0.1   76 75         128 2e-4 no  no
dynamic-at         0.01 120 60,100     128 1e-4 no  no
llr                0.1  110 100,105    256 2e-4 no  yes
tla                0.1   80 50,60       50 2e-4 no  no
rst                0.1  100 cosine     256 5e-4 no  no
uat++              0.2   64 38,46,51   128 5e-4 no  no
free               0.1  200 100,150    128 2e-4 no  no
yopo               0.05 105 79,90,100  256 5e-4 no  no
feature-scattering 0.1  200 60,90       60 2e-4 no  no
level-sets         0.01 100 50          32 1e-4 no  no
fast-at            0.2   30 cycle      128 5e-4 yes no
early-stopping     0.1  200 100,150    128 5e-4 no  no
mma                0.3  128 51,77,102  128 2e-4 no  no
mmc                0.01 200 100,150     50 1e-4 no  no
fat                0.1  120 60,90,110  128 2e-4 no  no
sat                0.1  200 cosine     256 5e-4 yes no
cat                0.1  200 80,140,180 128 5e-4 no  no
avmixup            0.1  200 100,150    128 2e-4 no  no
pgd-at-adanet      0.1  120 60,90      256 1e-4 no  no
""".strip().splitlines()


@pytest.mark.parametrize("row", TABLE1, ids=[row.split()[0] for row in TABLE1])
def test_table_1(row):
    method, lr, epochs, drops, batch, decay, warm_rate, warm_eps = row.split()
    trained, recipe, _ = card(method, "table1")
    epochs = int(epochs)
    assert (recipe.lr, recipe.batch_size) == (float(lr), int(batch))
    assert recipe.epochs * (trained.replays if method == "free" else 1) == epochs
    assert recipe.optimizer == training.Optimizer(weight_decay=float(decay))
    assert recipe.early_stopping == (method in ("trades", "early-stopping"))

    def rate(epoch):
        return float(recipe.schedule((epoch + 0.5) / epochs))

    if drops == "cosine":
        assert rate(epochs / 2 - 0.5) == pytest.approx(0.5)
    elif drops == "cycle":
        assert rate(14.5) == pytest.approx(1) and rate(0) < 0.05 and rate(29) < 0.05
    else:
        for i, drop in enumerate(map(int, drops.split(","))):
            assert rate(drop - 1) == pytest.approx(0.1**i)
            assert rate(drop) == pytest.approx(0.1 ** (i + 1))
    # One cycle is a warm-up of the rate, a curriculum one of the attack.
    assert (recipe.lr_warmup > 0 or drops == "cycle") == (warm_rate == "yes")
    assert (recipe.eps_warmup > 0 or method == "curriculum") == (warm_eps == "yes")


def test_table_1_has_21_rows():
    rows = {name: card(name, "table1").recipe for name in METHODS if "table1" in cards_of(name)}
    same = {"uat-ot": "uat++", "uat-ft": "uat++", "trades-adanet": "pgd-at-adanet"}
    same |= {"trades-yopo": "yopo", "fat-trades": "fat", "fat-mart": "fat"}
    assert len(TABLE1) == 21 == len(rows) - len(same)
    assert {row.split()[0] for row in TABLE1} == rows.keys() - same.keys()
    assert all(rows[name] == rows[other] for name, other in same.items())


def test_free_s_row_of_table_1_is_78_000_updates():
    """200 epochs of 390 batches of 128, counted as the authors count: each replay."""
    method, recipe, _ = card("free", "table1")
    assert recipe.epochs * (50_000 // recipe.batch_size) * method.replays == 78_000


def test_a_card_without_early_stopping_has_no_guard_against_a_collapse():
    assert card("fast-at", "table1").method.guard == 1.0 and METHODS["fast-at"].guard == 0.2
    assert "--no-early-stopping" in changes("fast-at", "table1")
    assert "--guard" in changes("fast-at", "table1")


def test_adanet_is_marked_as_our_reading(capsys):
    cli.main(["methods", "pgd-at-adanet", "trades-adanet"])
    assert capsys.readouterr().out.count("Xu et al. 2020 (our reading)") == 2


def test_the_baseline_is_every_method_s():
    for name in METHODS:
        assert next(iter(cards_of(name))) == "bot" and card(name, "bot").method == METHODS[name]
        assert card(name, "bot").recipe == Recipe()
    recipe, attack = Recipe(), card("pgd-at", "bot").method.attack
    assert (recipe.epochs, recipe.batch_size, recipe.lr) == (110, 128, 0.1)
    assert recipe.optimizer == training.Optimizer("sgd", 0.9, 5e-4, "all")
    assert recipe.schedule == Piecewise((100 / 110, 105 / 110))
    assert attack.threat == Linf(8 / 255) and attack.steps == 10
    assert float(attack.size) == pytest.approx(2 / 255) and METHODS["pgd-at"].bn == "running"
    assert card("trades", "bot").options == {"normalize": False}


NEAR = PGD(Linf(0.031), step_size=0.007, start=Gaussian(1e-3))


def rates(recipe, *epochs):
    """The rate in the middle of these epochs, counted from 1."""
    return [recipe.lr * float(recipe.schedule((e - 0.5) / recipe.epochs)) for e in epochs]


def test_what_the_code_of_trades_does():
    method, recipe, options = card("trades", "repo")
    assert method == training.TRADES(6.0, NEAR) and recipe.augment == Augment(mode="zero")
    assert recipe.epochs == 76 and recipe.optimizer.weight_decay == 2e-4
    np.testing.assert_allclose(rates(recipe, 1, 74, 75, 76), [0.1, 0.1, 0.01, 0.01], rtol=1e-5)
    assert options == {"model": "wrn-34-10", "normalize": False}


def test_what_the_code_of_friendly_training_does():
    method, recipe, _ = card("fat", "repo")
    assert method.attack.stop == Misclassified(0, (50 / 120, 90 / 120))
    assert method.attack.threat == Linf(0.031) and method.attack.step_size == 0.007
    found = rates(recipe, 1, 59, 60, 89, 90, 109, 110, 120)
    np.testing.assert_allclose(found, [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 5e-4, 5e-4], rtol=1e-5)


def test_what_the_code_of_a_guided_boundary_does():
    method, recipe, _ = card("lbgat", "repo")
    assert method == training.LBGAT("resnet-18", 0.0, NEAR)
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer.weight_decay) == (100, 128, 2e-4)
    found = rates(recipe, 1, 2, 75, 76, 90, 91, 100)
    np.testing.assert_allclose(found, [0.02, 0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3], rtol=1e-5)


def test_what_the_code_of_mma_does():
    _, recipe, options = card("mma", "repo")
    found = [float(recipe.lr * recipe.schedule(jnp.float32(s / 50))) for s in (19, 21, 31, 41)]
    np.testing.assert_allclose(found, [0.3, 0.09, 0.03, 0.009], rtol=1e-5)
    assert options == {"model": "wrn-28-4"}


def test_what_the_code_of_fast_training_does_on_mnist():
    """A step of 0.375 from an unclipped start, and a rate that peaks at 2/5 of ten epochs."""
    method, recipe, _ = card("fast-at", "mnist")
    assert method.attack.start == UnclippedUniform() and method.attack.threat == Linf(0.3)
    assert float(method.attack.size) == pytest.approx(0.375) and method.attack.steps == 1
    found = [recipe.lr * float(recipe.schedule(t)) for t in (0.2, 0.4, 0.7)]
    np.testing.assert_allclose(found, [0.0025, 0.005, 0.0025], rtol=1e-5)
    assert (recipe.epochs, recipe.batch_size) == (10, 100)
    assert recipe.optimizer == training.Optimizer("adam", weight_decay=0.0)


def test_samples_of_what_other_code_does():
    madry = card("pgd-at", "repo")
    assert madry.method.bn == "commit" and madry.recipe.optimizer.decay == "kernels"
    assert madry.recipe.augment == Augment(pad=2, mode="zero")
    assert madry.recipe.epochs * 50_000 / 128 == pytest.approx(80_000, rel=2e-3)
    assert card("free", "repo").recipe.epochs * 50_000 / 128 * 8 == pytest.approx(80_000, rel=0.02)
    mart = card("mart", "repo")
    assert mart.method == training.MART(NEAR, beta=6.0) and mart.recipe.epochs == 90
    assert mart.recipe.optimizer.weight_decay == 7e-4
    cat = card("cat", "repo").method
    assert (cat.variant, cat.eta, cat.attack.threat.eps) == ("repo-v2", 0.0025, 0.035)
    assert cat.attack.start == Zero()
    assert card("dynamic-at", "repo").recipe.optimizer.weight_decay == 2 * 2e-3
    assert card("pgd-at-he", "repo").method == training.HE(training.PGDAT(NEAR), 10.0)
    assert card("sat", "repo").recipe.schedule.boundaries == (0.74, 0.89)
    yopo = card("yopo", "repo").recipe
    assert (yopo.epochs, yopo.batch_size, yopo.lr) == (36, 256, 0.1 * 4 / 5)
    adam = card("curriculum", "repo").recipe
    assert (adam.optimizer.name, adam.lr, float(adam.schedule(0.9))) == ("adam", 1e-4, 1.0)
    gowal = training.TRADES(
        attack=PGD(step_size=0.1, rule=Adam()), bn="batch", commits="adversarial"
    )
    assert card("gowal", "repo").method == gowal
    assert card("rebuffi", "repo").method == dataclasses.replace(gowal, away_from="target")
    assert card("wang", "repo").method == training.TRADES(5.0, PGD(), bn="batch")
    assert card("rebuffi", "repo").recipe.cutmix and not card("gowal", "repo").recipe.cutmix
    assert card("mmc", "table1").method.adversarial == "untargeted"
    assert card("sat", "repo").method.start == 0.69  # after 69 epochs: they count from 1
    assert card("pgd-at", "awp").options["awp"] == 1e-2
    awp = card("trades", "awp")
    assert (awp.options["awp"], awp.options["awp_start"]) == (5e-3, 9 / 200)
    assert awp.recipe.schedule.boundaries == (99 / 200, 149 / 200)


@every
def test_every_card_is_legal(method, name):
    found = card(method, name)
    assert type(found.method) is type(METHODS[method])
    functions = losses.NAMED
    for made in (found.method, found.recipe):
        assert config.decode(config.encode(made), functions) == made
    eps = threat_of(found.method).eps
    assert eps == 0.3 if name == "mnist" else 0.02 < eps < 0.04
    factors = np.asarray(found.recipe.schedule(jnp.arange(1, 401) / 400))
    assert factors.min() >= 0 and 0.9 < factors.max() <= 1
    found.recipe.optimizer.transform().init({"kernel": jnp.ones((2, 2))})
    options = TrainOptions("out", **found.options)
    network = {"name": options.model, "activation": options.activation}
    if "adaptive_norm" not in found.method.model:  # a cnn, of the cards without a network, has none
        models.create(**network, **found.method.model, num_classes=10)


@every
def test_the_flags_that_are_listed_make_the_card(method, name, monkeypatch):
    """From the command line, and by its name too: exactly, whatever the fractions."""
    asked = []
    module = sys.modules["robustjax.cli.train"]
    monkeypatch.setattr(module, "train", lambda *call: asked.append(call))
    listed = ["--card", "bot", *changes(method, name)]
    for words in (listed, ["--card", name]) if method in ("trades", "llr") else (listed,):
        cli.main(["train", method, "--out", "out", "--extra", "arrays:pool", *words])
        made, recipe, options = asked.pop()
        if options.eps is not None:
            made = training.with_threat(made, Linf(options.eps))
        if options.augment != "auto":
            augment = spec.parse(options.augment, AUGMENTATIONS)
            recipe = dataclasses.replace(recipe, augment=augment)
        want = card(method, name)
        assert (made, recipe) == (want.method, want.recipe)
        usual = TrainOptions(options.out, words[1], **want.options)
        assert dataclasses.replace(options, eps=None, augment="auto", extra=None) == usual


def test_flags_override_the_card_whatever_their_order(monkeypatch):
    asked = []
    module = sys.modules["robustjax.cli.train"]
    monkeypatch.setattr(module, "train", lambda *call: asked.append(call))
    words = ["--epochs", "9", "--model", "cnn", "--eps", "1/10", "--normalize"]
    for line in (["--card", "repo", *words], [*words, "--card=repo"]):
        cli.main(["train", "trades", "--out", "out", *line])
        method, recipe, options = asked.pop()
        assert recipe == dataclasses.replace(card("trades", "repo").recipe, epochs=9)
        assert method == card("trades", "repo").method  # --eps is put in by `train`
        assert (options.model, options.eps, options.normalize) == ("cnn", 0.1, True)
    cli.main(["train", "trades", "--out", "out"])
    assert asked.pop()[:2] == (METHODS["trades"], Recipe())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["mart", "--card", "table1"], "mart has no card 'table1'; its cards: bot, repo"),
        (["trades", "--card="], "trades has no card ''; its cards: bot, table1, repo, awp"),
    ],
)
def test_an_unknown_card_is_one_line(line, message):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", *line, "--out", "natural"])
    assert str(stopped.value) == f"robustjax: {message}"


def test_the_help_of_a_usualhows_its_numbers(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "sat", "--card", "repo", "--help-all"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: repo)" in text and "(default: wrn-34-10)" in text
    assert "(default: piecewise:boundaries=0.74,0.89)" in text


def test_an_unknown_card_names_those_that_there_are():
    with pytest.raises(ValueError, match=r"unknown method 'trade'; did you mean trades\?"):
        training.card("trade", "repo")
    with pytest.raises(ValueError, match="mart has no card 'table1'; its cards: bot, repo"):
        card("mart", "table1")


def test_the_list_says_what_a_card_changes(capsys):
    assert changes("trades", "bot") == []
    assert " ".join(changes("trades", "repo")) == (
        "--eps 0.031 --attack.step-size 0.007 --epochs 76 --schedule piecewise:boundaries=37/38 "
        "--optimizer.weight-decay 0.0002 --augment zero-crop-flip --model wrn-34-10"
    )
    cli.main(["methods", "sat", "trades"])
    first, second = capsys.readouterr().out.split("\n\n")
    assert [line.split()[0] for line in first.splitlines()[2:]] == ["sat", "trades"]
    listed = [line.split()[:2] for line in second.splitlines()[2:]]
    assert listed == [[m, c] for m in ("sat", "trades") for c in cards_of(m) if c != "bot"]
    with pytest.raises(ValueError, match="unknown method 'tradse'"):
        methods(MethodsOptions(("tradse",)))
