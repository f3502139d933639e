"""XNOR-Net++."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit.backbones.binarization.binarizer import Binarizer, register_binarizer
from onebit.backbones.binarization.signs import ClippedSign

#: Length of the vectors over rows and over columns.
POINTS = 8


class OutputScaledSign(ClippedSign):
    """Weights as signs; the output of the convolution times a learned scale a_k b_i c_j.

    Forward: sign(w). Gradient: g where |w| <= 1, else 0.
    Bulat and Tzimiropoulos, XNOR-Net++, BMVC 2019, the scale as an outer product over filter, row and
    column. There the vectors over rows and columns are as long as the map is high and wide. Here they have
    8 points each, stretched linearly over the map, so that one network takes images of any size (ours). a starts at
    mean |w| of the filter, b and c at 1 (ours).

    Args:
        channels: number of output filters of weights [channels, C, h, w].
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.filters = nn.Parameter(torch.ones(channels, 1, 1))
        self.rows = nn.Parameter(torch.ones(1, 1, POINTS))
        self.columns = nn.Parameter(torch.ones(1, 1, POINTS))

    def fit(self, weight: Tensor) -> None:
        self.filters.data.copy_(weight.detach().abs().mean((1, 2, 3)).view(-1, 1, 1))

    def output_scale(self, height: int, width: int) -> Tensor:
        rows = F.interpolate(self.rows, height, mode="linear", align_corners=True)
        return self.filters * rows.mT * F.interpolate(self.columns, width, mode="linear", align_corners=True)


XNORPP = register_binarizer(
    Binarizer(
        name="xnorpp",
        source="Bulat and Tzimiropoulos, XNOR-Net++, BMVC 2019",
        input=ClippedSign,
        weight=OutputScaledSign,
        norm_first=True,
        shortcut_per_conv=False,
    )
)
