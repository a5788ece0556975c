"""Adaptive networks, a wrapper: batch normalisation that looks at the example (Xu et al. 2020)."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from robustjax.config import config
from robustjax.training.methods.wrapper import Wrapper


@config
class AdaNet(Wrapper):
    """The inner method on a network whose normalisation depends on the example.

    The wrapper asks the model for `models.nets.layers.AdaptiveNorm` and changes nothing else. The
    authors published no code; the module is our reading of their abstract, so their figures do not
    apply to it.

    Attributes:
      inner: the method that is wrapped.

    References: Xu et al., "Exploring model robustness with adaptive networks and improved
      adversarial training", 2020.

    >>> AdaNet().model["adaptive_norm"]
    True
    """

    @property
    @override
    def model(self) -> dict[str, Any]:
        return self.inner.model | {"adaptive_norm": True}
