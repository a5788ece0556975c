"""Many short ascents from different starts, as many as an image deserves."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example
from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks._gradient.short_ascents import AscentsState, ShortAscents
from robustjax.attacks.starts import Uniform
from robustjax.config import config, number, static
from robustjax.losses import cross_entropy, targeted_dlr
from robustjax.threats import Linf
from robustjax.typing import Scalar, Threat

CLEAN, CLASS, LABEL = range(3)
"""The kinds of ascents."""


def kind_of(runs: jax.Array) -> jax.Array:
    """The kind of the ascent that follows so many: two to a class, then one from the label."""
    return jnp.where(runs == 0, CLEAN, jnp.where(runs % 3 == 0, LABEL, CLASS))


class Visits(NamedTuple):
    """What `AdaptiveRestarts` remembers.

    Attributes:
      gaps: (K,) the largest z_j - z_y of any image.
      counts: (K,) the ascents that went to each class.
      aim: () the class to which the present ascent goes.
    """

    gaps: jax.Array
    counts: jax.Array
    aim: jax.Array


@config
class AdaptiveRestarts(ShortAscents):
    """Short ascents that differ in start and objective; an image far from the boundary has few.

    An ascent takes `steps` gradients; its steps fall from 2 eps to 0 like a cosine. The first one
    begins at the clean image and climbs the margin. The others begin at uniform points of the ball:
    two climb the targeted DLR loss of a class each, the next one the cross-entropy, and so on.

    The class is the one, among those visited least, whose logit has come nearest to the label's in
    all ascents so far; this takes no model call. A class that the caller gives is the only one, and
    all objectives lead there.

    An image has 2 + (runs - 2) (1 - h)^patience ascents, where h is the margin that is left,
    divided by that of the clean image: most of the budget goes to images near the boundary. On a
    `Randomized` model the margin of a lucky draw counts, but no draw ends the attack.

    Args:
      threat: the ball.
      steps: of each ascent.
      runs: the most ascents of an image.
      patience: the larger it is, the fewer ascents have images that are far from the boundary; 0
        gives all images all ascents.
      eot: number of draws of a `Randomized` model over which the outputs of each step are averaged.
      success: (output, label) -> bool.

    References:
      Liu et al., "Practical evaluation of adversarial robustness via adaptive auto attack", 2022:
        restarts along a cosine, targets ordered by statistics, and discarding, there by the rank of
        an image in its batch, here by its own margins. Their starts along random logits are left
        out: ascents to a class found more at the same cost.

    Guarantees:
      The result lies in the ball and in the box.
      The result does not depend on the other images.
      It takes as many forward as backward passes, at most steps * runs.

    Two pixels that are the logits; the attack ends at its first success:

    >>> x = jnp.array([[[0.75], [0.625]]])
    >>> attack, key = rj.attacks.AdaptiveRestarts(rj.threats.Linf(0.125)), jax.random.key(0)
    >>> int(jnp.argmax(attack(jnp.ravel, key, x, 0)))
    1
    """

    threat: Threat = Linf()
    steps: int = number(default=20, low=1)
    runs: int = number(default=15, low=2)
    patience: float = number(default=4.0)
    eot: int = number(default=1, low=1, static=True)
    success: Success = static(default=fooled)

    @property
    @override
    def runs_between(self) -> tuple[Scalar, Scalar]:
        return 2, self.runs

    @override
    def remember(self, example: Example, nothing: jax.Array) -> Visits:
        return Visits(nothing, jnp.zeros(nothing.shape, jnp.int32), jnp.int32(0))

    @override
    def look(
        self, example: Example, state: AscentsState, logits: jax.Array, value: jax.Array
    ) -> Visits:
        gaps = jnp.fmax(state.memory.gaps, logits - logits[example.y])
        return state.memory._replace(gaps=gaps)

    @override
    def restart(self, example: Example, state: AscentsState) -> AscentsState:
        key = jax.random.fold_in(jax.random.fold_in(example.key, 0), state.runs)
        start = Uniform()(key, example.x, self.threat)
        memory = self._aim(example, state.memory, kind_of(state.runs))
        return state._replace(x_adv=start, memory=memory)

    def _aim(self, example: Example, memory: Visits, kind: jax.Array) -> Visits:
        """The memory with the class of an ascent of this kind."""
        if example.target is not None:
            return memory._replace(aim=jnp.asarray(example.target, jnp.int32))
        classes = jnp.arange(memory.counts.size)
        counts = jnp.where(classes == example.y, jnp.iinfo(jnp.int32).max, memory.counts)
        gaps = jnp.where(counts == jnp.min(counts), jnp.nan_to_num(memory.gaps), -jnp.inf)
        aim = jnp.argmax(gaps).astype(jnp.int32)
        visited = (kind == CLASS) & (classes == aim)
        return memory._replace(aim=aim, counts=memory.counts + visited)

    @override
    def direction(self, example: Example, state: AscentsState, logits: jax.Array) -> jax.Array:
        y, aim, kind = jnp.asarray(example.y), state.memory.aim, kind_of(state.runs)

        def label(z):
            return cross_entropy(z, y) if example.target is None else -cross_entropy(z, aim)

        return jnp.select(
            [kind == CLASS, kind == LABEL],
            [jax.grad(targeted_dlr)(logits, (y, aim)), jax.grad(label)(logits)],
            super().direction(example, state, logits),
        )
