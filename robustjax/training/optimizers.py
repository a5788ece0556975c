"""Optimisers with the settings that papers vary, built from optax. The step applies the rate.

Weight decay is coupled by default, as in PyTorch's SGD and Adam: wd * w joins the gradient before
momentum. `decoupled` adds it after (SGDW, AdamW; Loshchilov & Hutter 2019).
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import optax

from robustjax.config import config, number, static

Algorithm = Literal["sgd", "nesterov", "adam", "adamw"]
Decay = Literal["all", "kernels", "convolutions"]


@config
class Optimizer:
    """An optimiser without its learning rate.

    Attributes:
      name: 'sgd' (heavy ball), 'nesterov', 'adam' or 'adamw' (Adam, decoupled).
      momentum: of SGD; Adam's first moment too.
      weight_decay: PyTorch's convention, gradient + weight_decay * w.
      decay: which weights decay: 'all', 'kernels' (neither biases nor BatchNorm) or 'convolutions'
        (Keras models often regularise only these; Keras's l2(c) is a weight_decay of 2 c).
      decoupled: add the decay after the momentum.
      centralise: subtract from a gradient (plus a coupled decay) its mean over all axes except the
        output channel, of 'none', 'kernels' (SGD_GC) or 'convolutions' (SGD_GCC; Yong et al. 2020).
      clip: largest global norm of the gradient; None: no limit.

    >>> tx = Optimizer("nesterov", weight_decay=5e-4, decay="kernels").transform()
    >>> state = tx.init({"kernel": jnp.ones((2, 2))})
    """

    name: Algorithm = static(default="sgd")
    momentum: float = number(default=0.9, low=0, high=1)
    weight_decay: float = number(default=5e-4)
    decay: Decay = static(default="all")
    decoupled: bool = static(default=False)
    centralise: Literal["none", "kernels", "convolutions"] = static(default="none")
    clip: float | None = number(default=None, low=1e-12)

    def transform(self) -> optax.GradientTransformation:
        """The optax transformation from gradients to a direction of *descent*, before the rate."""
        match self.name:
            case "sgd" | "nesterov":
                move = optax.trace(self.momentum, nesterov=self.name == "nesterov")
            case "adam" | "adamw":
                move = optax.scale_by_adam(b1=self.momentum)
        decay = optax.add_decayed_weights(self.weight_decay, MASKS[self.decay])
        clip = [] if self.clip is None else [optax.clip_by_global_norm(self.clip)]
        late = self.decoupled or self.name == "adamw"
        early = [] if late else [decay]
        if self.centralise != "none":
            early.append(optax.masked(optax.stateless(centralised), MASKS[self.centralise]))
        return optax.chain(*clip, *early, move, *([decay] if late else []))


def centralised(gradients: Any, params: Any) -> Any:
    """Each gradient minus its mean over all axes except the last, the output channel."""
    return jax.tree.map(lambda g: g - g.mean(tuple(range(g.ndim - 1)), keepdims=True), gradients)


def kernels(params: Any) -> Any:
    """True for convolution and dense kernels, False for biases, norms, tokens and centers.

    Raises:
      ValueError: no weight of two or more axes is named kernel, weight or w.
    """

    def is_kernel(path, w):
        name = getattr(path[-1], "key", getattr(path[-1], "name", None)) if path else None
        return name in KERNELS and w.ndim > 1

    found = jax.tree.map_with_path(is_kernel, params)
    if not any(jax.tree.leaves(found)):
        raise ValueError(
            f"of the params no weight of two or more axes is named {' or '.join(KERNELS)}"
        )
    return found


KERNELS = ("kernel", "weight", "w")
"""The names that libraries give the weights of dense and convolutional layers."""


def convolutions(params: Any) -> Any:
    """True for convolution kernels only."""
    return jax.tree.map(lambda w: w.ndim == 4, params)


MASKS = {"all": None, "kernels": kernels, "convolutions": convolutions}
