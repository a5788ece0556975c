"""Gradient ascent for a model that gives scores but no gradients: SPSA and NES.

Projected gradient ascent whose gradients are estimated from finite differences of the loss along
random directions. The model is only queried, and the queries are counted.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example
from robustjax.attacks._core.randomized import Randomized, redraw
from robustjax.attacks._core.success import Success, fooled, won_by
from robustjax.attacks._gradient.ascent import Ascent, AscentState
from robustjax.attacks._gradient.pgd import LINF, PGD
from robustjax.attacks.starts import Start, Uniform, Zero
from robustjax.attacks.steps import Adam, Momentum, Rule, Steepest
from robustjax.attacks.targets import Goal, Target, TrueLabel
from robustjax.checks import checked, in_body
from robustjax.config import config, number, static
from robustjax.losses import margin
from robustjax.threats import box_of
from robustjax.typing import Cost, LogitsFn, Loss, Threat

Noise = Literal["rademacher", "gaussian"]


@config
class ZerothOrder(Ascent):
    """`PGD` on gradients estimated from pairs of queries x +- delta u, until it succeeds.

    On a `Randomized` model it takes all steps: an image that fools one draw may not fool the next.

    With z+- = x +- delta u, clipped to the box, and d = z+ - z- for each random direction u,
        g = sum (loss(z+) - loss(z-)) d / sum d^2, per component.
    Away from the box and with signs for u this is the SPSA of the paper. Dividing by the actual
    displacement keeps g unbiased for a linear loss where clipping lets a pixel move to one side
    only; the papers leave the box instead. With Gaussian u it replaces the constant delta^2 of NES.

    Args:
      threat: the ball.
      steps: number of gradient steps; may be traced.
      step_size: in the norm of the threat, per pixel with the rule `Adam`; None: 2.5 eps / steps.
      samples: queries per gradient, two to a direction; even, may be traced.
      delta: scale of the displacement, in units of pixel values.
      noise: 'rademacher', random signs (Spall 1992), or 'gaussian'.
      start: where the ascent starts.
      rule: how a gradient becomes a step.
      loss: (output, target) -> scalar, maximised. It needs no derivative.
      target: which class to leave or to reach when the caller gives none: `attacks.targets`.
      success: (output, y) -> bool; the attack stops there.

    References: Uesato et al., "Adversarial risk and the dangers of evaluating against weak
    attacks", 2018, Alg. 1; Ilyas et al., "Black-box adversarial attacks with limited queries and
    information", 2018, Alg. 1.

    Guarantees:
      The result lies in the ball and in the box.
      The model is asked about images in the box only, and no derivative of it is taken.
      Each step costs samples + 1 queries, the last of them to see whether the new point succeeds.
      The two ends of a pair share one draw of a `Randomized` model; every pair has its own.

    A model of two pixels with rounded logits, whose gradient is zero everywhere:

    >>> def logits_fn(x):
    ...     return jnp.round(8 * jnp.ravel(x))
    >>> x = jnp.array([[[0.75], [0.625]]])
    >>> attack = rj.attacks.ZerothOrder(rj.threats.Linf(0.125), steps=5, samples=8, delta=0.125)
    >>> attack = jax.jit(attack, static_argnums=0)  # the model
    >>> print(jnp.ravel(attack(logits_fn, jax.random.key(0), x, 0)))
    [0.625 0.75 ]
    """

    differentiates = False

    threat: Threat = LINF
    steps: int = number(default=100, low=1)
    step_size: float | None = number(default=None)
    samples: int = number(default=128, low=2)
    delta: float = number(default=0.01, low=2.0**-24)
    noise: Noise = static(default="rademacher")
    start: Start = Zero()
    rule: Rule = Steepest()
    loss: Loss = static(default=margin)
    target: Target = TrueLabel()
    success: Success = static(default=fooled)

    def __post_init__(self):
        if isinstance(self.samples, int) and self.samples % 2:
            raise ValueError(f"samples come in pairs, so give an even number, not {self.samples}")

    @property
    @override
    def size(self) -> jax.Array:
        return PGD(self.threat, self.steps, self.step_size).size

    @property
    def eot(self) -> int:
        """Draws of a `Randomized` model that a gradient is the mean of."""
        return self.samples // 2

    @override
    def begin(self, logits_fn: LogitsFn, example: Example) -> AscentState:
        return self._judged(logits_fn, example, super().begin(logits_fn, example))

    @override
    def step(self, logits_fn: LogitsFn, example: Example, state: AscentState) -> AscentState:
        state = self.aimed(logits_fn, example, state)
        key = jax.random.fold_in(jax.random.fold_in(example.key, 2), state.looks)
        gradient = self.estimate(logits_fn, key, self.probe(state), state.goal)
        state = self.move(example, state, gradient, None, Cost(self.samples, 0))
        return self._judged(logits_fn, example, state)

    def _judged(self, logits_fn, example, state):
        """Query the new point, and halt where it succeeds."""
        won = won_by(self.success, logits_fn(state.x_adv), example)
        forwards, backwards = state.cost
        return state._replace(
            halted=won & (not isinstance(logits_fn, Randomized)),
            cost=Cost(forwards + 1, backwards),
        )

    def estimate(self, logits_fn: LogitsFn, key: jax.Array, x: jax.Array, goal: Goal) -> jax.Array:
        """The estimated direction of ascent at `x`, from `samples` queries, one pair at a time.

        The batch is that of the examples attacked together, so a pair at a time is enough.
        """
        draw = {"rademacher": jax.random.rademacher, "gaussian": jax.random.normal}[self.noise]

        box = box_of(self.threat, x)

        def pair(i, sums):
            key_noise, key_model = jax.random.split(jax.random.fold_in(key, i))
            shift = self.delta * draw(key_noise, x.shape, x.dtype)
            plus, minus = jnp.clip(x + shift, *box), jnp.clip(x - shift, *box)
            outputs = jax.vmap(redraw(logits_fn, key_model))(jnp.stack([plus, minus]))
            values = jax.vmap(goal)(outputs).astype(x.dtype)
            moved = plus - minus
            return sums[0] + (values[0] - values[1]) * moved, sums[1] + moved**2

        zeros = jnp.zeros_like(x)
        rise, run = jax.lax.fori_loop(0, self.samples // 2, pair, (zeros, zeros))
        return rise / jnp.where(run > 0, run, 1)


@checked(steps=in_body)
def SPSA(
    threat: Threat = LINF,
    steps: int = 100,
    samples: int = 128,
    step_size: float = 0.01,
    delta: float = 0.01,
    **more: Any,
) -> ZerothOrder:
    """Adam on differences along random signs, from a random start (Uesato et al. 2018).

    Adam moves all pixels by about the same amount, which suits Linf.

    Two pixels that are the logits; a few steps swap their order:

    >>> x = jnp.array([[[0.75], [0.625]]])
    >>> attack = rj.attacks.SPSA(rj.threats.Linf(0.125), steps=20, samples=4)
    >>> attack = jax.jit(attack, static_argnums=0)  # the model
    >>> int(jnp.argmax(attack(jnp.ravel, jax.random.key(0), x, 0)))
    1
    """
    return ZerothOrder(
        threat, steps, step_size, samples, delta, start=Uniform(), rule=Adam(drop=1.0), **more
    )


@checked(steps=in_body)
def NES(
    threat: Threat = LINF,
    steps: int = 100,
    samples: int = 50,
    step_size: float | None = None,
    delta: float = 0.001,
    **more: Any,
) -> ZerothOrder:
    """Steepest steps with momentum, on differences along Gaussian noise (Ilyas et al. 2018).

    The momentum is that of MI-FGSM: it sums gradients normalised in L1.

    Two pixels that are the logits; a few steps swap their order:

    >>> x = jnp.array([[[0.75], [0.625]]])
    >>> attack = rj.attacks.NES(rj.threats.Linf(0.125), steps=5, samples=4)
    >>> attack = jax.jit(attack, static_argnums=0)  # the model
    >>> int(jnp.argmax(attack(jnp.ravel, jax.random.key(0), x, 0)))
    1
    """
    return ZerothOrder(
        threat,
        steps,
        step_size,
        samples,
        delta,
        noise="gaussian",
        rule=Momentum(decay=0.9),
        **more,
    )
