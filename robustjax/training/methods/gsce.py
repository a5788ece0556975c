"""The generalised softmax cross-entropy family: one head and one loss a member (Pang et al. 2020).

A member is a head, which makes logits of the features z, and a loss of these logits. It trains on
clean images, or on the examples that its own loss crafts.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from typing import Any, ClassVar, Literal

import jax
from typing_extensions import override

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.attacks.targets import Prediction, Random
from robustjax.config import config, number, static
from robustjax.models.heads import log_volume
from robustjax.threats import Linf
from robustjax.training.methods.base import Aux, Batch, Crafted, Method, accuracy
from robustjax.training.methods.pgd_at import BNMode
from robustjax.training.net import Net
from robustjax.typing import Cost, Loss

ATTACK = PGD(Linf(8 / 256))
"""Ten sign steps of 2/256 from a uniform start."""

Adversarial = Literal["none", "untargeted", "targeted"]
FixedCenters = Literal["max-mahalanobis", "random", "packing"]
Precisions = Literal["diagonal", "isotropic", "full"]
Covariance = Literal["identity", "isotropic", "diagonal", "full"]


@dataclasses.dataclass(frozen=True)
class HeadMethod(Method):
    """min E l(h(z), t) on clean images or on those that the attack makes of them with l itself.

    Attributes:
      adversarial: 'none' trains on clean images. 'untargeted' ascends l away from the class that
        the model itself predicts, 'targeted' descends it towards a class drawn from all of
        them, including the true one, as in the authors' code.
      attack: its threat, steps, start and rule; it maximises l, whatever loss and label it names.
      bn: BatchNorm's mode while crafting: 'running', 'batch' (the authors'), or 'commit'.
      feature_dim: D of the linear layer without activation that makes z; None for no such layer.
    """

    head: ClassVar[str]
    adversarial: Adversarial = static(default="none")
    attack: PGD = ATTACK
    bn: BNMode = static(default="batch")
    feature_dim: int | None = number(default=64, low=1, static=True)

    @abc.abstractmethod
    def criterion(self, output: Any, target: jax.Array) -> jax.Array:
        """The loss l of one example; its target is a class () or a distribution (K,)."""

    def criterion_at(self, params: Any) -> Loss:
        """The loss l at these weights."""
        return self.criterion

    @property
    @override
    def model(self) -> dict[str, Any]:
        return {"head": self.head, "feature_dim": self.feature_dim}

    @property
    @override
    def on_clean(self) -> bool:
        return self.adversarial == "none"

    @property
    @override
    def craft_cost(self) -> Cost:
        # The attack's, if there is one.
        return Cost(0, 0) if self.on_clean else self.attack.cost

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        if self.on_clean:
            return Crafted(batch.image, net.stats)
        target = Random(with_label=True) if self.adversarial == "targeted" else Prediction()
        attack = dataclasses.replace(self.attack, loss=self.criterion_at(params), target=target)
        return Crafted(*net.craft(attack, params, keys, batch.image, batch.label, mode=self.bn))

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        logits, stats = net.train(params, crafted.x_adv)
        loss = jax.vmap(self.criterion_at(params))(logits, batch.target).mean()
        return loss, Aux(stats, self.metrics(logits, batch))

    def metrics(self, logits: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """The accuracy on what was trained on."""
        name = "accuracy" if self.on_clean else "robust_accuracy"
        return {name: accuracy(logits, batch.label)}


@config
class SCE(HeadMethod):
    """Softmax cross-entropy on a linear head: the family's baseline.

    >>> SCE().model
    {'head': 'linear', 'feature_dim': 64}
    """

    head = "linear"

    @override
    def criterion(self, output: Any, target: jax.Array) -> jax.Array:
        return losses.cross_entropy(output, target)


@config
class MMLDA(HeadMethod):
    """Softmax over the distances to fixed Max-Mahalanobis centers; nothing to train behind z.

    Attributes:
      temperature: of the softmax of -1/2 ||z - mu_i||^2: 1 in the paper, 1/2 in the authors' code.
      center_norm: C_MM, of every center.
      centers: as of `MMC`.
      center_seed: of the directions, or of the search.
      priors: p_k of the classes, up to a factor: predictions and the loss weigh exp(h_k / T) with
        them; None: equal ones.

    References: Pang et al., "Max-Mahalanobis linear discriminant analysis networks", ICML 2018.

    >>> MMLDA(center_norm=5.0).model["center_norm"]
    5.0
    """

    temperature: float = number(default=1.0, low=1e-6)
    center_norm: float = number(default=10.0, low=1e-6, static=True)
    centers: FixedCenters = static(default="max-mahalanobis")
    center_seed: int = static(default=0)
    priors: tuple[float, ...] | None = static(default=None)

    def __post_init__(self):
        if self.priors is not None and not all(0 < p < math.inf for p in self.priors):
            raise ValueError(f"priors must be positive numbers, got {self.priors}")

    @override
    def criterion(self, output: Any, target: jax.Array) -> jax.Array:
        return losses.mmlda(output, target, self.temperature)

    @property
    @override
    def model(self) -> dict[str, Any]:
        if self.priors is None:
            return fixed_head(self)
        whole = sum(self.priors)
        biases = [self.temperature * math.log(prior / whole) for prior in self.priors]
        return fixed_head(self) | {"biases": biases}


@config
class MMC(HeadMethod):
    """weight 1/2 ||z - mu_y||^2 to fixed centers: the Max-Mahalanobis center loss, "MMC-10".

    Its robustness under the loss's own attack is not robustness: attack the margins too.

    Attributes:
      weight: 1 in the paper; 2 in the authors' code, which leaves the 1/2 out.
      centers: 'max-mahalanobis'; 'packing', as far apart as is known where there are more than
        feature_dim + 1 classes; or 'random' directions ("MMC-10 (rand)").
      center_norm: C_MM, of every center.
      center_seed: of the random directions, or of the search of a packing.

    References: Pang et al., "Rethinking softmax cross-entropy loss for adversarial robustness",
      ICLR 2020.

    >>> MMC(adversarial="untargeted").on_clean
    False
    >>> float(MMC(weight=2.0).criterion(jnp.array([0.0, -1.0]), 1))
    2.0
    """

    weight: float = number(default=1.0)
    centers: FixedCenters = static(default="max-mahalanobis")
    center_norm: float = number(default=10.0, low=1e-6, static=True)
    center_seed: int = static(default=0)

    @override
    def criterion(self, output: Any, target: jax.Array) -> jax.Array:
        return self.weight * losses.mmc(output, target)

    @property
    @override
    def model(self) -> dict[str, Any]:
        return fixed_head(self)


def fixed_head(method: MMLDA | MMC) -> dict[str, Any]:
    """What a method with fixed centers needs its model to be."""
    settings = {"feature_dim": method.feature_dim, "center_norm": method.center_norm}
    if method.centers == "max-mahalanobis":
        return settings | {"head": "max-mahalanobis"}
    head = {"random": "random-centers", "packing": "packing"}[method.centers]
    return settings | {"head": head, "center_seed": method.center_seed}


@config
class LGM(HeadMethod):
    """The large-margin Gaussian mixture loss: trained centers, a margin and a likelihood term.

    Attributes:
      margin: alpha; while training the label's squared distance counts 1 + alpha times.
      likelihood: lambda, weight of -h_y: d_y, and 1/2 log |Lambda_y| where that is trained.
      covariance: Lambda_k of d_k = 1/2 (z - mu_k)^T Lambda_k^-1 (z - mu_k) and h_k = -d_k -
        1/2 log |Lambda_k|: 'identity', as in the authors' experiments, or trained from there.

    References: Wan et al., CVPR 2018. Their CIFAR-100 settings are the default, without the steps
      in which alpha grows to it.

    >>> LGM(margin=0.5).model["head"]
    'lgm'
    """

    head = "lgm"
    margin: float = number(default=0.3)
    likelihood: float = number(default=0.1)
    covariance: Covariance = static(default="identity")

    @override
    def criterion(self, output: Any, target: jax.Array) -> jax.Array:
        return losses.lgm(output, target, self.margin, self.likelihood)

    @override
    def criterion_at(self, params: Any) -> Loss:
        if self.covariance == "identity":
            return self.criterion
        biases = log_volume(params["head"])
        return functools.partial(
            losses.lgm, margin=self.margin, weight=self.likelihood, biases=biases
        )

    @property
    @override
    def model(self) -> dict[str, Any]:
        own = {} if self.covariance == "identity" else {"precisions": self.covariance}
        return super().model | own


@config
class GSCE(HeadMethod):
    """CE on the general member: trained centers, precisions and biases.

    Attributes:
      precisions: 'diagonal', one for each class and feature; 'isotropic', one for each class; or
        'full', a matrix for each class.

    References: Pang et al., "Rethinking softmax cross-entropy loss for adversarial robustness",
      ICLR 2020.

    >>> GSCE(precisions="isotropic").model["precisions"]
    'isotropic'
    """

    head = "gsce"
    precisions: Precisions = static(default="diagonal")

    @override
    def criterion(self, output: Any, target: jax.Array) -> jax.Array:
        return losses.cross_entropy(output, target)

    @property
    @override
    def model(self) -> dict[str, Any]:
        return super().model | {"precisions": self.precisions}
