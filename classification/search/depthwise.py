"""Depthwise convolution with a fast gradient on CPUs.

Backward of 5x5 and of dilated depthwise convolutions is what a supernet would spend most of its
time in. Three identities make it forward convolutions and 3-wide kernels, for which there is fast
code: the gradient to the input of a stride-1 convolution is the convolution with the flipped
kernel; a dilated convolution is a plain one of the four maps of every second pixel; and the columns
of a 5-wide kernel are those of two 3-wide ones.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from onebit.commons.compat import autocasting


def depthwise_conv2d(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """``F.conv2d`` with one filter per channel, padded with zeros to ceil(size / stride).

    The same values; gradients to the rounding of sums. Differentiable any number of times.

    Args:
        x: [N, C, H, W].
        weight: [C, 1, k, k], k odd.
    """
    if x.device.type == "cpu" and stride == 1 and not autocasting("cpu"):
        return _DepthwiseFunction.apply(x, weight, dilation)
    return _convolve(x, weight, stride, dilation)


def _convolve(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    padding = [dilation * (size - 1) // 2 for size in weight.shape[2:]]
    return F.conv2d(x, weight, None, stride, padding, dilation, len(weight))


class _DepthwiseFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.dilation = dilation
        ctx.x_shape = x.shape
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return _convolve(x, weight, 1, dilation)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            to_x = depthwise_conv2d(grad, weight.flip(2, 3), 1, ctx.dilation)
        if ctx.needs_input_grad[1]:
            to_weight = weight_gradient(x, grad, weight.shape, ctx.dilation)
        return to_x, to_weight, None


def weight_gradient(x: Tensor, grad: Tensor, shape: torch.Size, dilation: int) -> Tensor:
    """The gradient to the weights of a depthwise convolution of stride 1.

    Args:
        x, grad: [N, C, H, W], input and gradient to the output.
        shape: of the weights, [C, 1, k, k], k odd.
    """
    even = x.shape[2] % 2 == x.shape[3] % 2 == 0
    if torch.is_grad_enabled() or (dilation, even) not in ((1, True), (1, False), (2, True)):
        padding = dilation * (shape[2] - 1) // 2
        return torch.nn.grad.conv2d_weight(x, shape, grad, 1, padding, dilation, shape[0])
    if dilation == 2:
        x, grad = every_second_pixel(x), every_second_pixel(grad)
    if shape[3] != 5:
        return _plain_weight_gradient(x, grad, shape)
    # Columns -2 to 0 of the kernel, and 0 to 2.
    narrow = (*shape[:3], 3)
    left = _plain_weight_gradient(F.pad(x, (2, 0)), grad, narrow, padded=True)
    right = _plain_weight_gradient(F.pad(x, (0, 2)), grad, narrow, padded=True)
    return torch.cat((left, right[..., 1:]), 3)


def _plain_weight_gradient(x: Tensor, grad: Tensor, shape, padded: bool = False) -> Tensor:
    """``padded``: ``x`` is wide enough for all places of the kernel in a row."""
    padding = [(shape[2] - 1) // 2, 0 if padded else (shape[3] - 1) // 2]
    weight = x.new_empty(1).expand(shape)  # only its shape counts
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, (1, 1), padding, (1, 1), False, (0, 0), shape[0], (False, True, False)
    )[1]


def every_second_pixel(x: Tensor) -> Tensor:
    """[N, C, H, W] to [4N, C, H/2, W/2]: the maps of even and odd rows and columns."""
    n, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1).reshape(n, height // 2, 2, width // 2, 2, channels)
    x = x.permute(2, 4, 0, 1, 3, 5).reshape(4 * n, height // 2, width // 2, channels)
    return x.permute(0, 3, 1, 2)
