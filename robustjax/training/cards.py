"""Cards: what a source says of a whole training, by method and by name.

bot     the unified baseline of "Bag of tricks for adversarial training" (Pang et al. 2021); every
        method has it, its schedule as fractions of the training.
table1  the method's row in that paper's Table 1, of what 21 papers say they did; where it says "No"
        to early stopping of training, the last weights count.
repo    what the authors' code does, as far as possible here; it often differs from their row.
awp     what the code of adversarial weight perturbation does with PGD-AT and TRADES.
mnist   what the authors' code does for MNIST, where that is another recipe.

What a source leaves open is as in bot. A card's numbers are defaults that any flag overrides;
where no card is named a method starts from its row of the catalogue.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from robustjax.attacks import PGD
from robustjax.attacks.starts import UnclippedUniform, Uniform, Zero
from robustjax.checks import checked
from robustjax.data import Augment
from robustjax.threats import Linf
from robustjax.training import recipes
from robustjax.training.catalogue import CATALOGUE, METHODS
from robustjax.training.methods import MMC, PGDAT, Method, TradesYOPO
from robustjax.training.optimizers import Optimizer
from robustjax.training.recipes import BASELINE, ZERO, Recipe, sgd, staircase
from robustjax.training.schedules import Constant, CosineDecay, OneCycle, Piecewise


class Card(NamedTuple):
    """The defaults of all flags of a training.

    Attributes:
      method: with its settings.
      recipe: all that is not the method; its augmentation is for colour images.
      options: other flags of `train` by their names: the network, where the source has one, whether
        its input is normalised, a wrapper.

    >>> card("mma", "repo").recipe.epochs
    128
    """

    method: Method
    recipe: Recipe = BASELINE
    options: Mapping[str, Any] = {}


def usual(method: str, **options: Any) -> Card:
    """A method by its row of the catalogue."""
    entry = CATALOGUE[method]
    return Card(entry.method, entry.recipe, options)


HALVES = Piecewise((1 / 2, 3 / 4))

TABLE1 = {
    "pgd-at": sgd(200, 100, 150, weight_decay=2e-4),
    "curriculum": sgd(300, 150, 250, batch_size=200),  # the curriculum is its warm-up of eps
    "trades": sgd(76, 75, weight_decay=2e-4),
    "dynamic-at": sgd(120, 60, 100, lr=0.01, weight_decay=1e-4),
    # Table 1 does not say how long a warm-up is; that paper's own takes 15 epochs.
    "llr": sgd(110, 100, 105, batch_size=256, weight_decay=2e-4, eps_warmup=15 / 110),
    "tla": sgd(80, 50, 60, batch_size=50, weight_decay=2e-4),
    "rst": sgd(100, batch_size=256, schedule=CosineDecay()),
    **{name: CATALOGUE[name].recipe for name in ("uat-ot", "uat-ft", "uat++")},
    # Their 200 epochs, with drops at 100 and 150, count each of the eight replays of a batch.
    "free": sgd(25, schedule=HALVES, weight_decay=2e-4),
    **dict.fromkeys(("yopo", "trades-yopo"), sgd(105, 79, 90, 100, lr=0.05, batch_size=256)),
    "feature-scattering": sgd(200, 60, 90, batch_size=60, weight_decay=2e-4),
    "level-sets": sgd(100, 50, lr=0.01, batch_size=32, weight_decay=1e-4),
    "fast-at": sgd(30, lr=0.2, schedule=OneCycle()),
    "early-stopping": CATALOGUE["early-stopping"].recipe,
    "mma": sgd(128, 51, 77, 102, lr=0.3, weight_decay=2e-4),
    "mmc": sgd(200, 100, 150, lr=0.01, batch_size=50, weight_decay=1e-4),
    **dict.fromkeys(("fat", "fat-trades", "fat-mart"), sgd(120, 60, 90, 110, weight_decay=2e-4)),
    "sat": sgd(200, batch_size=256, schedule=CosineDecay(), lr_warmup=15 / 200),
    "cat": sgd(200, 80, 140, 180),
    "avmixup": sgd(200, 100, 150, weight_decay=2e-4),
    **dict.fromkeys(
        ("pgd-at-adanet", "trades-adanet"), sgd(120, 60, 90, batch_size=256, weight_decay=1e-4)
    ),
}
"""Its rows: 21, of which four are of several methods."""

EARLY_STOPPED = ("trades", "early-stopping")
"""The rows of Table 1 that say "Yes" to early stopping of training."""


def attacked(name: str, eps: float, **settings: Any) -> Method:
    """The catalogue's method with another radius, and with other settings of its attack."""

    def is_attack(node):
        return isinstance(node, PGD)

    def visit(node):
        if not is_attack(node):
            return node
        return dataclasses.replace(node, threat=Linf(eps), **settings)

    return jax.tree.map(visit, METHODS[name], is_leaf=is_attack)


