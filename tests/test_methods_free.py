"""Free training: a replay moves weights and images by one gradient."""

import jax
import jax.numpy as jnp
import numpy as np
from tiny import flat_net, fresh, keys, on_one_device

from robustjax import losses
from robustjax.threats import Linf
from robustjax.training import Free, Natural

BALL = Linf(0.05)


def updated(method, visits):
    """The states after visits of one batch by descent whose rate is the progress."""
    params, net, batch = flat_net(method)
    state = fresh(method).replace(params=params, stats={}, slot=batch.slot)

    def descend(state, grads, anchor, progress):
        moved = jax.tree.map(lambda w, g: w - progress * g, anchor, grads)
        return state.replace(params=moved)

    @jax.jit
    def visit(state):
        given = batch.replace(slot=state.slot)
        new, aux = on_one_device(lambda: method.update(net, descend, state, given, keys()))
        return new.replace(slot=aux.slot)

    states = [state]
    for _ in range(visits):
        states.append(visit(states[-1]))
    return states, net, batch


def test_the_first_update_without_a_replay_is_natural_training():
    free, natural = (updated(method, 1)[0][-1].params for method in (Free(replays=1), Natural()))
    np.testing.assert_allclose(free["kernel"], natural["kernel"], atol=1e-6)


def test_a_replay_moves_weights_and_images_by_one_gradient_and_the_rate_counts_it():
    states, net, batch = updated(Free(BALL, replays=2), 3)
    params, delta = states[0].params, jnp.zeros_like(batch.image)

    def loss(p, x):
        return jax.vmap(losses.cross_entropy)(net.logits(p, x), batch.label).mean()

    for progress in (0.25, 0.5):  # half of training is done when this step, the first, ends
        g, h = jax.grad(loss, (0, 1))(params, batch.image + delta)
        params = jax.tree.map(lambda w, g, r=progress: w - r * g, params, g)
        moved = batch.image + delta + BALL.eps * jnp.sign(h)
        delta = jax.vmap(BALL.project)(moved, batch.image) - batch.image
    np.testing.assert_allclose(states[1].params["kernel"], params["kernel"], atol=1e-5)
    np.testing.assert_allclose(states[1].slot, delta, atol=1e-6)
    for state in states[1:]:
        assert 0.9 * BALL.eps < np.abs(state.slot).max() <= BALL.eps * (1 + 1e-5)
    assert (states[3].slot != states[2].slot).any()
