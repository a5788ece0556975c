"""Heads: features (B, D) -> logits (B, K). Any Flax module with this signature is a head."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from robustjax import centers
from robustjax.deterministic import ordered_sum
from robustjax.losses import gsce_logits
from robustjax.models.nets.layers import BN, BatchNorm, torch_uniform

HIGHEST = jax.lax.Precision.HIGHEST


class LinearHead(nn.Module):
    """The softmax classifier's last layer, in full float32 precision with any compute dtype.

    By default, GPUs and TPUs round a float32 product to about 10 bits, which changes margins.
    """

    num_classes: int
    kernel_init: Callable = torch_uniform

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """(B, D) -> float32 logits (B, K)."""
        shape = (features.shape[-1], self.num_classes)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.num_classes,), jnp.float32)
        logits = jnp.dot(features, kernel, precision=HIGHEST)
        return logits + bias.reshape(1, -1)


class CosineHead(nn.Module):
    """scale * cos(angle between the features and the class's weights): hypersphere embedding.

    Gradients flow through both norms, so weight decay of the kernel changes no logit. (The authors'
    code instead writes the normalised weights back at every forward pass.)

    Args:
      num_classes: K.
      scale: s; prediction, loss and attack see the scaled logits.

    References: Pang et al., "Boosting adversarial training with hypersphere embedding", 2020.

    Guarantees:
      Scaling the features, or the weights of a class, changes no logit; |logits| <= scale.
    """

    num_classes: int
    scale: float = 10.0

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """(B, D) -> float32 logits (B, K)."""
        shape = (features.shape[-1], self.num_classes)
        kernel = self.param("kernel", torch_uniform, shape, jnp.float32)
        cosines = jnp.dot(directions(features), directions(kernel.T).T, precision=HIGHEST)
        return self.scale * cosines


def directions(rows: jax.Array) -> jax.Array:
    """The rows (N, D) divided by their lengths; a row of zeros stays zero, with zero gradient."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(rows), axis=1, keepdims=True))
    rows = rows / jnp.where(largest > 0, largest, 1)  # keeps squares from under- and overflowing
    squares = ordered_sum((rows**2).T)[:, None]
    return rows * jnp.where(squares > 0, jax.lax.rsqrt(jnp.where(squares > 0, squares, 1)), 0)


class Centered(nn.Module):
    """A linear head that also stores the running centers of the features (center loss).

    The centers (K, D) are a variable in the collection 'centers', not a parameter: the training
    method updates them, and no gradient reaches them.
    """

    num_classes: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """(B, D) -> float32 logits (B, K), which do not depend on the centers."""
        shape = (self.num_classes, features.shape[-1])
        self.variable("centers", "running", jnp.zeros, shape, jnp.float32)
        return LinearHead(self.num_classes, name="linear")(features)


class Quadratic(nn.Module):
    """A head of quadratic logits, h_i(z) = -(z - mu_i)^T Sigma_i (z - mu_i) + B_i.

    See `losses.gsce_logits`.

    Args:
      num_classes: K.
      kind: the centers mu: constants of the program ('max-mahalanobis', 'random'), found once and
        then stored in the collection 'centers' ('packing'), or parameters ('trained').
      precisions: 'half' fixes Sigma = I / 2, so that h_i = -1/2 ||z - mu_i||^2 + B_i. 'isotropic',
        'diagonal' and 'full' are parameters that start there: of the last, Sigma_i = A_i A_i^T / 2
        with a matrix A_i.
      normalized: B_i = 1/2 log |2 Sigma_i|, so that exp(h_i) is a Gaussian density up to one factor
        for all classes. Otherwise B is a parameter that starts at 0, or with 'half' the `biases`.
      biases: constant B, one a class; None: 0.
      center_norm: the norm of centers that are not trained.
      center_seed: for random centers, and for the search of a packing.

    Guarantees:
      With 'half' and no biases no logit is positive, and the nearest center has the largest.
      Constant centers are not in any collection of variables; a packing is not a parameter.
    """

    num_classes: int
    kind: Literal["max-mahalanobis", "random", "packing", "trained"] = "max-mahalanobis"
    precisions: Literal["half", "isotropic", "diagonal", "full"] = "half"
    normalized: bool = False
    biases: tuple[float, ...] | None = None
    center_norm: float = 10.0
    center_seed: int = 0

    def __post_init__(self):
        if self.precisions not in ("half", "isotropic", "diagonal", "full"):
            raise ValueError(
                f"precisions must be isotropic, diagonal or full, got {self.precisions!r}"
            )
        if self.biases is not None and len(self.biases) != self.num_classes:
            raise ValueError(
                f"biases must be one for each of {self.num_classes} classes, got {self.biases}"
            )
        super().__post_init__()

    def constant(self, dim: int) -> np.ndarray:
        """The centers that are not trained, (K, dim)."""
        if self.kind == "max-mahalanobis":
            return centers.max_mahalanobis(self.num_classes, dim, self.center_norm)
        make = packing if self.kind == "packing" else centers.random
        return make(self.num_classes, dim, self.center_norm, self.center_seed)

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """(B, D) -> float32 logits (B, K)."""
        classes, shape = (self.num_classes,), (self.num_classes, features.shape[-1])
        if self.kind == "trained":
            mu = self.param("centers", nn.initializers.glorot_uniform(), shape, jnp.float32)
        elif self.kind == "packing":
            # Another release of SciPy may end its search elsewhere: the weights have to say where.
            find = partial(self.constant, features.shape[-1])
            mu = jnp.asarray(self.variable("centers", "packing", find).value)
        else:
            mu = jnp.asarray(self.constant(features.shape[-1]))
        sigma, b = jnp.full(classes, 0.5), jnp.zeros(classes)
        if self.biases is not None:
            b = jnp.asarray(self.biases, jnp.float32)
        if self.precisions != "half":
            sigma, own = self.trained(features.shape[-1])
            volume = log_volume({"centers": mu, **own})
            b = volume if self.normalized else self.param("biases", ZEROS, classes, jnp.float32)
        return jax.vmap(gsce_logits, (0, None, None, None))(features, mu, sigma, b)

    def trained(self, dim: int) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Sigma of features (dim,), and the parameters that it is made of."""
        if self.precisions == "full":
            eye = jnp.tile(jnp.eye(dim), (self.num_classes, 1, 1))
            a = self.param("factors", lambda _: eye)
            return jnp.einsum("kab,kcb->kac", a, a, precision=HIGHEST) / 2, {"factors": a}
        shape = (self.num_classes, dim) if self.precisions == "diagonal" else (self.num_classes,)
        log = self.param("log_precisions", ZEROS, shape, jnp.float32)
        return jnp.exp(log) / 2, {"log_precisions": log}


def log_volume(params: Any) -> jax.Array:
    """1/2 log |2 Sigma_i| (K,) of a quadratic head with these parameters."""
    if "factors" in params:
        return jnp.linalg.slogdet(params["factors"])[1]
    log = params["log_precisions"]
    return (log.sum(1) if log.ndim == 2 else params["centers"].shape[1] * log) / 2


ZEROS = nn.initializers.zeros

packing = cache(centers.packing)
"""A search that a model asks for more than once, and that may take seconds."""


class Auxiliary(nn.Module):
    """A second head that estimates whether the prediction is right, as log-odds.

    A linear layer to half as many units, batch normalisation, ReLU, and a linear layer to one unit.

    References: Pang et al., "Two coupled rejection metrics can tell adversarial examples apart",
      CVPR 2022, and its code.
    """

    @nn.compact
    def __call__(self, features: jax.Array, bn: BN) -> jax.Array:
        """(B, D) -> float32 (B,)."""
        hidden = LinearHead(max(1, features.shape[-1] // 2), name="hidden")(features)
        hidden = nn.relu(BatchNorm(name="norm")(hidden, bn))
        return LinearHead(1, name="last")(hidden)[:, 0]


class Projected(nn.Module):
    """A body followed by a linear layer without activation: `dim` features of any sign."""

    body: nn.Module
    dim: int

    @nn.compact
    def __call__(self, h: jax.Array, bn: BN) -> jax.Array:
        """(hidden layer, bn) -> float32 features (B, dim)."""
        return LinearHead(self.dim, name="projection")(self.body(h, bn))


HEADS: dict[str, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    "linear": (LinearHead, ()),
    "cosine": (CosineHead, ("scale",)),
    "center": (Centered, ()),
    "max-mahalanobis": (Quadratic, ("center_norm", "biases")),
    "random-centers": (partial(Quadratic, kind="random"), ("center_norm", "center_seed", "biases")),
    "packing": (partial(Quadratic, kind="packing"), ("center_norm", "center_seed", "biases")),
    "lgm": (partial(Quadratic, kind="trained", normalized=True), ("precisions",)),
    "gsce": (partial(Quadratic, kind="trained", precisions="diagonal"), ("precisions",)),
}
"""The heads by name, with the options of each."""

DISTANCE_HEADS = ("max-mahalanobis", "random-centers", "packing", "lgm", "gsce")
"""The heads whose logits are distances to centers; they are evaluated under `attacks.Adaptive`."""


def attach(
    body: nn.Module,
    num_classes: int,
    head: str = "linear",
    feature_dim: int | None = None,
    kernel_init: Callable = torch_uniform,
    **options: Any,
) -> tuple[nn.Module, nn.Module]:
    """The body, projected to `feature_dim` features unless that is None, and the named head.

    `kernel_init` initialises a linear head.

    Raises:
      ValueError: an unknown head, an option of another head, or centers that do not fit.
    """
    if head not in HEADS:
        raise ValueError(f"unknown head {head!r}; choose one of {', '.join(HEADS)}")
    if feature_dim is not None and feature_dim < 1:
        raise ValueError(f"feature_dim must be at least 1, got {feature_dim}")
    build, known = HEADS[head]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(
            f"the head {head!r} takes no {unknown[0]}; its options: {', '.join(known) or 'none'}"
        )
    made = build(num_classes, **options)
    if isinstance(made, LinearHead):
        made = made.clone(kernel_init=kernel_init)
    if isinstance(made, Quadratic) and made.kind != "trained":
        if feature_dim is None:
            raise ValueError(
                f"the head {head!r} needs a feature_dim, which adds a linear layer: without it the "
                "features are never negative and cannot reach the centers"
            )
        made.constant(feature_dim)
    return (body if feature_dim is None else Projected(body, feature_dim)), made
