"""Convolution that keeps its quantized activations for backward in one or k bits a value."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from onebit.backbones.binarization import packing
from onebit.commons.compat import autocasting


def conv2d(
    x: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    bits: int,
    affine: bool = False,
) -> Tensor:
    """``F.conv2d(x, weight, None, stride, padding, dilation, groups)``, gradients included.

    Args:
        x: [N, C, H, W]; with 1 bit every value is +1 or -1, with k a multiple of 1 / (2^k - 1)
            from 0 to 1.
        weight: [K, C / groups, h, w].
        bits: 1, 2, 4 or 8.
        affine: the two values of 1 bit are any others.
    """
    return _PackedConvFunction.apply(x, weight, (stride, padding, dilation), groups, bits, affine)


def possible(x: Tensor, weight: Tensor) -> bool:
    """Whether :func:`conv2d` takes these operands: of one dtype, and not under autocast or in a graph."""
    return packing.packs(True) and x.dtype == weight.dtype and not autocasting(x.device.type)


class _PackedConvFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, geometry: tuple, groups: int, bits: int, affine: bool) -> Tensor:
        ctx.layout = packing.Layout.of(x)
        row = ctx.layout.flatten(x)
        ctx.values = row.aminmax() if affine else None
        if bits == 1:
            packed = packing.pack_bits(row > (0 if ctx.values is None else ctx.values[0]))
        else:
            packed = packing.pack_codes((row * (2**bits - 1)).round_().to(torch.uint8), bits)
        ctx.save_for_backward(packed, weight)
        ctx.geometry, ctx.groups, ctx.bits = geometry, groups, bits
        stride, padding, dilation = geometry
        return F.conv2d(x, weight, None, stride, padding, dilation, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        packed, weight = ctx.saved_tensors
        row = packing.unpack_codes(packed, ctx.bits, ctx.layout.shape.numel())
        if ctx.values is not None:
            row = torch.where(row.view(torch.bool), ctx.values[1], ctx.values[0])
        else:
            row = row.to(weight.dtype)
            row = row.mul_(2).sub_(1) if ctx.bits == 1 else row.div_(2**ctx.bits - 1)
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad,
            ctx.layout.unflatten(row),
            weight,
            None,
            *ctx.geometry,
            False,
            (0, 0),
            ctx.groups,
            (*ctx.needs_input_grad[:2], False),
        )
        return grad_x, grad_weight, None, None, None, None
