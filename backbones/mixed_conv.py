"""Convolution of two 1-bit operands under autocast, in bfloat16 or float16.

Operands of +1 and -1 are exact in either type, and processors sum their products in float32, which
holds every sum of a convolution here. What is put out is that sum rounded to the type, which holds
whole numbers up to 256 (bfloat16) or 2048 (float16), times the filter's scale, which stays float32
and is applied in float32. Casting scaled weights, as autocast does, would round the scale instead
and leave no sum whole.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from onebit.backbones.capture import Function
from onebit.commons.compat import autocast_dtype, autocasting


def onebit_conv2d(
    x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], groups: int
) -> Tensor:
    """``F.conv2d(x, weight, None, stride, padding, dilation, groups)`` for 1-bit operands, in autocast's type.

    The error is at most 2^-8 of the result in bfloat16, and 2^-11 in float16, where the sum is among the whole
    numbers that the type holds, and at most twice that elsewhere.

    Args:
        x: [N, C, H, W], every value +1 or -1.
        weight: [K, C / groups, h, w], filter k holding two values only, +a_k and -a_k.
    """
    dtype = autocast_dtype(x.device.type)
    return _MixedConvFunction.apply(x, weight, dtype, (stride, padding, dilation), groups)


def possible(x: Tensor, weight: Tensor) -> bool:
    """Whether autocast would compute with these operands in a half precision."""
    return weight.dtype == torch.float32 and autocasting(x.device.type)


class _MixedConvFunction(Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, dtype: torch.dtype, geometry: tuple, groups: int) -> Tensor:
        x = x.to(dtype)
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.groups = geometry, groups
        stride, padding, dilation = geometry
        sums = F.conv2d(x, weight.sign().to(dtype), None, stride, padding, dilation, groups)
        return sums.mul_(weight.flatten(1)[:, 0].abs()[:, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad.to(x.dtype),
            x,
            weight.to(x.dtype),
            None,
            *ctx.geometry,
            False,
            (0, 0),
            ctx.groups,
            (*ctx.needs_input_grad[:2], False),
        )
        return grad_x, grad_weight, None, None, None
