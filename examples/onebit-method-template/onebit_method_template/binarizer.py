"""Sign with the gradient of tanh."""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from onebit.backbones import Binarizer, register_binarizer
from onebit.backbones.binarization import ScaledSign, sign


class _TanhSignFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return sign(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (1 - x.tanh().square())


class TanhSign(nn.Module):
    """Forward: sign(x). Gradient: g * (1 - tanh(x)^2), that of tanh.

    Args:
        channels: of the input [N, channels, H, W]; this quantizer has no parameters.
    """

    precision = 1  # bits of what it puts out: the cost follows from this

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return _TanhSignFunction.apply(x)


TANHSIGN = register_binarizer(
    Binarizer(
        name="tanhsign",
        source="onebit-method-template: put your paper here",
        input=TanhSign,
        weight=ScaledSign,
        activation=nn.PReLU,
    )
)
