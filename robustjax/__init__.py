"""Train, attack, evaluate and detect adversarial examples in JAX.

The public modules are attributes and load when they are first used, so that attacks and evaluation
come without Flax, and no import touches a device:

    import robustjax as rj
    x_adv = rj.attacks.perturb(rj.attacks.PGD(), logits_fn, key, images, labels)
"""

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustjax import (
        attacks,
        centers,
        config,
        data,
        detection,
        evaluation,
        losses,
        models,
        outputs,
        parallel,
        report,
        scale,
        spec,
        theory,
        threats,
        training,
        typing,
    )

    __version__: str

__all__ = [
    "attacks",
    "centers",
    "config",
    "data",
    "detection",
    "evaluation",
    "losses",
    "models",
    "outputs",
    "parallel",
    "report",
    "scale",
    "spec",
    "theory",
    "threats",
    "training",
    "typing",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":  # pyproject.toml has it
        return metadata.version("robustjax")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
