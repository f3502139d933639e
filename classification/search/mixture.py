"""The weighted sum of maps that makes a node of a supernet, in few passes over memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def mix(coefficients: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """sum_i coefficients[i] * maps[i].

    Differentiable twice. A product and a sum per map, left to autograd, would
    make two temporary maps each; here there is none, and the gradient to the coefficients is one
    inner product per map. Nothing is kept where the coefficients need no gradient.

    Args:
        coefficients: [n].
        maps: n maps of one shape [N, C, H, W].
    """
    return _MixFunction.apply(coefficients, *maps)


class _MixFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, coefficients: Tensor, *maps: Tensor) -> Tensor:
        kept = maps if ctx.needs_input_grad[0] else ()
        ctx.save_for_backward(coefficients, *kept)
        return _weighted_sum(coefficients, maps)

    @staticmethod
    def backward(ctx, grad: Tensor):
        coefficients, *maps = ctx.saved_tensors
        to_coefficients = None
        if ctx.needs_input_grad[0]:
            products = [_inner_product(grad, each) for each in maps]
            to_coefficients = torch.stack(products).to(coefficients.dtype)
        to_maps = [
            grad * coefficient if needed else None
            for coefficient, needed in zip(coefficients.unbind(), ctx.needs_input_grad[1:], strict=True)
        ]
        return to_coefficients, *to_maps


def _weighted_sum(coefficients: Tensor, maps: Sequence[Tensor]) -> Tensor:
    numbers: Sequence = coefficients.unbind()
    if coefficients.device.type == "cpu":  # elsewhere this would wait for the device
        numbers = coefficients.tolist()
    total = maps[0] * numbers[0]
    for number, each in zip(numbers[1:], maps[1:], strict=True):
        if isinstance(number, float):
            total.add_(each, alpha=number)
        else:
            total.addcmul_(each, number)
    return total


def _inner_product(a: Tensor, b: Tensor) -> Tensor:
    """sum(a * b), in one pass where both lie alike in memory."""
    if torch.is_grad_enabled() or a.dtype != b.dtype or a.stride() != b.stride():
        return (a * b).sum()
    order = sorted(range(a.dim()), key=a.stride, reverse=True)
    a, b = a.permute(order), b.permute(order)
    if not a.is_contiguous():
        return (a * b).sum()
    return torch.dot(a.reshape(-1), b.reshape(-1))
