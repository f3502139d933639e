"""The loss that pulls weights towards their binarized form, (f / 2) ||w - s sign(w)||^2."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from onebit.backbones.binarization.signs import above


def reconstruction_loss(
    weight: Tensor, scale: Tensor, factor: float, parameter: Tensor | None = None, slope: float | Tensor = 1.0
) -> Tensor:
    """(factor / 2) * ||w - s sign(w)||^2, a scalar.

    Gradient to w: factor * (w - s sign(w)), the sign held constant. To the parameter p that s was
    made from, elementwise where p is shared by several weights' sum: -factor * sum((w - s sign(w))
    sign(w)) * slope.

    Args:
        weight: w, [K, C, h, w].
        scale: s, not negative, broadcastable to ``weight``; constant here.
        parameter: p, broadcastable to ``weight``; None where s is no function of a parameter.
        slope: what a method takes for ds/dp, broadcastable to ``parameter``.
    """
    return _ReconstructionFunction.apply(weight, scale, factor, parameter, slope)


class _ReconstructionFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, scale, factor, parameter, slope) -> Tensor:
        ctx.save_for_backward(weight, scale, parameter)
        ctx.factor, ctx.slope = factor, slope
        residual = weight.abs().sub_(scale)  # times sign(w); scales are not negative
        return torch.linalg.vector_norm(residual).square_().mul_(factor / 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        weight, scale, parameter = ctx.saved_tensors
        factor = ctx.factor * grad
        grad_parameter = None
        if parameter is not None and ctx.needs_input_grad[3]:
            summed = weight.abs().sub_(scale).sum_to_size(parameter.shape)
            grad_parameter = summed * ctx.slope * -factor
        # f (w - s sign(w)) = f w + f s - 2 f s [w > 0]: three passes over the weights.
        moved = torch.add(factor * scale, weight * factor)
        positive = above(weight)
        return moved.addcmul_(positive, factor * scale, value=-2), None, None, grad_parameter, None
