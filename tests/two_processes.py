"""One L2 step of PGD training on four shards; as a script, one of two processes that share them."""

import sys
from pathlib import Path

import jax
import numpy as np
from tiny import CLASSES, RECIPE, examples, fresh, module

from robustjax import parallel
from robustjax.attacks import PGD
from robustjax.threats import L2
from robustjax.training import PGDAT
from robustjax.training.loop import place
from robustjax.training.step import IN_AXES, OUT_AXES, make_step


def one_step(shards):
    """Weights after a step in which this process works on these of the four shards."""
    method = PGDAT(PGD(L2(0.3), steps=2))
    step = make_step(module(), RECIPE, 20, CLASSES)
    step = parallel.data_parallel(step, IN_AXES, OUT_AXES, donate_argnums=0)
    batch = jax.tree.map(lambda a: a[shards], parallel.split(examples(), 4))
    state, _ = step(place(fresh(method, 4)), method, jax.random.key(1), batch)
    return [np.asarray(a.addressable_data(0)) for a in jax.tree.leaves(state.params)]


if __name__ == "__main__":
    coordinator, process, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    parallel.start(coordinator, 2, process)
    assert jax.device_count() == 4 and jax.local_device_count() == 2
    np.savez(folder / f"{process}.npz", *one_step(np.arange(2) + 2 * process))
