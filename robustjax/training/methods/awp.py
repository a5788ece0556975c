"""Adversarial weight perturbation, a wrapper around any method (Wu et al., NeurIPS 2020)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.checks import INF, check_arrays, checked
from robustjax.config import config, number
from robustjax.training.methods.base import Aux, Batch, Crafted, Descend, Gradients, Method
from robustjax.training.methods.wrapper import Wrapper
from robustjax.training.net import Net
from robustjax.training.optimizers import kernels
from robustjax.training.state import TrainState
from robustjax.typing import Cost


@config
class AWP(Wrapper):
    """Take the inner method's gradient at w + v, v the worst small change of the kernels.

    v_l = gamma ||w_l|| g_l / ||g_l|| for every kernel w_l, g the gradient of the inner loss under
    batch statistics at w; all other weights stay. The examples are crafted at w. As in the
    authors' code weight decay acts on w + v.

    Attributes:
      inner: the method that is wrapped.
      gamma: relative size of the perturbation; the authors' 5e-3 for TRADES, 1e-2 for PGD-AT.
      start: fraction of training before which the weights are not perturbed (TRADES-AWP: 9 / 200).

    References: Wu et al., NeurIPS 2020, eq. (8) to (10).

    >>> AWP(rj.training.TRADES(), gamma=5e-3, start=9 / 200).loss_cost
    Cost(forwards=4, backwards=4)
    """

    gamma: float = number(default=5e-3)
    start: float = number(default=0.0, low=0, high=1)

    @property
    @override
    def loss_cost(self) -> Cost:
        return Cost(*(2 * passes for passes in self.inner.loss_cost))

    @override
    def grads(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> Gradients:
        ascent = net.mean_grad(lambda p: self.inner.loss(net, p, batch, crafted)[0])(params)
        gamma = jnp.where(net.progress > self.start, self.gamma, 0.0)
        return self.inner.grads(net, awp_step(params, ascent, gamma), batch, crafted)

    @override
    def update(
        self, net: Net, descend: Descend, state: TrainState, batch: Batch, keys: jax.Array
    ) -> tuple[TrainState, Aux]:
        # A method with an update of its own (Free) has no gradient to wrap.
        own = self.innermost
        if type(own).update is not Method.update:
            raise ValueError(f"AWP cannot wrap {type(own).__name__}: it has its own update")
        return Method.update(self, net, descend, state, batch, keys)


@checked(params=check_arrays, gradients=check_arrays, gamma=["", (0, INF)])
def awp_step(params: Any, gradients: Any, gamma: float | jax.Array = 5e-3) -> Any:
    """The weights after AWP's step: w + gamma ||w|| g / ||g|| for every kernel, all else as it is.

    Args:
      params: weights; kernels are those of two or more axes called kernel, weight or w.
      gradients: of the loss to ascend, like `params`.
      gamma: relative size of the step.

    Raises:
      ValueError: none of the weights is a kernel.

    References: Wu et al., "Adversarial weight perturbation helps robust generalization", NeurIPS
      2020, Eq. 8 to 10.

    >>> awp_step({"kernel": jnp.ones((2, 2))}, {"kernel": jnp.ones((2, 2))}, 0.5)["kernel"][0]
    Array([1.5, 1.5], dtype=float32)
    """

    def move(w, g, is_kernel):
        if not is_kernel:
            return w
        return w + gamma * jnp.linalg.norm(w) * g / (jnp.linalg.norm(g) + 1e-12)

    if jax.tree.structure(gradients) != jax.tree.structure(params):
        raise ValueError("gradients must be a pytree like params")
    return jax.tree.map(move, params, gradients, kernels(params))
