"""Curriculum adversarial training: attacks that grow stronger (Cai et al., IJCAI 2018)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks import PGD
from robustjax.attacks.stops import After
from robustjax.config import config, number, static
from robustjax.threats import radius
from robustjax.training.methods.base import Action, Batch, Crafted, Method
from robustjax.training.methods.pgd_at import ATTACK, BNMode, OnAttack
from robustjax.training.net import Net
from robustjax.typing import Cost


@config
class Curriculum(OnAttack):
    """min E CE(z(x_adv), t) on batches of k + 1 equal slices, slice j attacked with j steps.

    k starts at 0, natural training. When the validation score has found no new best for `patience`
    epochs, training resumes from the best checkpoint with k + 1.

    Differences from the paper: all slices share one masked attack, and so their statistics where
    `bn` is not 'running'; the length of steps, 2 eps / j times a number from U(1, 10 / j), is drawn
    for each image, not for each slice; k does not wait for a training accuracy of 0.9; the score is
    the run's own, not one under attacks of strength k.

    Attributes:
      attack: its threat, start and rule; the strength sets the number of steps and their length.
      bn: 'commit', as in the authors' code.
      strength: k, at the beginning.
      strongest: the largest k.
      patience: epochs.

    References: Cai et al., "Curriculum adversarial training", IJCAI 2018, algorithm 1, with the
      batch mixing of section 3.3.

    >>> method, action = Curriculum(patience=2).control([0.5, 0.4, 0.4])
    >>> method.strength, action
    (1, 'rollback')
    """

    attack: PGD = ATTACK
    bn: BNMode = static(default="commit")
    strength: int = number(default=0)
    strongest: int = number(default=7)
    patience: int = number(default=10, low=1)

    @property
    @override
    def craft_cost(self) -> Cost:
        # The longest slice's: all of them wait for it.
        return Cost(self.strength, self.strength)

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        steps = self.steps(*net.position(len(batch.label)))
        draws = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, LENGTH)))(keys)
        most = jnp.maximum(steps, 1)
        factor = 1 + draws * (10 / most - 1)
        attack = dataclasses.replace(
            self.attack,
            steps=self.strength,
            step_size=2 * radius(self.attack.threat) / most * factor,
            stop=dataclasses.replace(After(), steps=steps),
        )
        x_adv, stats = net.craft(attack, params, keys, batch.image, batch.label, mode=self.bn)
        attacked = (steps > 0).reshape(-1, 1, 1, 1)
        return Crafted(jnp.where(attacked, x_adv, batch.image), stats)

    def steps(self, position: jax.Array, size: int) -> jax.Array:
        """The number of steps at each position of a batch of this size."""
        slice_ = jnp.maximum(size // (self.strength + 1), 1)
        return jnp.minimum(position // slice_, self.strength)

    @override
    def control(self, scores: Sequence[float]) -> tuple[Method, Action]:
        strength, best, waited, action = self.strength, -1.0, 0, "continue"
        for score in scores:
            best, waited = (score, 0) if score > best else (best, waited + 1)
            action = "continue"
            if waited >= self.patience and strength < self.strongest:
                strength, best, waited, action = strength + 1, -1.0, 0, "rollback"
        return dataclasses.replace(self, strength=strength), action


LENGTH = 3
"""Folded into an example's key for the length of its steps; no attack folds in this number."""
