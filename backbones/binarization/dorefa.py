"""DoReFa-Net: k-bit weights and activations."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from onebit.backbones.binarization import packing
from onebit.backbones.binarization.binarizer import Binarizer, register_binarizer
from onebit.backbones.binarization.signs import SlopedQuantizer
from onebit.backbones.capture import Function


class _SquashedRoundFunction(Function):
    """As in :class:`DoReFaWeight`; keeps tanh(w), which is dear, and its largest magnitude."""

    @staticmethod
    def forward(ctx, weight: Tensor, steps: int) -> Tensor:
        squashed = weight.tanh()
        smallest, largest = squashed.aminmax()
        largest = torch.maximum(largest, -smallest).clamp(min=torch.finfo(weight.dtype).tiny)
        ctx.save_for_backward(squashed, largest)
        unit = (squashed / (2 * largest)).add_(0.5)
        return unit.mul_(steps).round_().div_(steps).mul_(2).sub_(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        squashed, largest = ctx.saved_tensors
        grad_weight = torch.ops.aten.tanh_backward(grad / largest, squashed)
        # The largest ones share what comes through the maximum. By a mask: looking them up would wait for a GPU.
        at_largest = squashed.sign() * (squashed.abs() == largest)
        through_largest = -(grad * squashed).sum() / largest.square()
        share = through_largest * (1 - largest.square()) / at_largest.abs().sum().clamp(min=1)
        return grad_weight.addcmul_(at_largest, share), None


class _ClippedRoundFunction(Function):
    @staticmethod
    def forward(ctx, x: Tensor, steps: int, pack: bool) -> Tensor:
        clipped = x.clamp(0, 1)
        ctx.pack = pack
        if pack:
            ctx.layout = packing.Layout.of(x)
            ctx.save_for_backward(ctx.layout.pack_bits(clipped == x))
        else:
            ctx.save_for_backward(x)
        return clipped.mul_(steps).round_().div_(steps)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        (saved,) = ctx.saved_tensors
        if ctx.pack:
            return ctx.layout.unpack_bits(saved).to(grad.dtype).mul_(grad), None, None
        info = torch.finfo(saved.dtype)
        # hardtanh's gradient leaves its bounds out, hence the next numbers outside.
        below = -info.tiny * info.eps
        inside = torch.ops.aten.hardtanh_backward(grad, saved, below, 1 + info.eps)
        return inside, None, None


class DoReFaActivation(SlopedQuantizer):
    """Activations clipped to [0, 1] and rounded to k bits.

    Forward: q = round((2^k - 1) clip(x, 0, 1)) / (2^k - 1). Gradient: g where 0 <= x <= 1, else 0.
    Zhou et al., DoReFa-Net, arXiv 1606.06160, Section 2.4; the clipping is its bounded activation
    function.

    Args:
        channels: of the input; this quantizer has no parameters.
        bits: k.
    """

    def __init__(self, channels: int, bits: int) -> None:
        super().__init__()
        self.precision = bits

    def slope(self, x: Tensor) -> Tensor:
        return ((x.detach() >= 0) & (x.detach() <= 1)).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        if self.twice:
            steps = 2**self.precision - 1
            return self.surrogate(x, x.detach().clamp(0, 1).mul_(steps).round_().div_(steps))
        return _ClippedRoundFunction.apply(x, 2**self.precision - 1, packing.packs(self.pack))


class DoReFaWeight(nn.Module):
    """Weights squashed into [0, 1], rounded to k bits and brought to [-1, 1].

    Forward: 2 q - 1, q = round((2^k - 1) u) / (2^k - 1), u = tanh(w) / (2 max |tanh(w)|) + 1/2,
    the maximum over the layer. Gradient: that of 2 u - 1, rounding being taken as the identity;
    the maximum is differentiated too.
    Zhou et al., DoReFa-Net, arXiv 1606.06160, Section 2.3, for k > 1.

    Args:
        channels: number of output filters; this quantizer has no parameters.
        bits: k.
    """

    def __init__(self, channels: int, bits: int) -> None:
        super().__init__()
        self.precision = bits

    def forward(self, weight: Tensor) -> Tensor:
        return _SquashedRoundFunction.apply(weight, 2**self.precision - 1)


def _dorefa(bits: int) -> Binarizer:
    # The clipping of the quantizer is the blocks' only activation function. Their layout is Bi-Real
    # Net's (ours): of the four there are it learned best on the mini dataset.
    return register_binarizer(
        Binarizer(
            name=f"dorefa{bits}",
            source=f"Zhou et al., DoReFa-Net, arXiv 1606.06160, {bits}-bit weights and activations",
            input=functools.partial(DoReFaActivation, bits=bits),
            weight=functools.partial(DoReFaWeight, bits=bits),
        )
    )


DOREFA2 = _dorefa(2)
DOREFA4 = _dorefa(4)