near = functools.partial(attacked, eps=0.031, step_size=0.007)
"""As in the code of TRADES and of what builds on it."""

pytorch = functools.partial(sgd, augment=ZERO)
madry = functools.partial(
    sgd, weight_decay=2e-4, decay="kernels", augment=Augment(pad=2, mode="zero")
)

WIDE = {"model": "wrn-34-10"}
MADRY = WIDE | {"activation": "leaky_relu"}
RAW = WIDE | {"normalize": False}
SILU = {"model": "wrn-28-10", "activation": "silu"}
PREACT = {"model": "preact-resnet-18"}

REPO = {
    # 80,000 steps. Their network, also that of AVmixup, TLA and Free, has shortcuts without weights
    # and standardises each image by itself.
    "pgd-at": Card(PGDAT(bn="commit"), madry(205, schedule=HALVES), MADRY),
    "trades": Card(near("trades"), pytorch(76, 75, first=1, weight_decay=2e-4), RAW),
    "mart": Card(near("mart"), pytorch(90, 75, weight_decay=7e-4), WIDE),
    "score": Card(
        dataclasses.replace(attacked("score", 8 / 255, start=Uniform()), bn="batch"),
        dataclasses.replace(recipes.WANG, label_smoothing=0.0),
        SILU,
    ),
    "avmixup": Card(METHODS["avmixup"], madry(205, schedule=HALVES), MADRY),
    "llr": Card(
        dataclasses.replace(METHODS["llr"], plane_moves=False),
        sgd(
            128,
            schedule=Piecewise((0.8, 0.88, 0.96)),
            batch_size=64,
            weight_decay=2e-4,
            decay="kernels",
            eps_warmup=500 / 100_000,
        ),
        {"model": "wrn-28-8", "activation": "softplus"},
    ),
    "tla": Card(METHODS["tla"], madry(80, 50, 60, batch_size=50), MADRY),
    "level-sets": usual("level-sets", model="resnet-18")._replace(
        method=attacked("level-sets", 0.031)
    ),
    "fast-at": Card(METHODS["fast-at"], pytorch(15, lr=0.2, schedule=OneCycle()), PREACT),
    "n-fgsm": Card(METHODS["n-fgsm"], pytorch(30, lr=0.2, schedule=OneCycle()), PREACT),
    "grad-align": Card(
        METHODS["grad-align"],
        pytorch(30, lr=0.3, schedule=OneCycle(2 / 5)),
        PREACT | {"normalize": False},
    ),
    "early-stopping": usual("early-stopping", **PREACT),
    # As many epochs as their row has; the rate of Adam does not change.
    "curriculum": Card(
        attacked("curriculum", 0.032),
        pytorch(300, name="adam", lr=1e-4, schedule=Constant(), batch_size=200, weight_decay=0.0),
    ),
    # Their decay is Keras's l2(2e-3). Their images are also turned by up to ten degrees.
    "dynamic-at": Card(
        attacked("dynamic-at", 0.031),
        sgd(
            120,
            60,
            100,
            lr=0.01,
            weight_decay=4e-3,
            decay="kernels",
            augment=Augment(pad=0, shift=0.2),
        ),
    ),
    "fat": Card(
        near("fat"),
        pytorch(
            120,
            schedule=staircase(1.0, (59 / 120, 0.1), (89 / 120, 0.01), (109 / 120, 0.005)),
            weight_decay=2e-4,
        ),
        WIDE,
    ),
    "fat-trades": Card(near("fat-trades"), pytorch(85, 75, first=1, weight_decay=2e-4), WIDE),
    "fat-mart": Card(near("fat-mart"), pytorch(90, 60, first=1, weight_decay=2e-4), WIDE),
    "feature-scattering": Card(
        METHODS["feature-scattering"],
        pytorch(200, 60, 90, batch_size=60, weight_decay=2e-4),
        {"model": "wrn-28-10"},
    ),
    "pgd-at-he": Card(near("pgd-at-he"), pytorch(77, 75, first=1)),
    "trades-he": Card(near("trades-he"), pytorch(77, 75, first=1, weight_decay=2e-4)),
    "alp-he": Card(near("alp-he"), pytorch(77, 75, first=1, weight_decay=2e-4)),
    "lbgat": Card(
        near("lbgat"),
        pytorch(
            100,
            schedule=staircase(0.2, (1 / 100, 1.0), (75 / 100, 0.1), (90 / 100, 0.01)),
            weight_decay=2e-4,
        ),
        WIDE,
    ),
    "sat": Card(
        dataclasses.replace(near("sat"), start=(70 - 1) / 100),
        pytorch(100, 75, 90, first=1, weight_decay=2e-4),
        WIDE,
    ),
    "mma": Card(
        dataclasses.replace(METHODS["mma"], judge="batch"),
        pytorch(
            128,
            lr=0.3,
            schedule=staircase(1.0, (2 / 5, 0.3), (3 / 5, 0.1), (4 / 5, 0.03)),
            weight_decay=2e-4,
        ),
        {"model": "wrn-28-4"},
    ),
    # Version 2, whose optimiser restarts with every rate.
    "cat": Card(
        dataclasses.replace(
            attacked("cat", 0.035, step_size=0.007, start=Zero()), variant="repo-v2", eta=0.0025
        ),
        pytorch(80, 20, 40, 60),
    ),
    # 80,000 steps that are 10,000 batches, replayed eight times.
    "free": Card(METHODS["free"], madry(26, schedule=HALVES), MADRY),
    "yopo": Card(METHODS["yopo"], pytorch(36, 30, 34, lr=0.08, batch_size=256), WIDE),
    "trades-yopo": Card(
        TradesYOPO(threat=Linf(0.031), rel_step=0.007 / 0.031), pytorch(105, 70, 90, 100, lr=0.2)
    ),
    "rst": usual("rst", model="wrn-28-10")._replace(method=near("rst")),
    "gowal": usual("gowal", **SILU),
    "rebuffi": usual("rebuffi", **SILU),
    "wang": usual("wang", **SILU),
    **{
        name: usual(name, model="resnet-32")
        for name in ("sce", "mmlda", "mmc", "lgm", "center", "gsce")
    },
    "rce": usual("rce", model="resnet-tf-32"),
}
"""`first=1` where the authors count epochs from 1; steps become epochs of 50,000 images."""

