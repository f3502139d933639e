"""ReCU: dead weights are clamped back to where their sign can change."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from onebit.backbones.binarization.binarizer import Binarizer, hardtanh, register_binarizer
from onebit.backbones.binarization.signs import ApproxSign, SlopedSign, unit_slope, variance

TAU = (0.85, 0.99)


class UnitSign(ApproxSign):
    """ApproxSign of activations that are divided by the standard deviation of their image, in training only."""

    def forward(self, x: Tensor) -> Tensor:
        return self.sign(x / (variance(x) + 1e-5).sqrt() if self.training else x)


class RectifiedSign(nn.Module):
    """Weights as sign times a learned scale per filter.

    Forward: a_k sign(u), u = clamp(v, -Q, Q), v = 2 sqrt(2) (w - mean) / std over filter k, Q = -mean |v| ln(2 - 2 tau)
    over the layer. Gradient to u: a_k g; to a_k: the sum of g sign(u); Q held constant. tau goes from 0.85 to
    0.99 as A e^progress + B.
    Xu et al., ReCU, ICCV 2021, as released; a starts uniformly between 0 and 1 there, too.

    Args:
        channels: number of output filters of weights [channels, C, h, w].
    """

    precision = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(channels, 1, 1, 1))
        self.sign = SlopedSign(channels, unit_slope)
        self.set_progress(0.0)

    def set_progress(self, fraction: float) -> None:
        self.tau = TAU[0] + (TAU[1] - TAU[0]) * math.expm1(fraction) / math.expm1(1)

    def forward(self, weight: Tensor) -> Tensor:
        centred = weight - weight.mean((1, 2, 3), keepdim=True)
        unit = centred * math.sqrt(8) / (variance(weight) + 1e-5).sqrt()
        bound = unit.detach().abs().mean() * -math.log(2 - 2 * self.tau)
        return self.sign(unit.clamp(-bound, bound)) * self.scale


RECU = register_binarizer(
    Binarizer(
        name="recu", source="Xu et al., ReCU, ICCV 2021", input=UnitSign, weight=RectifiedSign, activation=hardtanh
    )
)
