"""Recipes: what a training is besides its method, and those that several methods share."""

from __future__ import annotations

import dataclasses
from typing import Any

from robustjax.config import config, number, static
from robustjax.data import Augment
from robustjax.training.optimizers import Algorithm, Decay, Optimizer
from robustjax.training.schedules import Constant, CosineDecay, Interpolated, Piecewise, Schedule


@config
class Recipe:
    """Everything about a training that is not its method.

    Its defaults are the unified baseline of "Bag of Tricks for Adversarial Training" (Pang et al.
    2021). Fractions are of the whole training.

    Attributes:
      epochs: passes over the training set; with extra examples in the batches, as many draws.
      batch_size: over all devices.
      lr: learning rate where the schedule is 1.
      schedule: factor of the learning rate over time.
      lr_warmup: fraction of training over which the learning rate grows linearly from 0.
      eps_warmup: fraction of training over which the attack's eps grows linearly from 0.
      eps_schedule: factor of the attack's eps over time, and of its steps where they are relative
        to it, for a stronger attack late in training: linear with times 0, 10/11, 10/11, 1 and
        values 1, 1, 1.5, 1.5.
      optimizer: momentum, decay, clipping.
      label_smoothing: s; the true class has 1 - s, each other s / (K - 1), in the outer loss only.
      extra_fraction: of each batch, where there are extra examples.
      extra_smoothing: label smoothing of extra examples; None: as of the others.
      balance: draw each class equally often, with replacement; an epoch has as many examples as
        before. For methods without state per example.
      cutmix: paste a box of another image of the batch into each, and mix their targets.
      mixup: alpha of the mean of each image and another of the batch, weighted by Beta(alpha,
        alpha), and of their targets; None mixes none. An attack on the label goes against the one
        of the larger share.
      ema: decay of the moving average of the weights; 0 keeps none.
      accumulate: number of gradient-accumulation slices per device.
      early_stopping: a run's weights are those of the epoch that did best on validation; False: of
        the last one, as in most papers' own tables.
      sync_bn: BatchNorm sees the whole batch; False makes the device count a hyper-parameter.
      augment: what is done to a training image.

    >>> Recipe(epochs=30, lr=0.2, lr_warmup=0.1).optimizer.weight_decay
    0.0005
    """

    epochs: int = number(default=110, low=1)
    batch_size: int = number(default=128, low=1)
    lr: float = number(default=0.1)
    schedule: Schedule = Piecewise()
    lr_warmup: float = number(default=0.0, high=1)
    eps_warmup: float = number(default=0.0, high=1)
    eps_schedule: Schedule = Constant()
    optimizer: Optimizer = Optimizer()
    label_smoothing: float = number(default=0.0, high=1)
    extra_fraction: float = number(default=0.5, high=1)
    extra_smoothing: float | None = number(default=None, high=1)
    balance: bool = static(default=False)
    cutmix: bool = static(default=False)
    mixup: float | None = number(default=None, low=1e-6)
    ema: float = number(default=0.0, high=1)
    accumulate: int = number(default=1, low=1, static=True)
    early_stopping: bool = static(default=True)
    sync_bn: bool = static(default=True)
    augment: Augment = Augment()

    def __post_init__(self):
        if self.cutmix and self.mixup is not None:
            raise ValueError("cutmix and mixup both mix pairs of the batch; choose one of them")


BASELINE = Recipe()

ZERO = Augment(mode="zero")
"""Crops of the image padded by four rows of zeros, and flips: the custom of PyTorch code."""


def sgd(
    epochs: int,
    *drops: int,
    first: int = 0,
    weight_decay: float = 5e-4,
    decay: Decay = "all",
    name: Algorithm = "sgd",
    **others: Any,
) -> Recipe:
    """A recipe whose learning rate falls tenfold at the beginning of the epochs `drops`.

    Args:
      epochs: of training.
      drops: none where `others` has a schedule.
      first: the number of the first epoch: 1 where the authors count from there.
      weight_decay, decay, name: of the optimiser.
      others: fields of the recipe.

    >>> sgd(200, 100, 150).schedule.boundaries
    (0.5, 0.75)
    """
    optimizer = Optimizer(name, weight_decay=weight_decay, decay=decay)
    if drops:
        others["schedule"] = Piecewise(tuple((drop - first) / epochs for drop in drops))
    return Recipe(epochs=epochs, optimizer=optimizer, **others)


