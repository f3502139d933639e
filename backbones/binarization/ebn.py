"""The binarization of Expert Binary Networks: signs, and a learned scale of the output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onebit.backbones.binarization.binarizer import Binarizer, register_binarizer
from onebit.backbones.binarization.signs import ClippedSign


class ChannelScaledSign(ClippedSign):
    """Weights as signs; the output of the convolution times a learned scale per channel, which starts at 1.

    Forward: sign(w). Gradient: g where |w| <= 1, else 0.
    Bulat, Martinez and Tzimiropoulos, High-Capacity Expert Binary Networks, ICLR 2021, as released
    (1adrianb/expert-binary-networks with 1adrianb/binary-networks-pytorch).

    Args:
        channels: of the output, K; weights are [K, C, h, w], or those of several images [n K, C, h, w].
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))

    def output_scale(self, height: int, width: int) -> Tensor:
        return self.scale


# The experts are a matter of the network: :class:`onebit.backbones.expert_conv.ExpertConv2d`. The release has the PReLU
# before the shortcut is added, here it comes after.
EBN = register_binarizer(
    Binarizer(
        name="ebn",
        source="Bulat et al., High-Capacity Expert Binary Networks, ICLR 2021",
        input=ClippedSign,
        weight=ChannelScaledSign,
        activation=nn.PReLU,
        norm_first=True,
    )
)
