"""A supernet written down plainly: every operation on every edge always runs by itself, and signs
are expressions left to autograd. What :class:`onebit.classification.search.supernet.Supernet` is tested
and measured against.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit.backbones.binarization import Binarizer
from onebit.backbones.cells.net import stem_layers
from onebit.backbones.cells.operations import CellStyle
from onebit.classification.search.space import INCOMING, SOURCES


def textbook_sign(x: Tensor) -> Tensor:
    return torch.where(x > 0, 1.0, -1.0).to(x.dtype)


class TextbookSign(nn.Module):
    """sign(x) with the gradient of the clipped x."""

    precision = 32  # what rounding leaves makes the values not exactly -1 and +1

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        clipped = x.clamp(-1, 1)
        return textbook_sign(x).detach() - clipped.detach() + clipped


class TextbookModulatedSign(nn.Module):
    """MCN: 0.02 |m| sign(w), with the gradient of m w."""

    precision = 32

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.modulator = nn.Parameter(torch.ones(channels, 1, 1, 1))

    def forward(self, weight: Tensor) -> Tensor:
        surrogate = self.modulator * weight
        value = 0.02 * self.modulator.abs() * textbook_sign(weight)
        return value.detach() - surrogate.detach() + surrogate


TEXTBOOK = Binarizer("textbook", "expressions", TextbookSign, TextbookModulatedSign)


class PlainSupernet(nn.Module):
    """The same parameters by the same names as ``Supernet``; ``binarizer`` None or TEXTBOOK."""

    def __init__(self, space, binarizer: Binarizer | None = None) -> None:
        super().__init__()
        style = CellStyle(binarizer)
        self.space = space
        self.stem = stem_layers("cifar", space.channels)
        self.cells = nn.ModuleList()
        reductions = (space.cells // 3, 2 * space.cells // 3)
        width, older, newer, halve = space.channels, 3 * space.channels, 3 * space.channels, False
        for position in range(space.cells):
            width *= 2 if position in reductions else 1
            reduction = position in reductions
            self.cells.append(PlainCell(space, older, newer, width, reduction, halve, style))
            older, newer, halve = newer, 4 * width, reduction
        self.classifier = nn.Linear(newer, space.num_classes)
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.track_running_stats = False
                norm.running_mean = norm.running_var = norm.num_batches_tracked = None
        for norm in self.cells.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight = norm.bias = None

    def forward(self, images: Tensor, weights: Tensor) -> Tensor:
        older = newer = self.stem[0](images)
        for cell in self.cells:
            older, newer = newer, cell(older, newer, weights[int(cell.reduction)])
        return self.classifier(newer.mean((2, 3)))


class PlainCell(nn.Module):
    def __init__(self, space, older, newer, channels, reduction, halve, style) -> None:
        super().__init__()
        fit_older = style.halve if halve else style.preprocess
        self.preprocess_older = fit_older(older, channels)
        self.preprocess_newer = style.preprocess(newer, channels)
        self.reduction = reduction
        self.edges = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: style.operation(name, channels, 2 if reduction and source < 2 else 1)
                    for name in space.operations
                }
            )
            for source in SOURCES
        )

    def forward(self, older: Tensor, newer: Tensor, weights: Tensor) -> Tensor:
        states = [self.preprocess_older(older), self.preprocess_newer(newer)]
        for edges in INCOMING:
            states.append(
                sum(
                    weights[edge, m] * operation(states[SOURCES[edge]])
                    for edge in edges
                    for m, operation in enumerate(self.edges[edge].values())
                )
            )
        return torch.cat(states[2:], 1)


class Shifted(nn.Module):
    """Batch norm, then a constant. A 1-bit convolution puts out few different values; where one of
    them is their mean, batch norm makes it 0, at which PReLU has two slopes to choose from.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, training=True) + 0.1