AWP = {
    "pgd-at": Card(PGDAT(bn="commit"), pytorch(200, 100, 150), WIDE | {"awp": 1e-2}),
    "trades": Card(
        METHODS["trades"],
        pytorch(200, 100, 150, first=1),
        RAW | {"awp": 5e-3, "awp_start": (10 - 1) / 200},
    ),
}

MNIST = {
    # Their network has 16 and 32 channels and 100 hidden units; ours of width 16 has 256, and can
    # collapse at their rate: see experiments/mnist.py, which takes 0.002.
    "fast-at": Card(
        PGDAT(PGD(Linf(0.3), steps=1, rel_step=1.25, start=UnclippedUniform()), "commit"),
        Recipe(
            epochs=10,
            batch_size=100,
            lr=5e-3,
            schedule=OneCycle(2 / 5),
            optimizer=Optimizer("adam", weight_decay=0.0),
            augment=Augment(pad=0, flip=False),
        ),
        {"width": 16, "normalize": False},
    ),
}

BOT = {"trades": Card(METHODS["trades"], options={"normalize": False})}  # their PGD-AT's input is

VARIANTS = {
    "trades": BOT["trades"],
    "mmc": Card(MMC("untargeted")),
    "fast-at": Card(dataclasses.replace(METHODS["fast-at"], guard=1.0)),  # a guard stops early
}
"""What a row of Table 1 says of more than the recipe."""


def row(name: str) -> Card:
    """The method's row of Table 1."""
    recipe = dataclasses.replace(TABLE1[name], early_stopping=name in EARLY_STOPPED)
    return VARIANTS.get(name, Card(METHODS[name]))._replace(recipe=recipe)


SOURCES = {
    "table1": {name: row(name) for name in TABLE1},
    "repo": REPO,
    "awp": AWP,
    "mnist": MNIST,
}


@checked
def cards_of(method: str) -> dict[str, Card]:
    """The method's cards by their names, bot first.

    Raises:
      ValueError: there is no such method.

    >>> list(cards_of("trades"))
    ['bot', 'table1', 'repo', 'awp']
    """
    known = CATALOGUE.find(method).method
    found = {name: table[method] for name, table in SOURCES.items() if method in table}
    return {"bot": BOT.get(method) or Card(known), **found}


@checked
def card(method: str, name: str | None = None) -> Card:
    """The method's card of this name; None: its row of the catalogue.

    Raises:
      ValueError: there is no such method or card; the error names those that exist.

    >>> card("trades", "repo").options["model"]
    'wrn-34-10'
    """
    known = cards_of(method)
    if name is None:
        return usual(method)
    if name not in known:
        raise ValueError(f"{method} has no card {name!r}; its cards: {', '.join(known)}")
    return known[name]
