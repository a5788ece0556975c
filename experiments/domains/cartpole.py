"""CartPole: what an attacker of the observations does to the return, and a policy trained on it.

Command:   python experiments/domains/cartpole.py
Hardware:  one core, two minutes.
Claim:     PGD on the observations ends episodes that noise of the same size does not end; a policy
           evolved under attack keeps its return for larger changes.
Measured:  results/domains/cartpole.json and .png.
Source:    Zhang et al. (SA-MDP), NeurIPS 2020: the state is right, what the policy sees of it is
           not. CartPole: Barto, Sutton & Anderson (1983), with the constants and limits of Gym.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import frame
import jax
import jax.numpy as jnp
from evolution import evolved
from jax.random import clone

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.threats import Linf

LIMIT, EPISODES, HIDDEN = 500, 64, 8
GENERATIONS, PAIRS, ROLLOUTS, WARMUP = 100, 24, 4, 40
EPS = (0.0, 0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)  # in units of SPREAD
TRAINING_EPS = 0.3
SPREAD = jnp.array([1.0, 1.0, 0.1, 1.0])  # m, m/s, rad, rad/s: about what good policies visit
ATTACK = PGD(Linf(bounds=None), steps=5, loss=losses.margin)
ATTACKS = ("flip", "left", "right")


def dynamics(state, push):
    """The next state (4,) of Gym's CartPole after 20 ms; `push` is 0 (left) or 1 (right)."""
    _, v, angle, spin = state
    force, sin, cos = 20.0 * push - 10, jnp.sin(angle), jnp.cos(angle)
    pull = (force + 0.05 * spin**2 * sin) / 1.1
    turn = (9.8 * sin - cos * pull) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
    return state + 0.02 * jnp.stack([v, pull - 0.05 * turn * cos / 1.1, spin, turn])


def policy(weights, seen):
    """Observation, in any shape -> two logits; the larger one is done."""
    first, bias, last = jnp.split(weights, [4 * HIDDEN, 5 * HIDDEN])
    hidden = jnp.tanh(first.reshape(HIDDEN, 4) @ (seen.reshape(4) / SPREAD) + bias)
    return last.reshape(2, HIDDEN) @ hidden


def seen_by(kind, attack, weights, key, state):
    """What the policy sees of the state: it, noise, or the result of an attack."""
    logits_fn = partial(policy, weights)
    x = state.reshape(4, 1, 1)  # a threat with an eps per feature reads (H, W, C)
    action = jnp.argmax(logits_fn(x))
    if kind in ("none", "noise"):
        noise = attack.threat.eps * jax.random.rademacher(key, x.shape, x.dtype)
        return x + noise * (kind == "noise")
    if kind == "flip":  # away from the action that the policy would take
        return attack(logits_fn, key, x, action)
    return attack(logits_fn, key, x, action, ("left", "right").index(kind))  # always there


def episode(kind, attack, weights, key):
    """The return (): steps until the cart is out or the pole is down."""
    key_start, key_steps = jax.random.split(key)

    def step(carry, time):
        state, alive = carry
        seen = seen_by(kind, attack, weights, jax.random.fold_in(key_steps, time), state)
        state = dynamics(state, jnp.argmax(policy(weights, seen)))
        alive &= (jnp.abs(state[0]) < 2.4) & (jnp.abs(state[2]) < 0.2095)
        return (jnp.where(alive, state, 0), alive), alive

    start = jax.random.uniform(key_start, (4,), minval=-0.05, maxval=0.05)
    return jax.lax.scan(step, (start, True), jnp.arange(LIMIT))[1].sum()


def worst(kinds, attack, weights, keys):
    """The mean return of episodes, each under the kind of attack that it stands least."""
    runs = [jax.vmap(partial(episode, k, attack, weights))(clone(keys)) for k in kinds]
    return jnp.stack(runs).min(0).mean()


def at(eps):
    """The attack with this radius, in units of SPREAD."""
    return replace(ATTACK, threat=Linf(eps * SPREAD.reshape(4, 1, 1), bounds=None))


def measured(seed):
    (key_train, key_runs), found = jax.random.split(jax.random.key(seed)), {}

    @partial(jax.jit, static_argnums=0)
    def returns(kinds, weights, eps, key):
        return worst(kinds, at(eps), weights, jax.random.split(key, EPISODES))

    def fitness(kinds, weights, key, generation):
        attack = at(TRAINING_EPS * jnp.minimum(generation / WARMUP, 1.0))
        return worst(kinds, attack, weights, jax.random.split(key, ROLLOUTS))

    for name, kinds in (("plain", ("none",)), ("under attack", ("none", *ATTACKS))):
        weights = evolved(partial(fitness, kinds), clone(key_train), 7 * HIDDEN, GENERATIONS, PAIRS)
        for kind, seen in (("noise", ("noise",)), ("attack", ATTACKS)):
            runs = [returns(seen, weights, eps, clone(key_runs)) for eps in EPS]
            found[f"{name}, {kind}"] = jnp.stack(runs)
    return found


def main() -> dict:
    return {"eps": EPS, "training_eps": TRAINING_EPS, "return": frame.over_seeds(measured)}


def draw(results: dict, png: Path) -> None:
    found, unit = results["numbers"]["return"], "eps (1 m, 1 m/s, 0.1 rad, 1 rad/s)"
    kinds = {"noise": ("noise", frame.RANDOM), "attack": ("worst of three PGD", frame.ATTACK)}
    titles = {"plain": "Plain policy", "under attack": f"Trained under attack, eps {TRAINING_EPS}"}
    lines = {n: {f"{n}, {k}": line for k, line in kinds.items()} for n in titles}
    panels = [frame.Panel(titles[n], unit, EPS, found, lines[n]) for n in titles]
    frame.curves(png, "return", panels, LIMIT)


if __name__ == "__main__":
    frame.run(__file__, __doc__, main, draw)
