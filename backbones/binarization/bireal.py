"""Bi-Real Net."""

from __future__ import annotations

from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from onebit.backbones.binarization.binarizer import Binarizer, register_binarizer
from onebit.backbones.binarization.signs import ApproxSign, clip_gradient, scaled_sign
from onebit.backbones.capture import Function


class _ScaledSignFunction(Function):
    @staticmethod
    def forward(ctx, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return scaled_sign(weight, weight.abs().mean((1, 2, 3), keepdim=True))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        return clip_gradient(grad, *ctx.saved_tensors)


class ScaledSign(nn.Module):
    """Weights as sign times one scale per output filter, the scale constant in backward.

    Forward: a_k * sign(w), a_k = mean |w| over filter k. Gradient: g where |w| <= 1, else 0.
    The form in which Bi-Real Net and ReActNet were released. (Section 3.3 of the Bi-Real Net
    paper would also multiply the gradient by a_k, its magnitude-aware gradient.)

    Args:
        channels: number of output filters of weights [channels, C, h, w].
    """

    precision = 1

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, weight: Tensor) -> Tensor:
        return _ScaledSignFunction.apply(weight)


BIREAL = register_binarizer(
    Binarizer(name="bireal", source="Liu et al., Bi-Real Net, ECCV 2018", input=ApproxSign, weight=ScaledSign)
)
