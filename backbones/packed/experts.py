"""Convolutions with experts: each expert packed, the gate in front of them real-valued."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from onebit.backbones.expert_conv import ExpertConv2d


class PackedExperts(nn.Module):
    """The packed form of an :class:`onebit.backbones.ExpertConv2d`.

    Which expert computes is known when the image is, so that a network with experts runs module by module.

    Args:
        conv: gate and attention are taken from it.
        experts: the packed forms of its experts.
    """

    def __init__(self, conv: ExpertConv2d, experts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.gate, self.attention = conv.gate, conv.attention

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, K, H', W']."""
        seen = x.mean((2, 3))
        winners = self.gate(seen).sigmoid().argmax(1).tolist()
        y = torch.cat([self.experts[winner](image) for winner, image in zip(winners, x.split(1), strict=True)])
        return y if self.attention is None else y * self.attention(seen)[:, :, None, None]
