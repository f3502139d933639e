"""ReBNN: weights whose sign flips often are pulled to their binarized form."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from onebit.backbones.binarization.binarizer import Binarizer, register_binarizer
from onebit.backbones.binarization.mcn import AMPLITUDE
from onebit.backbones.binarization.reactnet import RPReLU, RSign
from onebit.backbones.binarization.signs import scaled_sign, sign
from onebit.backbones.capture import Function

#: Least and largest balance.
BOUNDS = (1e-5, 2e-4)


class BalancedSignFunction(Function):
    """0.02 m sign(w), and a backward that pulls w and m together.

    ``balance`` gives gamma [K, 1, 1, 1] or a number for the gradient g. To w: m g + gamma r, r = w - 0.02 m sign(w);
    to m: the sum over the filter of g w - gamma r 0.02 sign(w). ``remember`` is called with the former, if given.
    """

    @staticmethod
    def forward(
        ctx,
        weight: Tensor,
        modulator: Tensor,
        balance: Callable[[Tensor], Tensor | float],
        remember: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        ctx.save_for_backward(weight, modulator)
        ctx.balance, ctx.remember = balance, remember
        return scaled_sign(weight, modulator * AMPLITUDE)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        weight, modulator = ctx.saved_tensors
        balance = ctx.balance(grad)
        residual = weight - scaled_sign(weight, modulator * AMPLITUDE)
        to_weight = torch.addcmul(balance * residual, grad, modulator)
        pulled = (residual * sign(weight)).sum((1, 2, 3), keepdim=True) * AMPLITUDE
        to_modulator = (grad * weight).sum((1, 2, 3), keepdim=True) - balance * pulled
        if ctx.remember is not None:
            ctx.remember(to_weight)
        return to_weight, to_modulator, None, None


class ResilientSign(nn.Module):
    """Weights as sign times a learned scale per filter, with a pull that follows how often signs flip.

    Forward: 0.02 |m_k| sign(w). Gradient to w: |m_k| g + gamma_k (w - 0.02 |m_k| sign(w)), not clipped; to |m_k|: the
    sum over the filter of g w - gamma_k (w - 0.02 |m_k| sign(w)) 0.02 sign(w). gamma_k is the share of the filter's
    signs that flipped at the last step times the largest |g| of the filter, from 1e-5 to 2e-4.
    Xu et al., Resilient Binary Neural Network, AAAI 2023: the learned scale, gamma, and its term in backward. From the
    release (SteveTsui/ReBNN): the factor 0.02, m from a normal distribution, no clip, both gradients and the bounds.
    It sets gamma to 2e-4 everywhere, because it takes the smaller of gamma and 1e-5 and then the larger of that and
    2e-4, and compares the signs with those of w less its gradient. Here they are compared with those of the step
    before; a step at which no sign of the layer flips leaves the shares as they are (ours).

    Args:
        channels: number of output filters of weights [channels, C, h, w].
    """

    precision = 1
    positive: Tensor
    flips: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.modulator = nn.Parameter(torch.randn(channels, 1, 1, 1))
        self.register_buffer("flips", torch.zeros(channels, 1, 1, 1))

    def fit(self, weight: Tensor) -> None:
        self.register_buffer("positive", weight.detach() > 0)
        self.flips.zero_()

    @torch.no_grad()
    def _count_flips(self, weight: Tensor) -> Tensor:
        """The share of each filter's signs that flipped at the last step, [K, 1, 1, 1]."""
        positive = weight > 0
        flipped = positive != self.positive
        shares = flipped.to(self.flips.dtype).mean((1, 2, 3), keepdim=True)
        self.flips.copy_(torch.where(flipped.any(), shares, self.flips))
        self.positive.copy_(positive)
        return self.flips.clone()

    def forward(self, weight: Tensor) -> Tensor:
        flips = self._count_flips(weight) if self.training else self.flips

        def balance(grad: Tensor) -> Tensor:
            return (flips * grad.abs().amax((1, 2, 3), keepdim=True)).clamp(*BOUNDS)

        return BalancedSignFunction.apply(weight, self.modulator.abs(), balance)


REBNN = register_binarizer(
    Binarizer(
        name="rebnn",
        source="Xu et al., Resilient Binary Neural Network, AAAI 2023",
        input=RSign,
        weight=ResilientSign,
        activation=RPReLU,
    )
)