def staircase(first: float, *steps: tuple[float, float]) -> Interpolated:
    """`first`, then another factor after each of these fractions of training.

    >>> rates = staircase(1.0, (0.5, 0.1), (0.75, 0.01))
    >>> [round(float(rates(t)), 2) for t in (0.4, 0.6, 0.9)]
    [1.0, 0.1, 0.01]
    """
    values = [first, *(value for _, value in steps)]
    twice = tuple(value for value in values for _ in (0, 1))
    return Interpolated(tuple(time for time, _ in steps for _ in (0, 1)), twice[1:-1])


MMC = Recipe(
    epochs=200,
    batch_size=50,
    lr=0.01,
    schedule=Piecewise((101 / 200, 151 / 200)),
    optimizer=Optimizer(weight_decay=2e-4, decay="convolutions"),
    augment=Augment(pad=0, shift=0.1),
)
"""Pang et al. (2020), "Rethinking softmax cross-entropy loss" for CIFAR, as in their code.

Its learning rate falls after epochs 101 and 151, and Keras's l2(1e-4) on convolutions alone is
2e-4 w in the gradient. A Max-Mahalanobis center loss starts at 50: ten times the rate diverges.
"""

RCE = Recipe(
    epochs=231,
    schedule=Piecewise((40 / 90, 60 / 90, 80 / 90)),
    optimizer=Optimizer(weight_decay=2e-4, decay="kernels"),
    augment=Augment(pad=2, mode="zero"),
)
"""Pang et al. (2018), "Towards robust detection of adversarial examples", in their code.

For CIFAR, and for the cross-entropy beside RCE as well: 90,000 steps, the rate falling after
40,000, 60,000 and 80,000, and 2e-4 / 2 ||w||^2 of convolutions and the last layer. Their MNIST
takes 20,000 steps, 43 epochs, with drops at 1/2 and 3/4 of them and no augmentation.
"""

RST = Recipe(
    epochs=200,
    batch_size=256,
    schedule=CosineDecay(),
    optimizer=Optimizer(name="nesterov"),
    augment=ZERO,
)
"""Carmon et al. (2019), "Unlabeled data improves adversarial robustness", in their code.

For wrn-28-10: half of each batch is extra, an epoch is 50,000 draws, and eps is 0.031 in steps of
0.007. Their rate changes once an epoch.
"""

GOWAL = Recipe(
    epochs=400,
    batch_size=1024,
    lr=0.4,
    schedule=CosineDecay(),
    lr_warmup=10 / 400,
    optimizer=Optimizer(name="nesterov", decay="kernels"),
    extra_fraction=0.7,
    extra_smoothing=0.09,
    ema=0.995,
    augment=ZERO,
)
"""Gowal et al. (2020), for CIFAR-10, in their code; for wrn-28-10 with silu.

Their smoothing gives 0.1 / 10 to each of the ten classes, including the label: 0.09 taken from it.
Their cosine begins after the warm-up, their biases decay too, every labelled image is in a batch
with four crops (here with one), and the best weights are chosen by PGD-40 on a margin.
"""

REBUFFI = dataclasses.replace(GOWAL, cutmix=True)
"""Rebuffi et al. (2021), "Fixing data augmentation to improve adversarial robustness"."""

WANG = Recipe(
    epochs=400,
    batch_size=512,
    lr=0.2,
    schedule=CosineDecay(),
    lr_warmup=0.025,
    optimizer=Optimizer(name="nesterov", decay="kernels"),
    label_smoothing=0.09,
    extra_fraction=0.7,
    ema=0.995,
    augment=ZERO,
)
"""Wang et al. (2023), "Better diffusion models further improve adversarial training".

Their code's, for a million generated images. They smooth as Gowal et al.; their warm-up is part of
a one-cycle cosine that changes once an epoch, and their average begins after it.
"""

LEVEL_SETS = Recipe(
    epochs=200,
    lr=1e-4,
    schedule=Piecewise((100 / 200, 150 / 200), factor=0.5),
    optimizer=Optimizer("adam", weight_decay=1e-6),
    augment=ZERO,
)
"""Atzmon et al. (2019), "Controlling neural level sets", in their code: Adam, slowly."""

RICE = sgd(200, 100, 150)
"""Rice et al. (2020), "Overfitting in adversarially robust deep learning"."""

UAT = sgd(64, 38, 46, 51, lr=0.2)
"""Alayrac et al. (2019), as given in "Bag of Tricks" (Pang et al. 2021)."""
