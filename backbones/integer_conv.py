"""Convolution of two 1-bit operands in 8-bit integers, where the processor has them.

Sums of +1 and -1 are whole numbers, so 8-bit products with 32-bit sums give the very result of the
floating-point convolution, about three times as fast on processors with VNNI instructions. What
is kept for backward takes one byte per activation instead of four.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from onebit.backbones.binarization import packing
from onebit.backbones.capture import capturing
from onebit.commons.compat import autocasting


def onebit_conv2d(
    x: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    pack: bool = False,
) -> Tensor:
    """``F.conv2d(x, weight, None, stride, padding, dilation)`` for 1-bit operands.

    Args:
        x: [N, C, H, W], every value +1 or -1.
        weight: [K, C, h, w], filter k holding two values only, +a_k and -a_k.
        padding: with zeros.
        pack: keep the activations for backward in one bit each instead of one byte.
    """
    return _IntegerConvFunction.apply(x, weight, (stride, padding, dilation), pack)


#: Fewer positions (batch * height * width of the output) than this, and reordering the weights,
#: which change in every training step, costs more than the convolution saves. Measured.
MIN_POSITIONS = 700


def worthwhile(
    x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> bool:
    """Whether :func:`onebit_conv2d` takes these operands on this machine, and is faster."""
    if capturing():  # a compiler takes one operator, not this one's parts, and sizes may be unknown
        return False
    positions = x.shape[0] * (x.shape[2] // stride[0]) * (x.shape[3] // stride[1])
    # oneDNN's integer convolution can leave what was in memory before (seen in torch 2.13): where a window
    # lies in the padding altogether, in an output of one column, and with a column stride of four.
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    inside = all(p <= r for p, r in zip(padding, reach, strict=True))
    columns = (x.shape[3] + 2 * padding[1] - reach[1] - 1) // stride[1] + 1
    return (
        positions >= MIN_POSITIONS
        and inside
        and columns > 1
        and stride[1] < 4
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and not autocasting("cpu")
        and supported()
    )


@functools.cache
def supported() -> bool:
    """Whether oneDNN's integer convolution is there and exact, tried once on a small case."""
    try:
        generator = torch.Generator().manual_seed(0)
        x = torch.randint(0, 2, (2, 40, 9, 8), generator=generator).mul_(2).sub_(1).float()
        weight = torch.randint(0, 2, (24, 40, 3, 3), generator=generator).mul_(2).sub_(1).float()
        geometry = ((2, 1), (1, 0), (1, 2))
        found = _convolve(_to_bytes(x), weight, *geometry)
    except (AttributeError, RuntimeError, TypeError):  # not built in, or with other arguments
        return False
    return torch.equal(found, torch.nn.functional.conv2d(x, weight, None, *geometry))


def _to_bytes(x: Tensor) -> Tensor:
    """-1 and +1 as 0 and 2, unsigned: with the zero point 1, padding counts as 0."""
    return (x > 0).view(torch.uint8).mul_(2)


def _from_bytes(data: Tensor) -> Tensor:
    return data.float().sub_(1)


def _convolve(data: Tensor, weight: Tensor, stride, padding, dilation) -> Tensor:
    scale = weight.flatten(1)[:, 0].abs()
    signs = weight.sign().to(torch.int8)
    zero_point = torch.zeros(len(scale), dtype=torch.int32)
    geometry = (list(stride), list(padding), list(dilation), 1)
    packed = torch.ops.onednn.qconv_prepack(signs, scale, 1.0, 1, *geometry, list(data.shape))
    return torch.ops.onednn.qconv2d_pointwise(
        data, 1.0, 1, packed, scale, zero_point, None, *geometry, 1.0, 0, torch.float32, "none", [], ""
    )


class _IntegerConvFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, geometry, pack: bool) -> Tensor:
        data = _to_bytes(x)
        ctx.layout = packing.Layout.of(x) if pack else None
        ctx.save_for_backward(ctx.layout.pack_bits(data) if pack else data, weight)
        ctx.geometry = geometry
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
        return _convolve(data, weight, *geometry).contiguous(
            memory_format=torch.channels_last if channels_last else torch.contiguous_format
        )

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        data, weight = ctx.saved_tensors
        if ctx.layout is not None:
            data = ctx.layout.unpack_bits(data).mul_(2)
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad, _from_bytes(data), weight, None, *ctx.geometry, False, (0, 0), 1, (*ctx.needs_input_grad[:2], False)
        )
        return grad_x, grad_weight, None, None
