"""PReLU of feature maps, fast on CPUs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit.backbones.capture import as_leaf, capturing, symbolic


class _PReLUFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return F.prelu(x, slope)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        x, slope = ctx.saved_tensors
        positive = torch.ops.aten.threshold_backward(grad, x, 0)  # grad where x > 0, else 0
        negative = grad - positive
        slope = slope[:, None, None]
        if torch.is_grad_enabled():  # a second derivative is wanted, which needs both as they are
            to_slope = (negative * x).sum((0, 2, 3)) if ctx.needs_input_grad[1] else None
            return torch.addcmul(positive, negative, slope), to_slope
        grad_x = positive.addcmul_(negative, slope.to(grad.dtype))  # torch 2.1 takes one type only
        return grad_x, negative.mul_(x).sum((0, 2, 3)) if ctx.needs_input_grad[1] else None


class PReLU(nn.PReLU):
    """PReLU of maps [N, channels, H, W], trained several times faster on CPUs than torch's own.

    Same values and gradients as :class:`torch.nn.PReLU`, whose backward kernel is not vectorized
    on CPUs; elsewhere, and in a graph, it is torch's.
    """

    def forward(self, x: Tensor) -> Tensor:
        if symbolic(x):
            return as_leaf(self, x)
        if x.device.type == "cpu" and not capturing():
            return _PReLUFunction.apply(x, self.weight)
        return super().forward(x)
