"""Pre-activation blocks padded as by TensorFlow: the wide ResNets of Gowal et al. (2020).

"Uncovering the limits of adversarial training". Their strided convolutions see zeros only after the
image, (0, 1), as TensorFlow's padding 'SAME' has it on images of even sides.
"""

from __future__ import annotations

from typing import ClassVar

import jax
from flax import linen as nn
from typing_extensions import override

from robustjax.models.nets.blocks import Gate
from robustjax.models.nets.layers import BN, Conv
from robustjax.models.nets.residual import PreActBlock


class SamePaddedBlock(PreActBlock):
    """PreActBlock with zeros only after the image where there is a stride."""

    padding: ClassVar[tuple[int, int]] = (0, 1)


class RawSamePaddedBlock(SamePaddedBlock):
    """The block of their PreActResNet: its projections are 3x3 and see the input itself."""

    @override
    def shortcut(self, x: jax.Array, h: jax.Array, bn: BN) -> jax.Array:
        if self.stride == 1 and x.shape[-1] == self.features:
            return x
        return Conv(
            self.features,
            3,
            self.stride,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            padding=self.padding if self.stride > 1 else None,
            name="shortcut",
        )(x)


class GatedSamePaddedBlock(SamePaddedBlock):
    """SamePaddedBlock that ends in a Gate of a quarter of the channels, with ReLU.

    Peng et al. (2023), "Robust principles: architectural design principles for adversarially robust
    CNNs".
    """

    @nn.nowrap
    @override
    def gate(self, y: jax.Array) -> jax.Array:
        return Gate(round(self.features / 4), "relu", self.dtype, name="gate")(y)
