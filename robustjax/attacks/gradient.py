"""Projected gradient ascent in one loop: FGSM, R+FGSM, BIM, PGD, MI-FGSM, ILCM, Adam-PGD.

An attack is a threat (which ball) x a start x a step rule x a loss x a label source. The model's
state rides in the loop's carry, so training can commit BatchNorm statistics at every attack step.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from robustjax.attacks.rules import Adam, Momentum, Steepest
from robustjax.attacks.starts import Corner, Gaussian, Uniform, Zero
from robustjax.config import check_number, config, static
from robustjax.losses import GIVEN_TARGETS, cross_entropy
from robustjax.threats import L0, L1, L2, Linf
from robustjax.typing import LogitsFn, Loss, Model, Threat

LINF = Linf()

Label = Literal["true", "predicted", "least_likely", "random"]


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
      loss: (output, target) -> scalar, maximised.
      label: what the loss compares the output with when no target is given: the true label, the
        model's own prediction on the clean image (no label leaking), or a target class to go
        towards: the least likely one (Kurakin et al. 2017) or a uniformly random wrong one. All but
        'true' read the output as logits.
      targeted: descend instead of ascend on a target that is given.

    References: Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018.

    Guarantees:
      The result lies in the ball and in [0, 1].
      A zero gradient moves nothing and makes no NaN.
      No gradient flows back through the result.
    """

    threat: Linf | L2 | L1 | L0 = LINF
    steps: int = 10
    step_size: float | None = None
    rel_step: float = 2.5
    start: Zero | Uniform | Gaussian | Corner = Uniform()
    rule: Steepest | Momentum | Adam = Steepest()
    loss: Loss = static(cross_entropy)
    label: Label = static("true")
    targeted: bool = static(False)

    def __post_init__(self):
        check_number("steps", self.steps)
        check_number("step_size", self.step_size)
        check_number("rel_step", self.rel_step)
        if self.label not in get_args(Label):
            raise ValueError(f"label must be one of {get_args(Label)}, got {self.label!r}")

    @property
    def size(self) -> jax.Array:
        """The length of one step, in the norm of the threat."""
        if self.step_size is None:
            return self.rel_step * self.threat.eps / jnp.maximum(self.steps, 1)
        return jnp.asarray(self.step_size)

    @property
    def reach(self) -> jax.Array:
        """How far all steps together travel, in units of eps; a random start may lead anywhere."""
        return self.steps * self.size / jnp.maximum(self.threat.eps, 1e-30)

    def __call__(
        self,
        logits_fn: LogitsFn,
        key: jax.Array,
        x: jax.Array,
        y: jax.Array,
        target: Any = None,
        x_start: jax.Array | None = None,
    ) -> jax.Array:
        """`ascend` for a model without state."""
        return self.ascend(_stateless(logits_fn), (), key, x, y, target, x_start)[0]

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
        """
        key_start, key_target = jax.random.split(key)
        if target is None:
            target = self.aim(lambda z: model(state, z)[0], key_target, x, y)
        if x_start is None:
            x_start = self.start(key_start, x, self.threat)
        else:
            x_start = self.threat.project(x_start, x)
        size = self.size

        def step(k, carry):
            x_adv, memory, state = carry
            gradient, state = self._gradient(model, state, x_adv, target)
            x_adv, memory = self.rule(memory, gradient, x_adv, x, self.threat, size, k / self.steps)
            return x_adv, memory, state

        carry = (x_start, self.rule.init(x), state)
        x_adv, _, state = jax.lax.fori_loop(0, self.steps, step, carry)
        return jax.lax.stop_gradient(x_adv), state

    def check_aim(self) -> None:
        """Raise ValueError if the attack cannot do without a target that the caller gives."""
        if self.loss in GIVEN_TARGETS:
            raise ValueError(
                f"the loss {self.loss.__name__} needs a target, {GIVEN_TARGETS[self.loss]}: pass "
                "one, or choose a loss of the label: cross_entropy, margin or dlr"
            )
        if self.targeted and self.label == "true":
            raise ValueError(
                "a targeted attack needs a target: pass one, or set label to 'least_likely' or "
                "'random'"
            )

    def aim(self, logits_fn: LogitsFn, key: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        """The label that `loss` is given when the caller gives no target."""
        self.check_aim()
        if self.label == "true":
            return y
        logits = logits_fn(x)
        if self.label == "predicted":
            return jnp.argmax(logits)
        if self.label == "least_likely":
            return jnp.argmin(logits)
        return (y + jax.random.randint(key, (), 1, logits.size)) % logits.size

    def gradient(self, logits_fn: LogitsFn, x: jax.Array, target: Any) -> jax.Array:
        """The direction of ascent at `x`: the loss's gradient, negated for a targeted attack."""
        return self._gradient(_stateless(logits_fn), (), x, target)[0]

    def _gradient(self, model, state, x, target):
        sign = -1 if self.targeted or self.label in ("least_likely", "random") else 1

        def objective(x):
            output, new_state = model(state, x)
            return sign * self.loss(output, target), new_state

        # Under vmap with axis 'example' this is the gradient of the summed loss over the batch:
        # collectives inside a BatchNorm transpose to sums over the examples.
        return jax.grad(objective, has_aux=True)(x)


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


def _stateless(logits_fn: LogitsFn) -> Model:
    return lambda state, x: (logits_fn(x), state)
