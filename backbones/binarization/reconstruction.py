"""The loss that pulls weights towards their binarized form, (f / 2) ||w - s sign(w)||^2."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from backbones.binarization.signs import sign


def reconstruction_loss(
    weight: Tensor,
    scale: Tensor,
    factor: float,
    parameter: Tensor | None = None,
    slope: float | Tensor = 1.0,
) -> Tensor:
    """(factor / 2) * ||w - s sign(w)||^2, a scalar.

    Gradient to w: factor * (w - s sign(w)), the sign held constant. To the parameter p that s was
    made from, elementwise where p is shared by several weights' sum: -factor * sum((w - s sign(w))
    sign(w)) * slope.

    Args:
        weight: w, [K, C, h, w].
        scale: s, broadcastable to ``weight``; constant here.
        parameter: p, broadcastable to ``weight``; None where s is no function of a parameter.
        slope: what a method takes for ds/dp, broadcastable to ``parameter``.
    """
    return _ReconstructionFunction.apply(weight, scale, factor, parameter, slope)


def _residual(weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    signs = sign(weight)
    return torch.addcmul(weight, signs, scale, value=-1), signs


class _ReconstructionFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, scale, factor, parameter, slope) -> Tensor:
        ctx.save_for_backward(weight, scale, parameter)
        ctx.factor, ctx.slope = factor, slope
        residual, _ = _residual(weight, scale)
        return residual.square_().sum().mul_(factor / 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        weight, scale, parameter = ctx.saved_tensors
        residual, signs = _residual(weight, scale)
        grad_parameter = None
        if parameter is not None and ctx.needs_input_grad[3]:
            summed = signs.mul_(residual).sum_to_size(parameter.shape)
            grad_parameter = summed * ctx.slope * (-ctx.factor * grad)
        return residual.mul_(ctx.factor * grad), None, None, grad_parameter, None
