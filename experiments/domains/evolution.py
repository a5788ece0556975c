"""Evolution strategies (Salimans et al. 2017): the gradient of a mean over random changes."""

from functools import partial

import jax
import jax.numpy as jnp


def evolved(fitness, key, size, generations, pairs, sigma=0.3, rate=1.5):
    """Numbers (size,) of large `fitness(numbers, key, generation)`, which only ranks them."""

    def step(mean, now):
        key_noise, key_fitness = jax.random.split(now[1])
        noise = jax.random.normal(key_noise, (pairs, size))
        both = mean[None] + sigma * jnp.concatenate([noise, -noise])
        found = jax.vmap(lambda numbers: fitness(numbers, key_fitness, now[0]))(both)
        rank = found.argsort().argsort() / (2 * pairs - 1) - 0.5
        return mean + rate * (rank[:pairs] - rank[pairs:]) @ noise / pairs, None

    key_first, key_steps = jax.random.split(key)
    first = sigma * jax.random.normal(key_first, (size,))
    now = jnp.arange(generations), jax.random.split(key_steps, generations)
    return jax.jit(partial(jax.lax.scan, step))(first, now)[0]
