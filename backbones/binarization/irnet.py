"""IR-Net: balanced weights, and a gradient that comes closer to the sign's as training goes on."""

from __future__ import annotations

from torch import Tensor, nn

from onebit.backbones.binarization.binarizer import Binarizer, hardtanh, register_binarizer
from onebit.backbones.binarization.signs import SlopedSign, sign_with, variance


def decaying_slope(x: Tensor, progress: float, first: float = 0.1, last: float = 10.0) -> Tensor:
    """k t (1 - tanh(t x)^2), k = max(1 / t, 1); t grows from ``first`` to ``last`` on a log scale."""
    t = first * (last / first) ** progress
    return (1 - (t * x).tanh().square()) * max(t, 1.0)


class BalancedSign(nn.Module):
    """Weights standardized, as sign times a power of two, one per filter.

    Forward: s_k sign(v), v = (w - mean) / std over filter k, s_k = 2^round(log2(mean |v|)). Gradient to v:
    s_k g times :func:`decaying_slope`, s_k held constant; to w: through mean and std.
    Qin et al., IR-Net, CVPR 2020; t from 0.1 to 10 as there (the release's CIFAR-10 script starts at 1e-3).

    Args:
        channels: number of output filters of weights [channels, C, h, w].
    """

    precision = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sign = SlopedSign(channels, decaying_slope)

    def forward(self, weight: Tensor) -> Tensor:
        standard = (weight - weight.mean((1, 2, 3), keepdim=True)) / variance(weight).clamp(min=1e-16).sqrt()
        scale = standard.detach().abs().mean((1, 2, 3), keepdim=True).log2().round().exp2()
        return self.sign(standard) * scale


IRNET = register_binarizer(
    Binarizer(
        name="irnet",
        source="Qin et al., IR-Net, CVPR 2020",
        input=sign_with(decaying_slope),
        weight=BalancedSign,
        activation=hardtanh,
    )
)
