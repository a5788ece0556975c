"""Feature scattering: an attack on a whole batch, without labels (Zhang & Wang, NeurIPS 2019)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax import losses
from robustjax.config import config, number
from robustjax.threats import Linf, radius
from robustjax.training.methods.base import Aux, Batch, Crafted, Method, accuracy, cross_entropy
from robustjax.training.net import Net
from robustjax.typing import Cost, Threat


@config
class FeatureScattering(Method):
    """min E CE(z(x_adv), s), x_adv one step that moves the batch's outputs away as a distribution.

    From a uniform start the step, of length eps, climbs the optimal transport distance sum_ij T_ij
    C_ij between the logits of the images and of the adversarial ones, C = [1 - cos]_+, T the
    entropic plan, all devices' images together. s is the label smoothed by `smoothing`,
    regardless of the recipe. Models it trains withstand PGD far better than AutoAttack.

    Attributes:
      threat: the ball.
      smoothing: 0.5 in the authors' code.
      regularisation: of the plan.
      iterations: of Sinkhorn; the gradient goes through all of them. (The authors stop earlier
        where the potentials change little.)

    References: Zhang & Wang, "Defense against adversarial attacks using feature scattering-based
      adversarial training", NeurIPS 2019, Eq. 4 and 5.

    >>> FeatureScattering(iterations=50).craft_cost
    Cost(forwards=2, backwards=1)
    """

    threat: Threat = Linf(8 / 255)
    smoothing: float = number(default=0.5, low=0, high=1)
    regularisation: float = number(default=0.01, low=1e-6)
    iterations: int = number(default=100, low=1, static=True)

    @property
    @override
    def craft_cost(self) -> Cost:
        # One step, and the clean outputs.
        return Cost(2, 1)

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        clean = net.gather(net.logits(params, batch.image))

        def distance(images):
            cost = scattering(clean, net.gather(net.logits(params, images)))
            return jnp.sum(sinkhorn(cost, self.regularisation, self.iterations) * cost)

        start = jax.vmap(self.threat.sample)(keys, batch.image)
        gradient = jax.grad(distance)(start)
        x_adv = jax.vmap(self.threat.step, (0, 0, None, 0))(
            start, gradient, radius(self.threat), batch.image
        )
        return Crafted(jax.lax.stop_gradient(x_adv), net.stats)

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        logits, stats = net.train(params, crafted.x_adv)
        classes = logits.shape[-1]
        target = jax.vmap(lambda y: losses.smooth(y, classes, self.smoothing))(batch.label)
        loss = cross_entropy(net, logits, batch.replace(target=target)).mean()
        return loss, Aux(stats, {"robust_accuracy": accuracy(logits, batch.label)})


def scattering(a: jax.Array, b: jax.Array) -> jax.Array:
    """[1 - cos(a_i, b_j)]_+ between the rows of (N, K) and (M, K)."""

    def unit(rows):
        return rows / jnp.sqrt(jnp.sum(rows**2, -1, keepdims=True) + 1e-12)

    return jax.nn.relu(1 - jnp.dot(unit(a), unit(b).T, precision=jax.lax.Precision.HIGHEST))


def sinkhorn(cost: jax.Array, regularisation: float, iterations: int) -> jax.Array:
    """The entropic optimal transport plan (N, M) between two uniform distributions.

    In the log domain; the columns sum to 1 / M exactly, the rows to 1 / N as it converges.
    """
    n, m = cost.shape

    def update(potentials, _):
        f, g = potentials
        f = -jax.nn.logsumexp(g[None] - scaled, axis=1) - jnp.log(n)
        g = -jax.nn.logsumexp(f[:, None] - scaled, axis=0) - jnp.log(m)
        return (f, g), None

    scaled = cost / regularisation
    (f, g), _ = jax.lax.scan(update, (jnp.zeros(n), jnp.zeros(m)), length=iterations)
    return jnp.exp(f[:, None] + g[None] - scaled)
