"""Modulated convolutional networks (MCN), the binarization of DCP-NAS."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from onebit.backbones.binarization.binarizer import Binarizer, register_binarizer
from onebit.backbones.binarization.reconstruction import reconstruction_loss
from onebit.backbones.binarization.signs import ClippedSign, scaled_sign
from onebit.backbones.capture import Function

#: Amplitude of a binarized weight whose modulator is 1.
AMPLITUDE = 0.02
#: Weight of the reconstruction loss.
RECONSTRUCTION = 1e-4


class _ModulatedSignFunction(Function):
    @staticmethod
    def forward(ctx, weight: Tensor, modulator: Tensor) -> Tensor:
        ctx.save_for_backward(weight, modulator)
        return scaled_sign(weight, modulator.abs() * AMPLITUDE)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        weight, modulator = ctx.saved_tensors
        return grad * modulator.abs(), (grad * weight).sum((1, 2, 3), keepdim=True)


class ModulatedSign(nn.Module):
    """Weights as sign times a learnable modulator per output filter.

    Forward: w^ = 0.02 |m_k| sign(w). Gradient to w: g |m_k|, not clipped; to m_k: the sum of g w
    over filter k. m starts at 1.
    Loss ``loss_reconstruction``: (f / 2) ||w - w^||^2, the reconstruction error L_R of DCP-NAS
    (Eq. 7) with beta = 0.02 |m|, times f / 2. Its gradients are f (w - w^) and, to m_k, the sum of
    -f (w - w^) 0.02 sign(w).
    Wang et al., Modulated Convolutional Networks, CVPR 2018, in the form in which DCP-NAS uses it,
    whose gradients, both terms of each together, are those of its release (MConv_new.py) at f = 1e-4. There m starts
    from a normal distribution, and the slope of activations is 2 - 2|x|, not clipped as here.

    Args:
        channels: number of output filters of weights [channels, C, h, w].
        reconstruction: f; the search of DCP-NAS uses 0.2 times L_R, which is f = 0.4. 0 leaves the
            loss out.
    """

    precision = 1

    def __init__(self, channels: int, reconstruction: float = RECONSTRUCTION) -> None:
        super().__init__()
        self.modulator = nn.Parameter(torch.ones(channels, 1, 1, 1))
        self.reconstruction = reconstruction

    def forward(self, weight: Tensor) -> Tensor:
        return _ModulatedSignFunction.apply(weight, self.modulator)

    def losses(self, weight: Tensor) -> dict[str, Tensor]:
        if not self.reconstruction:
            return {}
        scale = self.modulator.detach().abs() * AMPLITUDE
        loss = reconstruction_loss(weight, scale, self.reconstruction, self.modulator, slope=AMPLITUDE)
        return {"loss_reconstruction": loss}


MCN = register_binarizer(
    Binarizer(
        name="mcn",
        source="Wang et al., Modulated Convolutional Networks, CVPR 2018, as used by DCP-NAS",
        input=ClippedSign,
        weight=ModulatedSign,
    )
)
