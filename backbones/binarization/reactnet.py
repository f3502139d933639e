"""ReActNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onebit.backbones.binarization.binarizer import Binarizer, register_binarizer
from onebit.backbones.binarization.bireal import ScaledSign
from onebit.backbones.binarization.signs import ApproxSign
from onebit.backbones.prelu import PReLU


class RSign(ApproxSign):
    """Sign with a learnable threshold per channel.

    Forward: sign(x + b_c). Gradient to x: that of ApproxSign at x + b_c; to b_c: its sum over the
    batch and all positions. b starts at 0.
    Liu et al., ReActNet, ECCV 2020, Section 4.2 (RSign; b is minus their threshold).
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.sign(x, self.bias)

    def threshold(self) -> Tensor:
        return -self.bias


class RPReLU(nn.Module):
    """PReLU with learnable shifts: PReLU(x + b_c) + d_c, all per channel.

    b and d start at 0, the slope at 0.25.
    Liu et al., ReActNet, ECCV 2020, Section 4.2 (RPReLU).

    Args:
        channels: of the input [N, channels, H, W].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift_in = nn.Parameter(torch.zeros(channels, 1, 1))
        self.prelu = PReLU(channels)
        self.shift_out = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        # In place: nobody keeps what the PReLU puts out, and it saves memory and time.
        return self.prelu(x + self.shift_in).add_(self.shift_out)


REACTNET = register_binarizer(
    Binarizer(
        name="reactnet", source="Liu et al., ReActNet, ECCV 2020", input=RSign, weight=ScaledSign, activation=RPReLU
    )
)
