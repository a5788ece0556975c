"""C&W-wb: the smallest change that reaches a class and is accepted by the detector."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example, MinimumNorm
from robustjax.attacks._core.success import prediction
from robustjax.attacks._minimum_norm import binary_search, penalty
from robustjax.attacks._minimum_norm.carlini_wagner import CarliniWagnerL2
from robustjax.attacks._minimum_norm.penalty import StartAt
from robustjax.attacks.targets import Random, Target, check_chosen_once
from robustjax.config import config, number
from robustjax.losses import margin
from robustjax.threats import L2
from robustjax.typing import Cost, LogitsFn


class CarliniWagnerWBState(NamedTuple):
    """The state of `CarliniWagnerWB`.

    Attributes:
      hiding: () whether it is in the second stage.
      target: () the class it goes to.
      origin: (H, W, C), the start of every round of this stage.
      stage: the state of `CarliniWagnerL2` in that stage.
    """

    hiding: jax.Array
    target: jax.Array
    origin: jax.Array
    stage: penalty.PenaltyState


@config
class CarliniWagnerWB(MinimumNorm):
    """min_z ||z - x||_2^2 + c (f1(z) + f2(z)), by Adam in the space of tanh, towards a class t.

    f1 = max(0, max_{i != t} h_i(z) - h_t(z) + confidence), f2 = max(0, -score(z)), where the model
    is `with_score(fitted, threshold)`: f2 = 0 where the detector accepts. Two stages, each with a
    binary search over c: the first leaves out f2, the second begins at the result of the first. Any
    detector will do. In the paper f2 uses the K-density with the kernels of class t; ours uses the
    predicted class, as the detector does, and a success predicts t. The paper's threshold is the
    median log-density of the training images of t: give `with_score` one for each class.

    The paper's code measures the distortion of the second stage from the result of the first, and
    compares its softmax with the confidence of 5, which it cannot reach; here the distortion is
    from the clean image, and success is tested on the logits. The paper takes 10,000 steps (5,000
    in the first stage); here the step size falls to zero, see `CarliniWagnerL2`.

    Args:
      threat: L2; with eps = inf every success counts.
      confidence: the lead that the target class needs, in units of the logits.
      steps: of one round; the first stage takes half as many.
      step_size: of the first step of a round.
      rounds, constant: of the second stage's binary search, and its first c.
      first_rounds, first_constant: of the first stage.
      target: the class it goes to when the caller gives none: `attacks.targets`.

    References: Pang et al., "Towards robust detection of adversarial examples", 2018, Sec. 4.4 and
    code; after Carlini & Wagner, "Adversarial examples are not easily detected: bypassing ten
    detection methods", 2017.

    Guarantees:
      The result is the smallest change found that reaches the target and is accepted.
      If nothing accepted reaches the target, it is the image with the lowest f2 that reaches it.
      If nothing reaches the target, it is the clean image.

    Two pixels are the logits, and the third is the score:

    >>> def watched(x):
    ...     return {"logits": jnp.ravel(x)[:2], "score": jnp.ravel(x)[2] - 0.625}
    >>> attack = rj.detection.CarliniWagnerWB(confidence=0.0, steps=20, rounds=1, first_rounds=1)
    >>> attack, x = jax.jit(attack, static_argnums=0), jnp.array([[[0.75], [0.625], [0.5]]])
    >>> bool(rj.detection.accepted_and_wrong(watched(attack(watched, jax.random.key(0), x, 0)), 0))
    True
    """

    threat: L2 = L2(float("inf"))
    confidence: float = number(default=5.0)
    steps: int = number(default=200, low=2)
    step_size: float = number(default=0.05)
    rounds: int = number(default=9, low=1)
    constant: float = number(default=100.0, low=binary_search.MIN_CONSTANT)
    first_rounds: int = number(default=3, low=1)
    first_constant: float = number(default=10.0, low=binary_search.MIN_CONSTANT)
    target: Target = Random()

    def __post_init__(self):
        check_chosen_once(self)
        if not self.target.towards:
            raise ValueError(
                f"target: {type(self).__name__} goes to a class, so choose Random(), LeastLikely() "
                f"or Ranked(), not {type(self.target).__name__}()"
            )

    @override
    def begin(self, logits_fn: LogitsFn, example: Example) -> CarliniWagnerWBState:
        output, target = logits_fn(example.x), example.target
        if target is None:
            key = jax.random.fold_in(example.key, 0)
            target = self.target(key, example.x, example.y, logits_fn)
        first = jnp.asarray(False), jnp.asarray(target), example.x
        stage = self._stage(False).begin(*self._task(lambda _: output, example, *first))
        # Nothing is left to do where the clean image is of the class and accepted.
        enough = (stage.size == 0) & (output["score"] >= 0)
        return CarliniWagnerWBState(enough, *first[1:], stage)

    @override
    def step(
        self, logits_fn: LogitsFn, example: Example, state: CarliniWagnerWBState
    ) -> CarliniWagnerWBState:
        stage, place = self._stage(state.hiding), (state.hiding, state.target, state.origin)
        now = stage.step(*self._task(logits_fn, example, *place), state.stage)
        search = binary_search.begin(jnp.asarray(self.constant, example.x.dtype))
        enter = CarliniWagnerWBState(
            hiding=jnp.asarray(True),
            target=state.target,
            origin=now.best,
            stage=now._replace(
                walk=stage.start(now.best, example.x, search.constant),
                search=search,
                best=example.x,
                size=jnp.inf,
                spare=example.x,
                lack=jnp.inf,
            ),
        )
        over = ~state.hiding & stage.done(now)
        return jax.tree.map(lambda a, b: jnp.where(over, a, b), enter, state._replace(stage=now))

    @override
    def done(self, state: CarliniWagnerWBState) -> jax.Array:
        return state.hiding & self._stage(state.hiding).done(state.stage)

    @override
    def result(self, example: Example, state: CarliniWagnerWBState) -> jax.Array:
        found = state.stage
        return jnp.where(jnp.isfinite(found.size), found.best, found.spare)

    @override
    def broken(self, state: CarliniWagnerWBState) -> jax.Array:
        return state.stage.broken

    @override
    def spent(self, state: CarliniWagnerWBState) -> Cost:
        return Cost(1 + state.stage.steps, state.stage.steps)

    def _stage(self, hiding: jax.Array | bool) -> CarliniWagnerL2:
        def choose(second, first):
            return jnp.where(hiding, second, first)

        return dataclasses.replace(
            CarliniWagnerL2(self.threat, loss=hinges, success=reached, step_size=self.step_size),
            steps=choose(self.steps, self.steps // 2),
            rounds=choose(self.rounds, self.first_rounds),
            constant=choose(self.constant, self.first_constant),
        )

    def _task(self, logits_fn, example, hiding, target, origin):
        """(model, example) as a stage sees them."""

        def model(z):
            output = logits_fn(z)
            logits, score = output["logits"], output["score"]
            own = jnp.arange(logits.size) == target
            behind = logits - jnp.where(own, self.confidence, 0)
            return {"logits": behind, "score": jnp.where(hiding, score, 0)}

        given = StartAt(origin, target)
        return model, example._replace(y=target, target=given)


def hinges(output: Any, target: jax.Array) -> jax.Array:
    """f1 + f2: zero where the target class is ahead and the score is accepted."""
    return jnp.maximum(margin(output, target), 0) + jnp.maximum(-output["score"], 0)


def reached(output: Any, target: jax.Array) -> jax.Array:
    """The prediction is the target class."""
    return prediction(output) == target
