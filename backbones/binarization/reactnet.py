"""ReActNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from onebit.backbones.binarization.binarizer import Binarizer, register_binarizer
from onebit.backbones.binarization.bireal import ScaledSign
from onebit.backbones.binarization.packing import PackedSlopes, packs
from onebit.backbones.binarization.signs import SignQuantizer, approx_sign_slope, sign
from onebit.backbones.capture import Function
from onebit.backbones.prelu import PReLU


class _RSignFunction(Function):
    """x + b is formed again in backward, so that x alone is kept."""

    @staticmethod
    def forward(ctx, x: Tensor, bias: Tensor, pack: bool) -> Tensor:
        ctx.bias_shape = bias.shape
        ctx.slopes = PackedSlopes.of(ctx, (x + bias).abs_(), approx_sign_slope) if pack else None
        if ctx.slopes is None:
            ctx.save_for_backward(x, bias)
        return sign(x, -bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        if ctx.slopes is not None:
            grad_x = ctx.slopes.unpack(*ctx.saved_tensors).mul_(grad)
        else:
            x, bias = ctx.saved_tensors
            grad_x = approx_sign_slope((x + bias).abs_()).mul_(grad).to(x.dtype)
        return grad_x, grad_x.sum((0, 2, 3)).view(ctx.bias_shape), None


class RSign(SignQuantizer):
    """Sign with a learnable threshold per channel.

    Forward: sign(x + b_c). Gradient to x: that of ApproxSign at x + b_c; to b_c: its sum over the
    batch and all positions. b starts at 0.
    Liu et al., ReActNet, ECCV 2020, Section 4.2 (RSign; b is minus their threshold).
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return _RSignFunction.apply(x, self.bias, packs(self.pack))


class RPReLU(nn.Module):
    """PReLU with learnable shifts: PReLU(x + b_c) + d_c, all per channel.

    b and d start at 0, the slope at 0.25.
    Liu et al., ReActNet, ECCV 2020, Section 4.2 (RPReLU).

    Args:
        channels: of the input [N, channels, H, W].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift_in = nn.Parameter(torch.zeros(channels, 1, 1))
        self.prelu = PReLU(channels)
        self.shift_out = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        # In place: nobody keeps what the PReLU puts out, and it saves memory and time.
        return self.prelu(x + self.shift_in).add_(self.shift_out)


REACTNET = register_binarizer(
    Binarizer(
        name="reactnet", source="Liu et al., ReActNet, ECCV 2020", input=RSign, weight=ScaledSign, activation=RPReLU
    )
)
