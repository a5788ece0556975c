"""Projected gradient ascent in one loop: PGD, and by other settings FGSM, MI-FGSM, DIM, TIM, ...

An attack is a threat (which ball) x a start x a step rule x a loss x a label source x transforms of
the input. The model's state rides in the loop's carry, so training can commit BatchNorm statistics
at every attack step.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from robustjax.attacks._core.ensemble import MultiTargeted
from robustjax.attacks._core.randomized import expected, redraw
from robustjax.attacks._core.success import logits_of
from robustjax.attacks.starts import Corner, Start, Uniform, Zero
from robustjax.attacks.steps import Momentum, Nesterov, Rule, Steepest, Step
from robustjax.attacks.stops import Never, Sight, Stop
from robustjax.attacks.targets import Label, aim, check_aim, sense
from robustjax.attacks.transforms import (
    DiverseInput,
    ScaleInvariant,
    Transform,
    TranslationInvariant,
    through,
)
from robustjax.config import config, number, static
from robustjax.losses import cross_entropy, targeted_margin
from robustjax.threats import Linf, radius
from robustjax.typing import Cost, LogitsFn, Loss, Model, Threat

LINF = Linf()


@config
class PGD:
    """Projected gradient ascent on `loss(output, target)` inside a threat's ball and in [0, 1].

    x_{k+1} = the threat's step of length `step_size` from x_k along the loss's gradient; the last
    iterate is returned. `step_size=None` means rel_step * eps / steps, so that eps and the number
    of steps may change, or be traced, and the attack still reaches everywhere.

    Args:
      threat: the ball.
      steps: number of gradient steps; may be traced.
      step_size: in the norm of the threat; None: rel_step * eps / steps.
      rel_step: the travel of all steps together, in units of eps.
      start: where the ascent begins.
      rule: what is done with a gradient.
      stop: when an image is left where it is; the model must then give one output per step.
      loss: (output, target) -> scalar, maximised.
      label: what the loss compares the output with when no target is given: the true label, the
        model's own prediction on the clean image (no label leaking), or a target class to go
        towards: the least likely one (Kurakin et al. 2017), a uniformly random wrong one or 'any'
        one, or the `rank`-th most likely wrong one. All but 'true' read the output's logits.
      rank: of the target class, for label 'ranked'.
      redraw: draw the class of label 'random' or 'any' anew at every step: with 'any' and the
        loss multi_target the multi-target crafting of "Bag of Tricks" (Pang et al. 2021).
      targeted: descend instead of ascend on a target that is given.
      eot: draws of a `Randomized` model, and of the transforms, that each gradient is the mean of.
      transforms: what the gradient is taken through, for transfer to other models.

    References: Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018.

    Guarantees:
      The result lies in the ball (unless the rule is `Unclipped`) and in [0, 1].
      A zero gradient moves nothing and makes no NaN.
      No gradient flows back through the result.
    """

    threat: Threat = LINF
    steps: int = number(default=10)
    step_size: float | None = number(default=None)
    rel_step: float = number(default=2.5)
    start: Start = Uniform()
    rule: Rule = Steepest()
    stop: Stop = Never()
    loss: Loss = static(default=cross_entropy)
    label: Label = static(default="true")
    rank: int = number(default=1, low=1)
    redraw: bool = static(default=False)
    targeted: bool = static(default=False)
    eot: int = number(default=1, low=1, static=True)
    transforms: tuple[Transform, ...] = ()

    @property
    def size(self) -> jax.Array:
        """The length of one step, in the norm of the threat."""
        if self.step_size is None:
            return self.rel_step * radius(self.threat) / jnp.maximum(self.steps, 1)
        return jnp.asarray(self.step_size)

    @property
    def reach(self) -> jax.Array:
        """How far all steps together travel, in units of eps; a random start may lead anywhere."""
        return self.steps * self.size / jnp.maximum(radius(self.threat), 1e-30)

    def at(self, progress: jax.Array) -> PGD:
        """The attack as it is after this fraction of training, in (0, 1]."""
        return replace(self, stop=self.stop.at(progress))

    def __call__(
        self,
        logits_fn: LogitsFn,
        key: jax.Array,
        x: jax.Array,
        y: jax.Array,
        target: Any = None,
        x_start: jax.Array | None = None,
    ) -> jax.Array:
        """`ascend` for a model without state; one with randomness is drawn anew at every step."""
        draws = jax.random.fold_in(key, 2)
        if not isinstance(self.stop, Never):

            def model(k, z):
                return redraw(logits_fn, jax.random.fold_in(draws, k))(z), k + 1

            return self.ascend(model, 0, key, x, y, target, x_start)[0]

        def gradient(k, x_adv, target):
            drawn = self.gradient(logits_fn, x_adv, target, jax.random.fold_in(draws, k))
            return drawn, None, k + 1

        return self._climb(gradient, lambda _: logits_fn, 0, key, x, y, target, x_start)[0]

    def ascend(
        self,
        model: Model,
        state: Any,
        key: jax.Array,
        x: jax.Array,
        y: jax.Array,
        target: Any = None,
        x_start: jax.Array | None = None,
    ) -> tuple[jax.Array, Any]:
        """The one ascent loop.

        Args:
          model: (state, image) -> (output, state), called once per step.
          state: threaded through all steps. Under `jax.vmap(..., axis_name='example')` it stays
            unbatched as long as the model reduces what it returns over that axis.
          key: for the start and a random target.
          x: (H, W, C) in [0, 1].
          y: () the true label.
          target: what `loss` compares the output with; None: what `label` says.
          x_start: begin here instead of at `start` (a replayed perturbation); projected.

        Returns:
          (x_adv, state).

        Raises:
          ValueError: the attack has transforms or `eot`: they draw more than one output per step.
        """
        if self.transforms or self.eot > 1:
            raise ValueError(
                "an attack that threads a model's state, as training does, or that has a stop "
                "rule takes the plain gradient: leave transforms empty and eot at 1"
            )

        def gradient(state, x_adv, target):
            return self._gradient(model, state, x_adv, target)

        def logits_fn(state):
            return lambda z: model(state, z)[0]

        return self._climb(gradient, logits_fn, state, key, x, y, target, x_start)

    def _climb(self, gradient, logits_fn, state, key, x, y, target, x_start):
        """The loop: `gradient(state, x_adv, target)` -> (gradient, output, state) every step."""
        key_start, key_target = jax.random.split(key)
        aim_at = self._aims(target, logits_fn(state), key_target, x, y)
        if x_start is None:
            x_start = self.start(key_start, x, self.threat, logits_fn(state))
        else:
            x_start = self.threat.project(x_start, x)
        size = self.size

        def step(k, carry):
            here, patience, state = carry
            x_adv, memory = here
            probe = self.rule.probe(memory, x_adv, self.threat, size)
            direction, output, state = gradient(state, probe, aim_at(k))
            there = self.rule(memory, Step(direction, x_adv, x, self.threat, size, k / self.steps))
            sight = Sight(k, output, direction, x_adv, x, y, self.threat)
            halt, patience = self.stop(patience, sight)
            moved = jax.tree.map(lambda a, b: jnp.where(halt, a, b), here, there)
            return moved, patience, state

        carry = (x_start, self.rule.init(x)), self.stop.init(), state
        (x_adv, _), _, state = jax.lax.fori_loop(0, self.steps, step, carry)
        return jax.lax.stop_gradient(x_adv), state

    @property
    def cost(self) -> Cost:
        """Both passes per step, draw and copy, those of the start, a forward to choose a class.

        On a model and transforms without randomness the draws are one, whatever `eot` says.
        """
        copies = math.prod(transform.copies for transform in self.transforms)
        calls = self.steps * self.eot * copies + self.start.calls
        return Cost(calls + (self.label != "true"), calls)

    def check_aim(self) -> None:
        """Raise ValueError if the attack cannot do without a target that the caller gives."""
        check_aim(self.loss, self.label, self.targeted, self.redraw)

    def aim(self, logits_fn: LogitsFn, key: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        """The label that `loss` is given when the caller gives no target."""
        self.check_aim()
        logits = None if self.label == "true" else logits_of(logits_fn(x))
        return aim(self.loss, self.label, logits, key, y, self.rank)

    def _aims(self, target, logits_fn, key, x, y):
        """Number of the step -> what its loss is given."""
        if target is not None or not self.redraw:
            fixed = self.aim(logits_fn, key, x, y) if target is None else target
            return lambda k: fixed
        self.check_aim()
        classes = jnp.zeros_like(logits_of(logits_fn(x)))  # their number is all that counts
        return lambda k: aim(self.loss, self.label, classes, jax.random.fold_in(key, k), y)

    def gradient(
        self, logits_fn: LogitsFn, x: jax.Array, target: Any, key: jax.Array | None = None
    ) -> jax.Array:
        """The direction of ascent at `x`: the loss's gradient, negated for a targeted attack.

        `key` draws the randomness of the model and of the transforms; None takes the draw that the
        model holds.
        """
        objective = through(self.transforms, logits_fn, lambda out: self._value(out, target))
        return jax.grad(lambda x: expected(lambda draw: draw(x), objective, key, self.eot))(x)

    def _gradient(self, model, state, x, target):
        def objective(x):
            output, new_state = model(state, x)
            return self._value(output, target), (output, new_state)

        # Under vmap with axis 'example' this is the gradient of the summed loss over the batch:
        # collectives inside a BatchNorm transpose to sums over the examples.
        direction, (output, state) = jax.grad(objective, has_aux=True)(x)
        return direction, output, state

    def _value(self, output, target):
        return sense(self.loss, self.label, self.targeted) * self.loss(output, target)


def FGSM(threat: Threat = LINF) -> PGD:
    """One step of length eps from the clean image (Goodfellow et al. 2015)."""
    return PGD(threat, steps=1, rel_step=1.0, start=Zero())


def RFGSM(threat: Threat = LINF) -> PGD:
    """R+FGSM: a random step of eps / 2, then a gradient step of eps / 2 (Tramer et al. 2018)."""
    return PGD(threat, steps=1, rel_step=0.5, start=Corner(0.5))


def BIM(threat: Threat = LINF, steps: int = 10) -> PGD:
    """The basic iterative method: `steps` steps of eps / steps (Kurakin et al. 2017)."""
    return PGD(threat, steps=steps, rel_step=1.0, start=Zero())


def MIFGSM(threat: Threat = LINF, steps: int = 10, decay: float = 1.0) -> PGD:
    """BIM along an accumulated gradient (Dong et al. 2018)."""
    return PGD(threat, steps=steps, rel_step=1.0, start=Zero(), rule=Momentum(decay))


def ILCM(threat: Threat = LINF, steps: int = 10) -> PGD:
    """BIM towards the class least likely on the clean image (Kurakin et al. 2017)."""
    return PGD(threat, steps=steps, rel_step=1.0, start=Zero(), label="least_likely")


def NIFGSM(threat: Threat = LINF, steps: int = 10, decay: float = 1.0) -> PGD:
    """MI-FGSM with the gradient taken a step ahead (Lin et al. 2020)."""
    return PGD(threat, steps=steps, rel_step=1.0, start=Zero(), rule=Nesterov(decay))


def SINIFGSM(threat: Threat = LINF, steps: int = 10, decay: float = 1.0, copies: int = 5) -> PGD:
    """SI-NI-FGSM: NI-FGSM on the mean over scaled copies of the image (Lin et al. 2020)."""
    return replace(NIFGSM(threat, steps, decay), transforms=(ScaleInvariant(copies),))


def DIM(
    threat: Threat = LINF, steps: int = 10, decay: float = 1.0, p: float = 0.5, low: float = 0.9
) -> PGD:
    """M-DI2-FGSM: MI-FGSM through random resizing and padding (Xie et al. 2019)."""
    return replace(MIFGSM(threat, steps, decay), transforms=(DiverseInput(p, low),))


def TIM(threat: Threat = LINF, steps: int = 10, decay: float = 1.0, size: int = 15) -> PGD:
    """TI-MI-FGSM: MI-FGSM along gradients blurred by a Gaussian (Dong et al. 2019)."""
    return replace(MIFGSM(threat, steps, decay), transforms=(TranslationInvariant(size),))


def MultiTargetedPGD(threat: Threat = LINF, steps: int = 20, n: int = 9) -> MultiTargeted:
    """PGD on z_t - z_y for each of the n most likely wrong classes t (Gowal et al. 2019)."""
    return MultiTargeted(PGD(threat, steps=steps, loss=targeted_margin, label="ranked"), n)
