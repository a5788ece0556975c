"""Functions of `jax.export`, which have no rule for `jax.vmap`, as models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from jax.custom_batching import custom_vmap

from robustjax.checks import checked


@checked
def from_exported(exported: export.Exported) -> Callable[[jax.Array], Any]:
    """An exported or deserialised network as a model: all that is mapped becomes one batch.

    Args:
      exported: a function of images (B, H, W, C) alone, weights inside, whose B is symbolic. After
        `deserialize` it has a gradient if it was serialised with `vjp_order=1`.

    Raises:
      ValueError: it takes something else, or one batch size only.

    >>> shape = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 2, 1, 1"), "float32")
    >>> exported = jax.export.export(jax.jit(lambda images: images[:, :, 0, 0]))(shape)
    >>> logits_fn = rj.models.from_exported(exported)
    >>> attack, images = rj.attacks.FGSM(rj.threats.Linf(0.125)), np.full((1, 2, 1, 1), 0.5, "f")
    >>> rj.attacks.perturb(attack, logits_fn, jax.random.key(0), images, [0]).ravel().tolist()
    [0.375, 0.625]
    """
    if len(exported.in_avals) != 1 or len(exported.in_avals[0].shape) != 4:
        shapes = [aval.shape for aval in exported.in_avals]
        raise ValueError(
            "export a function of images (B, H, W, C) alone, with its weights inside; this one "
            f"takes arrays of shapes {shapes}"
        )
    (images,) = exported.in_avals
    if not export.is_symbolic_dim(images.shape[0]):
        raise ValueError(
            f"it was exported for a batch of {images.shape[0]} images; export it for any, with "
            "jax.export.symbolic_shape('b, ...')"
        )
    forward = _on_one_batch(exported.call)
    backward = _on_one_batch(lambda *given: exported.vjp().call(*given)[0])

    @jax.custom_vjp
    def model(images):
        return forward(images)

    def pull(x, cotangent):
        return (backward(x, *jax.tree.leaves(cotangent)),)

    model.defvjp(lambda x: (forward(x), x), pull)
    return lambda x: model(jnp.asarray(x, images.dtype))


def _on_one_batch(function: Callable) -> Callable:
    """A function of arrays (B, ...) that under `jax.vmap` sees one larger B."""
    mapped = custom_vmap(function)

    @mapped.def_vmap
    def _(size, is_mapped, *given):
        whole = jax.tree.map(
            lambda a, own: a if own else jnp.broadcast_to(a[None], (size, *a.shape)),
            given,
            tuple(is_mapped),
        )
        flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), whole)
        output = jax.tree.map(lambda a: a.reshape(size, -1, *a.shape[1:]), mapped(*flat))
        return output, jax.tree.map(lambda a: True, output)

    return mapped
