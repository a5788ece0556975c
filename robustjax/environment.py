"""The machine and the software that a number was made with."""

from __future__ import annotations

import functools
import platform
from importlib import metadata

import jax

PACKAGES = ("robustjax", "jax", "jaxlib", "flax", "optax", "numpy")


def versions() -> dict[str, str | None]:
    """The version of Python and of every package that decides results; None: not installed.

    >>> rj.environment.versions()["jax"] == jax.__version__
    True
    """
    return {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()}


@functools.cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def devices() -> dict[str, str | int]:
    """What JAX computes on: 'platform', 'kind' and 'count'.

    >>> sorted(rj.environment.devices())
    ['count', 'kind', 'platform']
    """
    first = jax.devices()[0]
    return {"platform": first.platform, "kind": first.device_kind, "count": jax.device_count()}
