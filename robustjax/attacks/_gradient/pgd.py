"""Projected gradient ascent: PGD, and as settings of it FGSM, MI-FGSM, DIM, TIM, ...

An attack is a threat (which ball) x a start x a step rule x a stop rule x a loss x a target x
transforms of the input.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example
from robustjax.attacks._core.randomized import Randomized, expected
from robustjax.attacks._gradient.ascent import Ascent, AscentState
from robustjax.attacks.starts import Corner, Start, Uniform, Zero
from robustjax.attacks.steps import Momentum, Nesterov, Rule, Steepest
from robustjax.attacks.stops import Never, Stop
from robustjax.attacks.targets import (
    Goal,
    LeastLikely,
    Target,
    TrueLabel,
)
from robustjax.attacks.transforms import (
    DiverseInput,
    ScaleInvariant,
    Transform,
    TranslationInvariant,
    through,
)
from robustjax.checks import checked, in_body
from robustjax.config import config, number, static
from robustjax.losses import cross_entropy
from robustjax.threats import Linf, radius
from robustjax.typing import Cost, LogitsFn, Loss, Model, Threat

LINF = Linf()


@config
class PGD(Ascent):
    """Projected gradient ascent on `loss(output, target)` inside the ball and the box of a threat.

    x_{k+1} = the threat's step of length `step_size` from x_k along the loss's gradient; the last
    iterate is returned. `step_size=None` means rel_step * eps / steps: eps and the number of steps
    may change, or be traced, and the attack still reaches the whole ball.

    Args:
      threat: the ball.
      steps: number of gradient steps; may be traced.
      step_size: in the norm of the threat; None: rel_step * eps / steps.
      rel_step: the travel of all steps together, in units of eps.
      start: where the ascent begins.
      rule: how a gradient becomes a step.
      stop: when an image is halted; `perturb` then puts the next one in its slot.
      loss: (output, target) -> scalar, maximised; minimised towards a class.
      target: which class is left or gone to when the caller gives none: `attacks.targets`.
      eot: number of draws of a `Randomized` model, and of the transforms, that a gradient averages.
      transforms: changes of the input, for transfer to other models.

    References: Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018.

    Guarantees:
      The result lies in the box of the threat, and in the ball unless the rule is `Unclipped`.
      A zero gradient moves nothing and makes no NaN.
      No gradient flows back through the result.
      An image that its stop rule has halted asks nothing more of the model.

    Two pixels that are the logits; the attack lowers that of the label 0 and raises the other:

    >>> x = jnp.array([[[0.75], [0.625]]])
    >>> attack = rj.attacks.PGD(rj.threats.Linf(0.125), steps=4)
    >>> print(jnp.ravel(attack(jnp.ravel, jax.random.key(0), x, 0)))
    [0.625 0.75 ]
    """

    threat: Threat = LINF
    steps: int = number(default=10)
    step_size: float | None = number(default=None)
    rel_step: float = number(default=2.5)
    start: Start = Uniform()
    rule: Rule = Steepest()
    stop: Stop = Never()
    loss: Loss = static(default=cross_entropy)
    target: Target = TrueLabel()
    eot: int = number(default=1, low=1, static=True)
    transforms: tuple[Transform, ...] = ()

    def __post_init__(self):
        if self.transforms and not isinstance(self.stop, Never):
            raise ValueError(
                "a stop rule reads the output at the image, and transforms change the image: leave "
                "transforms empty, or set stop=Never()"
            )

    @property
    @override
    def size(self) -> jax.Array:
        if self.step_size is None:
            return self.rel_step * radius(self.threat) / jnp.maximum(self.steps, 1)
        return jnp.asarray(self.step_size)

    @property
    def reach(self) -> jax.Array:
        """The travel of all steps together, in units of eps, without the start; 1 if eps is 0."""
        eps = radius(self.threat)
        return jnp.where(eps > 0, self.steps * self.size / jnp.maximum(eps, 1e-30), 1)

    def at(self, progress: jax.Array) -> PGD:
        """The attack after this fraction of training, in (0, 1]."""
        return replace(self, stop=self.stop.at(progress))

    @override
    def step(self, logits_fn: LogitsFn, example: Example, state: AscentState) -> AscentState:
        state = self.aimed(logits_fn, example, state)
        key = jax.random.fold_in(jax.random.fold_in(example.key, 2), state.looks)
        gradient, output = self.look(logits_fn, self.probe(state), state.goal, key)
        random = isinstance(logits_fn, Randomized)
        calls = self._calls(draws=self.eot if random or self.transforms else 1)
        state = self.move(example, state, gradient, output, Cost(calls, calls))
        # An image that fools one draw may not fool the next: the rule is asked again.
        return state._replace(halted=jnp.asarray(False)) if random else state

    def ascend(
        self,
        model: Model,
        state: Any,
        key: jax.Array,
        x: jax.Array,
        y: jax.Array,
        reference: Any = None,
    ) -> tuple[jax.Array, Any]:
        """All steps on a model that carries a state, such as the statistics of BatchNorm.

        Args:
          model: (state, image) -> (output, state), called once per step.
          state: passed through all steps. Under `jax.vmap(..., axis_name='example')` it stays
            unbatched as long as the model reduces what it returns over that axis.
          key: for the start and a random target.
          x: (H, W, C), in the box of the threat.
          y: () the true label.
          reference: compared with the output by `loss`, which is maximised: another label, a
            distribution, other logits. None: the choice of `target`.

        Returns:
          (x_adv, state).

        Raises:
          ValueError: the attack has transforms or `eot`, which take several outputs per step.
        """
        if self.transforms or self.eot > 1:
            raise ValueError(
                "an attack on a model with a state, as in training, takes the plain gradient: "
                "leave transforms empty and eot at 1"
            )

        def logits_fn(state):
            return lambda z: model(state, z)[0]

        def look(state, goal, z):
            output, state = model(state, z)
            return goal(output), (output, state)

        def step(_, carry):
            walk, state = carry
            walk = self.aimed(logits_fn(state), example, walk)
            # Under vmap with axis 'example' this is the gradient of the summed loss over the batch:
            # collectives inside a BatchNorm transpose to sums over the examples.
            slope = jax.grad(lambda z: look(state, walk.goal, z), has_aux=True)
            gradient, (output, state) = slope(self.probe(walk))
            return self.move(example, walk, gradient, output, Cost(1, 1)), state

        example = Example(key, x, y, reference)
        if reference is None:
            walk = self.begin(logits_fn(state), example)
        else:
            walk = self.first(logits_fn(state), example, Goal(reference, self.loss))
        walk, state = jax.lax.fori_loop(0, self.steps, step, (walk, state))
        return jax.lax.stop_gradient(self.result(example, walk)), state

    @property
    def cost(self) -> Cost:
        """Of all steps: both passes per step, draw and copy, and those of start and target.

        A model and transforms without randomness take one draw, whatever `eot` is.
        """
        calls = self.steps * self._calls(self.eot) + self.start.calls
        choices = 1 + self.steps * self.target.redraw
        return Cost(calls + choices * self.target.forwards, calls)

    def _calls(self, draws: int) -> int:
        """Both passes of one gradient."""
        return draws * math.prod(transform.copies for transform in self.transforms)

    def gradient(
        self, logits_fn: LogitsFn, x: jax.Array, goal: Goal, key: jax.Array | None = None
    ) -> jax.Array:
        """The direction of ascent at `x`.

        `key` draws the randomness of the model and of the transforms; None: the draw that the model
        holds.
        """
        return self.look(logits_fn, x, goal, key)[0]

    def look(
        self, logits_fn: LogitsFn, x: jax.Array, goal: Goal, key: jax.Array | None
    ) -> tuple[jax.Array, Any]:
        """(gradient, output), each the mean over the draws; with transforms the output is None."""
        if self.transforms:
            seen = through(self.transforms, logits_fn, goal)
            return expected(lambda draw: (jax.grad(draw)(x), None), seen, key, self.eot)

        def slope(draw):
            def value(z):
                output = draw(z)
                return goal(output), output

            return jax.grad(value, has_aux=True)(x)

        return expected(slope, logits_fn, key, self.eot)


@checked
def FGSM(threat: Threat = LINF) -> PGD:
    """One step of length eps from the clean image (Goodfellow et al. 2015).

    Two pixels that are the logits; each moves by eps, and the prediction changes:

    >>> x = jnp.array([[[0.75], [0.625]]])
    >>> attack = rj.attacks.FGSM(rj.threats.Linf(0.125))
    >>> print(jnp.ravel(attack(jnp.ravel, jax.random.key(0), x, 0)))
    [0.625 0.75 ]
    """
    return PGD(threat, steps=1, rel_step=1.0, start=Zero())


@checked
def RFGSM(threat: Threat = LINF) -> PGD:
    """R+FGSM: a random step of eps / 2, then a gradient step of eps / 2 (Tramer et al. 2018).

    With this key the random step goes the wrong way, and the gradient step only takes it back:

    >>> x, attack = jnp.array([[[0.75], [0.625]]]), rj.attacks.RFGSM(rj.threats.Linf(0.125))
    >>> print(jnp.ravel(attack(jnp.ravel, jax.random.key(0), x, 0)))
    [0.75  0.625]
    """
    return PGD(threat, steps=1, rel_step=0.5, start=Corner(0.5))


@checked(steps=in_body)
def BIM(threat: Threat = LINF, steps: int = 10) -> PGD:
    """The basic iterative method: `steps` steps of eps / steps (Kurakin et al. 2017).

    >>> x = jnp.array([[[0.75], [0.625]]])
    >>> attack = rj.attacks.BIM(rj.threats.Linf(0.125), steps=4)
    >>> float(attack.size)
    0.03125
    >>> print(jnp.ravel(attack(jnp.ravel, jax.random.key(0), x, 0)))
    [0.625 0.75 ]
    """
    return PGD(threat, steps=steps, rel_step=1.0, start=Zero())


@checked(steps=in_body)
def MIFGSM(threat: Threat = LINF, steps: int = 10, decay: float = 1.0) -> PGD:
    """MI-FGSM: BIM along an accumulated gradient (Dong et al. 2018).

    >>> x = jnp.array([[[0.75], [0.625]]])
    >>> attack = rj.attacks.MIFGSM(rj.threats.Linf(0.125), steps=2, decay=1.0)
    >>> print(jnp.ravel(attack(jnp.ravel, jax.random.key(0), x, 0)))
    [0.625 0.75 ]
    """
    return PGD(threat, steps=steps, rel_step=1.0, start=Zero(), rule=Momentum(decay))


@checked(steps=in_body)
def ILCM(threat: Threat = LINF, steps: int = 10) -> PGD:
    """BIM towards the class that is least likely on the clean image (Kurakin et al. 2017).

    Three pixels that are the logits; only the last one grows:

    >>> x = jnp.array([[[0.75], [0.5], [0.25]]])
    >>> attack = rj.attacks.ILCM(rj.threats.Linf(0.125), steps=2)
    >>> print(jnp.ravel(attack(jnp.ravel, jax.random.key(0), x, 0)))
    [0.625 0.375 0.375]
    """
    return PGD(threat, steps=steps, rel_step=1.0, start=Zero(), target=LeastLikely())


@checked(steps=in_body)
def NIFGSM(threat: Threat = LINF, steps: int = 10, decay: float = 1.0) -> PGD:
    """NI-FGSM: MI-FGSM with the gradient taken one step ahead (Lin et al. 2020).

    >>> x = jnp.array([[[0.75], [0.625]]])
    >>> attack = rj.attacks.NIFGSM(rj.threats.Linf(0.125), steps=2, decay=1.0)
    >>> print(jnp.ravel(attack(jnp.ravel, jax.random.key(0), x, 0)))
    [0.625 0.75 ]
    """
    return PGD(threat, steps=steps, rel_step=1.0, start=Zero(), rule=Nesterov(decay))


@checked(steps=in_body)
def SINIFGSM(threat: Threat = LINF, steps: int = 10, decay: float = 1.0, copies: int = 5) -> PGD:
    """SI-NI-FGSM: NI-FGSM on the mean over scaled copies of the image (Lin et al. 2020).

    Every copy costs a forward and a backward pass per step:

    >>> rj.attacks.SINIFGSM(steps=10, copies=5).cost
    Cost(forwards=50, backwards=50)
    """
    return replace(NIFGSM(threat, steps, decay), transforms=(ScaleInvariant(copies),))


@checked(steps=in_body)
def DIM(
    threat: Threat = LINF, steps: int = 10, decay: float = 1.0, p: float = 0.5, low: float = 0.9
) -> PGD:
    """M-DI2-FGSM: MI-FGSM through random resizing and padding (Xie et al. 2019).

    >>> rj.attacks.DIM(steps=10, p=0.75).transforms
    (DiverseInput(p=0.75, low=0.9),)
    """
    return replace(MIFGSM(threat, steps, decay), transforms=(DiverseInput(p, low),))


@checked(steps=in_body)
def TIM(threat: Threat = LINF, steps: int = 10, decay: float = 1.0, size: int = 15) -> PGD:
    """TI-MI-FGSM: MI-FGSM along gradients blurred by a Gaussian (Dong et al. 2019).

    The blur moves the third pixel too, which this model does not read:

    >>> x = jnp.array([[[0.75], [0.625], [0.5]]])
    >>> attack = jax.jit(rj.attacks.TIM(rj.threats.Linf(0.125), 2, size=3), static_argnums=0)
    >>> print(jnp.ravel(attack(lambda x: x[0, :2, 0], jax.random.key(0), x, 0)))
    [0.625 0.75  0.625]
    """
    return replace(MIFGSM(threat, steps, decay), transforms=(TranslationInvariant(size),))
