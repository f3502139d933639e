"""RBONN: filters of small scale go back along their last gradient before they are binarized."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onebit.backbones.binarization.binarizer import Binarizer, register_binarizer
from onebit.backbones.binarization.reactnet import RPReLU, RSign
from onebit.backbones.binarization.rebnn import BalancedSignFunction

#: Weight of the bilinear constraint.
BALANCE = 1e-4
#: Share of the filters, those of the largest scales, that are not backtracked.
THRESHOLD = 0.6


class RecurrentSign(nn.Module):
    """Weights as sign times a learned scale per filter; in training, of backtracked weights.

    Forward: 0.02 |m_k| sign(v); v = w in evaluation, in training v = w - u_k d in the 40 % of the filters with the
    smallest |m_k| and w in the others (Density-ReLU), d the gradient to w of the step before. Gradient to w: |m_k| g +
    1e-4 (v - 0.02 |m_k| sign(v)); to |m_k|: the sum over the filter of g v - 1e-4 (v - 0.02 |m_k| sign(v)) 0.02
    sign(v); to u_k: minus the sum of d times the gradient to w. u starts at 0.2, m from a normal distribution.
    Xu et al., Recurrent Bilinear Optimization, ECCV 2022: the bilinear constraint, the recurrence, tau = 0.6. All
    numbers and gradients are those of the release (SteveTsui/RBONN), which leaves out the paper's second condition,
    that the filter's weights are dense, and the absolute value of u. It ranks the scales by one sorting of indices,
    which is no ranking; here the filters are those of the smallest scales, as in the paper. Before weights have changed,
    as between the batches of one accumulated step, there is no backtracking (ours). The release trains u at a tenth of
    the learning rate, which is left to a recipe.

    Each process of a distributed training goes back along its own gradient.

    Args:
        channels: number of output filters of weights [channels, C, h, w].
    """

    precision = 1
    gradient: Tensor
    largest: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.modulator = nn.Parameter(torch.randn(channels, 1, 1, 1))
        self.recurrence = nn.Parameter(torch.full((channels, 1, 1, 1), 0.2))

    def fit(self, weight: Tensor) -> None:
        self.register_buffer("gradient", torch.zeros_like(weight.detach()))
        # By this it is known whether the weights are still those that the gradient was taken at.
        self.register_buffer("largest", weight.detach().amax((1, 2, 3)))

    def forward(self, weight: Tensor) -> Tensor:
        modulator = self.modulator.abs()
        if not self.training:
            return BalancedSignFunction.apply(weight, modulator, lambda grad: BALANCE)
        largest = weight.detach().amax((1, 2, 3))
        ranks = modulator.detach().flatten().argsort().argsort().view_as(modulator)
        sparse = ranks < int(len(weight) * (1 - THRESHOLD))
        goes_back = sparse & (largest != self.largest).any()

        def remember(to_weight: Tensor) -> None:
            self.gradient.copy_(to_weight)
            self.largest.copy_(largest)

        # A product of its own, as the gradient is written over in backward.
        weight = weight - self.recurrence * (self.gradient * goes_back)
        return BalancedSignFunction.apply(weight, modulator, lambda grad: BALANCE, remember)


RBONN = register_binarizer(
    Binarizer(
        name="rbonn",
        source="Xu et al., Recurrent Bilinear Optimization for Binary Neural Networks, ECCV 2022",
        input=RSign,
        weight=RecurrentSign,
        activation=RPReLU,
    )
)
