"""What a user writes, as README does. The type checker reads it (`pyright`), and so does a test.

`assert_type` says what a user's editor has to show; at run time it does nothing. Only the functions
ask for images or a network, and nobody calls them.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, assert_type

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.tree_util import Partial

import robustjax as rj
from robustjax import attacks, data, detection, evaluation, losses, models, training
from robustjax.attacks import APGD, PGD, AutoAttack, targets
from robustjax.config import config, number, static
from robustjax.threats import L1, L2, Ball, Linf
from robustjax.training import Aux, Batch, Crafted, Net
from robustjax.typing import Attack, Cost, Eps, LogitsFn, Loss, Scalar, Threat

# Threats


@config
class Weighted:
    """A threat of one's own: |x_adv - x| <= eps * weight, in [0, 1]."""

    eps: float = number(default=0.1)
    weight: float = 2.0

    def project(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        radius = self.eps * self.weight
        return jnp.clip(x_adv, jnp.maximum(x - radius, 0), jnp.minimum(x + radius, 1))

    def sample(self, key: jax.Array, x: jax.Array) -> jax.Array:
        return self.project(jax.random.uniform(key, x.shape), x)

    def steepest(self, gradient: jax.Array) -> jax.Array:
        return jnp.sign(gradient)

    def step(self, x_adv: jax.Array, gradient: jax.Array, size: Scalar, x: jax.Array) -> jax.Array:
        return self.project(x_adv + size * self.steepest(gradient), x)

    def distance(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(x_adv - x)) / self.weight


@config
class Euclidean(Ball):
    """A norm of one's own: the base class has the bounds and the mask."""

    def norm(self, d: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.sum(d**2))

    def project(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        d = x_adv - x
        shrunk = x + d * jnp.minimum(1, self.eps / jnp.maximum(self.norm(d), 1e-12))
        return jnp.clip(shrunk, *self.box(x))

    def sample(self, key: jax.Array, x: jax.Array) -> jax.Array:
        return self.project(x + jax.random.normal(key, x.shape), x)

    def steepest(self, gradient: jax.Array) -> jax.Array:
        return gradient / jnp.maximum(self.norm(gradient), 1e-12)


threat = assert_type(Linf(8 / 255), Linf)
threats: list[Threat] = [
    threat,
    L2(0.5),
    L1(eps=12),
    Euclidean(0.5, mask=None),
    Weighted(0.1, weight=3.0),
]
assert_type(Weighted().eps, float)
assert_type(threat.eps, Eps)
masked = Linf(np.full((8, 8, 1), 8 / 255), mask=np.ones((8, 8, 1)))


# Losses


def confidence(output: Any, target: jax.Array) -> jax.Array:
    """A loss of one's own: minus the probability of the label."""
    return -jax.nn.softmax(output)[target]


functions: list[Loss] = [confidence, losses.margin, losses.cross_entropy]


@losses.compares_with("pair")
def ahead(output: Any, target: Any) -> jax.Array:
    """A paired loss of one's own: how far the class to go to is ahead of the label."""
    label, goal = target
    return output[goal] - output[label]


# Targets


@config
class NearestInFeatures(targets.Target):
    """A target selection of one's own, which looks at more than the logits."""

    temperature: float = number(default=1.0)

    def __call__(
        self, key: jax.Array, x: jax.Array, y: jax.Array, logits_fn: LogitsFn
    ) -> jax.Array:
        noisy = logits_fn(x) + self.temperature * jax.random.normal(key)
        return jnp.argmax(noisy.at[y].set(-jnp.inf))


# Attacks


@config
class Corner:
    """An attack of one's own, in one call."""

    threat: Threat = Linf()
    loss: Loss = static(default=confidence)
    draws: int = number(default=3, low=1)

    @property
    def cost(self) -> Cost:
        return Cost(1, 1)

    def __call__(
        self, logits_fn: LogitsFn, key: jax.Array, x: jax.Array, y: jax.Array, target=None
    ) -> jax.Array:
        gradient = jax.grad(lambda x: self.loss(logits_fn(x), y))(x)
        return self.threat.step(x, gradient, rj.threats.radius(self.threat), x)


assert_type(rj.attacks.PGD(threat), PGD)
assert_type(PGD(threat, steps=40).steps, int)
gradient: dict[str, Attack] = {
    "pgd": PGD(Weighted(), steps=20, loss=confidence, start=rj.attacks.starts.Uniform()),
    "momentum": PGD(threat, rule=attacks.steps.Momentum(), stop=attacks.stops.Misclassified()),
    "restarts": attacks.Restarts(PGD(threat), 5),
    "apgd": APGD(L2(0.5), steps=20),
    "autoattack": AutoAttack(threat),
    "worst": attacks.worst_of_losses(PGD(threat), [losses.margin, confidence]),
    "fgsm": attacks.FGSM(threat),
    "mine": Corner(Weighted(), draws=2),
    "nearest": PGD(threat, target=NearestInFeatures(0.1)),
    "paired": PGD(threat, loss=ahead, target=targets.Random()),
    "partial": PGD(threat, loss=functools.partial(losses.dlr, least=1e-6)),
    "parsed": attacks.parse("pgd-40x10", threat),
}
others: dict[str, Attack] = {
    "fab": attacks.FAB(L2(0.5)),
    "square": attacks.Square(threat),
    "cw": attacks.CarliniWagnerL2(steps=10),
    "jsma": attacks.JSMA(),
    "spatial": attacks.Spatial(),
    "ensemble": attacks.WorstOf((PGD(threat), attacks.Square(threat))),
    "aware": detection.AdaptivePGD(threat),
    "hidden": detection.CarliniWagnerWB(),
}


def logits_of_weights(weights: jax.Array, images: jax.Array) -> jax.Array:
    return images.reshape(len(images), -1) @ weights


def attack_a_model(images: np.ndarray, labels: np.ndarray) -> float:
    logits_fn, key = Partial(logits_of_weights, jnp.zeros((64, 10))), jax.random.key(0)
    x_adv = attacks.perturb(PGD(threat, steps=40), logits_fn, key, images, labels)
    assert_type(x_adv, np.ndarray)
    attacks.perturb(PGD(threat), logits_fn, key, images, labels, targets=(labels + 1) % 10)
    report = evaluation.evaluate(
        logits_fn, images, labels, gradient | others, key, journal=Path("runs/mine/evaluation")
    )
    evaluation.curve(logits_fn, images, labels, PGD(Weighted()), [0, 0.1], key)
    return report.robust["autoattack"] + report.clean + report.stderr["worst_case"]


def attack_one_image(images: jax.Array, labels: jax.Array, keys: jax.Array) -> jax.Array:
    attack = PGD(threat, loss=confidence)

    def logits_fn(x: jax.Array) -> jax.Array:
        return x.reshape(-1)[:10]

    return jax.jit(jax.vmap(lambda k, x, y: attack(logits_fn, k, x, y)))(keys, images, labels)


# Training


@config
class Halfway(training.Method):
    """A method of one's own: FGSM, and half of the loss on the clean images."""

    attack: PGD = attacks.FGSM()
    weight: float = number(default=0.5, high=1)

    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        return Crafted(
            *net.craft(self.attack, params, keys, batch.image, batch.label, batch.target)
        )

    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        clean, _ = net.forward(params, batch.image)
        attacked, stats = net.train(params, crafted.x_adv, crafted.stats)
        value = jnp.mean(self.weight * (clean - batch.target) ** 2 + (attacked - batch.target) ** 2)
        return value, Aux(stats, {"weight": jnp.asarray(self.weight)})


methods: list[training.Method] = [
    Halfway(weight=0.2),
    training.PGDAT(attack=PGD(Weighted())),
    training.TRADES(beta=6.0),
    training.AWP(training.TRADES(beta=6.0), gamma=5e-3),
    training.MART(),
]


def train_a_model(out: Path) -> np.ndarray:
    result = training.fit(
        training.AWP(training.TRADES(beta=6.0), gamma=5e-3),
        data.load("cifar10", "train"),
        data.load("cifar10", "validation"),
        model={"name": "wrn-34-10"},
        out=out,
        recipe=training.Recipe(epochs=110),
        validation_attack=PGD(threat),
    )
    assert_type(result, training.Result)
    logits_fn, features_fn, about = models.load(out)
    test = data.load(about["data"], "test")
    return np.asarray(logits_fn(test.images)) + np.asarray(features_fn(test.images))


class Small(nn.Module):
    """A network of one's own."""

    num_classes: int
    width: int = 8

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        h = nn.BatchNorm(use_running_average=not train)(nn.Conv(self.width, (3, 3))(x))
        return nn.Dense(self.num_classes)(nn.relu(h).mean((1, 2)))


def train_a_network_of_my_own(train: data.Dataset, validation: data.Dataset, out: Path) -> Partial:
    training.register("halfway", Halfway(), paper="this work")
    training.fit(training.METHODS["halfway"], train, validation, model=Small(10), out=out)
    return assert_type(models.load(out, module=Small(10))[0], Partial)


# Detection


def detect(model: Partial, images: np.ndarray, labels: np.ndarray) -> float:
    fitted = detection.KDensity().fit(model, images, labels)
    scores = assert_type(detection.scores(fitted, images), np.ndarray)
    threshold = detection.threshold_at(scores, 0.05)
    watched = detection.with_score(fitted, threshold)
    report = evaluation.evaluate(
        watched,
        images,
        labels,
        {"joint": detection.AdaptivePGD(threat), "mine": Corner()},
        jax.random.key(0),
        success=detection.accepted_and_wrong,
    )
    return report.worst_case
