"""AdaBin: two values of weights and of activations that need not be opposite."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from onebit.backbones.binarization.binarizer import Binarizer, register_binarizer
from onebit.backbones.binarization.irnet import decaying_slope
from onebit.backbones.binarization.signs import ApproxSign, SlopedSign


class AdaptiveSign(ApproxSign):
    """Activations as a (sign((x - b) / a) + b), a and b learned, one pair per layer; a starts at 1, b at 0.

    Gradient to the sign's argument: that of ApproxSign; to x, a and b: through the formula.
    Tu et al., AdaBin, ECCV 2022, as released, with |a| where the sign is.
    """

    affine = True

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.distance, self.centre = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        half = self.distance.abs()
        return half * self.sign((x - self.centre) / half) + self.distance * self.centre

    def threshold(self) -> Tensor:
        return self.centre


class EqualizedSign(nn.Module):
    """Weights as a_k sign((w - b_k) / a_k) + b_k, b_k and a_k mean and standard deviation of filter k.

    Gradient to the sign's argument: that of IR-Net, with t from 1e-3 to 10; to w: through the formula.
    Tu et al., AdaBin, ECCV 2022, as released.
    """

    precision, affine = 1, True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sign = SlopedSign(channels, functools.partial(decaying_slope, first=1e-3))

    def forward(self, weight: Tensor) -> Tensor:
        centred = weight - (centre := weight.mean((1, 2, 3), keepdim=True))
        half = centred.square().mean((1, 2, 3), keepdim=True).clamp(min=1e-16).sqrt()
        return half * self.sign(centred / half) + centre


class Maxout(nn.Module):
    """p_c max(x, 0) + n_c min(x, 0) per channel; p starts at 1, n at 0.25 (AdaBin)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.positive = nn.Parameter(torch.ones(channels, 1, 1))
        self.negative = nn.Parameter(torch.full((channels, 1, 1), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        return self.positive * x.clamp(min=0) + self.negative * x.clamp(max=0)


ADABIN = register_binarizer(
    Binarizer(
        name="adabin",
        source="Tu et al., AdaBin, ECCV 2022",
        input=AdaptiveSign,
        weight=EqualizedSign,
        activation=Maxout,
    )
)
