"""Run one example to its end, and count what the model was really asked."""

import jax
import numpy as np

from robustjax.attacks._core.iterative import Example


def counting(logits_fn):
    """-> run(attack, key, x, y) -> (image, final state, all images that the model was asked)."""
    asked = []

    def counted(x):
        jax.debug.callback(lambda z: asked.append(np.asarray(z)), x)
        return logits_fn(x)

    @jax.jit
    def run(attack, key, x, y):
        example = Example(key, x, y)
        state = jax.lax.while_loop(
            lambda state: ~attack.done(state),
            lambda state: attack.step(counted, example, state),
            attack.begin(counted, example),
        )
        return attack.result(example, state), state

    def run_counted(attack, key, x, y):
        asked.clear()
        image, state = run(attack, key, x, y)
        jax.effects_barrier()
        return np.asarray(image), state, np.stack(asked)

    return run_counted
