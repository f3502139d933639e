"""The binarization of DCP-NAS and CP-NAS: modulated convolutional networks (MCN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from backbones.binarization import Binarizer, ClippedSign, register_binarizer, sign

#: Amplitude of a binarized weight whose modulator is 1.
AMPLITUDE = 0.02
#: Weight of the kernel loss, half the squared distance of weights from their binarized form.
KERNEL_LOSS = 1e-4


class _ModulatedSignFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, modulator: Tensor) -> Tensor:
        ctx.save_for_backward(weight, modulator)
        return sign(weight).mul_(modulator.abs() * AMPLITUDE)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        weight, modulator = ctx.saved_tensors
        signs = sign(weight).mul_(AMPLITUDE)
        error = weight - signs * modulator.abs()
        per_filter = (grad * weight).sub_(signs.mul_(error), alpha=KERNEL_LOSS)
        grad_modulator = per_filter.sum((1, 2, 3), keepdim=True)
        return (grad * modulator.abs()).add_(error, alpha=KERNEL_LOSS), grad_modulator


class ModulatedSign(nn.Module):
    """Weights as sign times a learnable modulator per output filter.

    Forward: w^ = 0.02 |m_k| sign(w). Gradient to w: g |m_k| + 1e-4 (w - w^), not clipped; to m_k:
    the sum over filter k of g w - 1e-4 (w - w^) 0.02 sign(w). The terms with 1e-4 are the kernel
    loss, which pulls the weights towards their binarized form.
    Wang et al., Modulated Convolutional Networks, CVPR 2018, in the form in which DCP-NAS uses it.
    m starts at 1.

    Args:
        channels: number of output filters of weights [channels, C, h, w].
    """

    precision = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.modulator = nn.Parameter(torch.ones(channels, 1, 1, 1))

    def forward(self, weight: Tensor) -> Tensor:
        return _ModulatedSignFunction.apply(weight, self.modulator)


MCN = register_binarizer(
    Binarizer(
        name="mcn",
        source="Wang et al., Modulated Convolutional Networks, CVPR 2018, as used by DCP-NAS",
        input=ClippedSign,
        weight=ModulatedSign,
    )
)
