"""The optimiser cards of papers that share one over several methods."""

from __future__ import annotations

from robustjax.data import Augment
from robustjax.training.optimizers import Optimizer
from robustjax.training.schedules import Piecewise
from robustjax.training.step import Recipe

MMC_RECIPE = Recipe(
    epochs=200,
    batch_size=50,
    lr=0.01,
    schedule=Piecewise((101 / 200, 151 / 200)),
    optimizer=Optimizer(weight_decay=2e-4, decay="convolutions"),
    augment=Augment(pad=0, shift=0.1),
)
"""That of "Rethinking softmax cross-entropy loss" (Pang et al. 2020) for CIFAR, as in their code.

Its learning rate falls after epochs 101 and 151, and Keras's l2(1e-4) on convolutions alone is
2e-4 w in the gradient. A Max-Mahalanobis center loss starts at 50: ten times the rate diverges.
"""

RCE_RECIPE = Recipe(
    epochs=231,
    schedule=Piecewise((40 / 90, 60 / 90, 80 / 90)),
    optimizer=Optimizer(weight_decay=2e-4, decay="kernels"),
    augment=Augment(pad=2, mode="zero"),
)
"""That of "Towards robust detection of adversarial examples" (Pang et al. 2018), in their code.

For CIFAR, and for the cross-entropy beside RCE as well: 90,000 steps, the rate falling after
40,000, 60,000 and 80,000, and 2e-4 / 2 ||w||^2 of convolutions and the last layer. Their MNIST
takes 20,000 steps, 43 epochs, with drops at 1/2 and 3/4 of them and no augmentation.
"""

RECIPES = dict.fromkeys(("sce", "mmlda", "mmc", "lgm", "center", "gsce"), MMC_RECIPE)
RECIPES |= {"rce": RCE_RECIPE}
"""The card that a method's flags start from, by its name; the others start from `Recipe()`."""
