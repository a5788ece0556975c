"""What the TPU compiler makes of a PGD step: copies, padding, and what batch normalisation costs.

    JAX_PLATFORMS=cpu python experiments/scale/layout.py [--network wrn-10-2] [--topology v5e:1x1x1]

Hardware: two CPU cores and libtpu; minutes a network.

One step of crafting (a forward pass and the image's gradient, running statistics, bfloat16) for
several batch sizes, and for the same network without the arithmetic of batch normalisation: nothing
that folds it into convolutions can do better than that. Cycles are the compiler's own estimate.
"""

import functools
import re

import jax
import jax.numpy as jnp
import rows
from flax import linen as nn

from robustjax import losses, models, parallel
from robustjax.models.nets import layers
from robustjax.scale import slice_of
from robustjax.scale.hlo import parse
from robustjax.scale.loops import Walk
from robustjax.scale.program import Memory, moved, read

RESULT = rows.RESULTS / "layout.json"
SHAPE, CLASSES = (32, 32, 3), 10


def lowered(network: str, batch: int, topology: str) -> str:
    """The compiled text of the gradient of the loss by the images."""
    model = {"name": network, "dtype": "bfloat16", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    module = models.network(model, CLASSES)
    variables = jax.eval_shape(lambda: models.init(module, jax.random.key(0), SHAPE))

    def gradient(variables, images, labels):
        def total(images):
            logits = models.apply(module, variables)[0](images)
            return jax.vmap(losses.cross_entropy)(logits, labels).sum()

        return jax.grad(total)(images)

    where = slice_of(topology)
    run = parallel.data_parallel(gradient, (None, 0, 0), 0, devices=where.devices)
    rows = (len(where.devices), batch)
    images = jax.ShapeDtypeStruct((*rows, *SHAPE), jnp.float32)
    return run.lower(variables, images, jax.ShapeDtypeStruct(rows, jnp.int32)).compile().as_text()


class BiasAlone(nn.Module):
    """Batch normalisation as it were if its scale were part of the convolution before it."""

    @nn.compact
    def __call__(self, x, bn):
        shape = (x.shape[-1],)
        self.param("scale", nn.initializers.ones, shape)
        self.variable("batch_stats", "mean", jnp.zeros, shape)
        self.variable("batch_stats", "var", jnp.ones, shape)
        return x + self.param("bias", nn.initializers.zeros, shape).astype(x.dtype)


def measure(network: str, batch: int, topology: str) -> dict:
    """Counts and bytes of a program, of one image where they grow with the batch."""
    text = lowered(network, batch, topology)
    program, module = read(text, Memory(0, 0, 0)), parse(text)
    runs = list(Walk(module).runs())

    def bytes_of(run):
        return moved(run, module)

    whole = [run for run in runs if not run.fused]
    copies = [run for run in whole if run.instruction.opcode in ("copy", "transpose", "reshape")]
    convolutions = [run for run in runs if run.instruction.opcode == "convolution"]
    arrays = [a for run in convolutions for a in run.instruction.arrays]
    lanes = re.compile(r"^(\d+)")
    return {
        "instructions": len([run for run in whole if bytes_of(run)]),
        "convolutions": len(convolutions),
        "fused_multiplies": program.counts.get("fused multiply", 0),
        "copies": len(copies),
        "copied_kib_per_image": round(sum(map(bytes_of, copies)) / batch / 1024, 1),
        "traffic_kib_per_image": round(program.traffic / batch / 1024, 1),
        "kilocycles_per_image": round(program.cycles / batch / 1000, 2),
        "padding_of_convolutions": round(
            sum(a.padded for a in arrays) / sum(a.bytes for a in arrays), 2
        ),
        "batch_in_lanes": sum(
            bool(m) and int(m[1]) == a.sides.index(batch) if batch in a.sides else False
            for a in arrays
            for m in [lanes.match(a.layout)]
        ),
    }


def main() -> None:
    parser = rows.parser(__doc__)
    parser.add_argument("--network", default="wrn-10-2")
    parser.add_argument("--topology", default="v5e:1x1x1")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 64, 128, 256])
    options = parser.parse_args()
    rows.start(RESULT, options)
    usual = layers.BatchNorm.__call__
    for batch in options.batches:
        for folded in (False, True):
            layers.BatchNorm.__call__ = BiasAlone.__call__ if folded else usual
            name = f"{options.network} {options.topology} {batch}{' folded' if folded else ''}"
            about = options.network, batch, options.topology
            rows.add(RESULT, name, functools.partial(measure, *about))


if __name__ == "__main__":
    main()
