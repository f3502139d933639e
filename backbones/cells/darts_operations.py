"""The operations of a real-valued DARTS cell: ReLU, convolution, BN, in this order.

The structure in which DARTS (Liu et al., ICLR 2019, Section 3.1.1) and PC-DARTS evaluate their
cells; pooling has no norm there, unlike in their search. Every operation maps [N, C, H, W] to
[N, C, ceil(H / stride), ceil(W / stride)].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onebit.backbones.cells.operations import Zero, every_second
from onebit.backbones.conv import real_conv


class SeparableConv(nn.Sequential):
    """ReLU, depthwise convolution, pointwise convolution, BN."""

    def __init__(self, channels: int, kernel_size: int, stride: int, dilation: int) -> None:
        super().__init__(
            nn.ReLU(),  # not in place: a node's other edges see its input too
            real_conv(
                channels,
                channels,
                kernel_size,
                stride,
                "depthwise",
                padding=dilation * (kernel_size - 1) // 2,
                dilation=dilation,
                groups=channels,
            ),
            real_conv(channels, channels, 1, role="pointwise"),
            nn.BatchNorm2d(channels),
        )


class ReLUConvBN(nn.Sequential):
    """ReLU, 1x1 convolution, BN: a cell's input to its width."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(nn.ReLU(), real_conv(in_channels, channels, 1, role="preprocess"), nn.BatchNorm2d(channels))


class FactorizedReduce(nn.Module):
    """ReLU, two 1x1 convolutions at every second pixel, concatenated, BN.

    The first convolution sees the even rows and columns, the second the odd ones, each makes half
    of the output channels. Where H or W is odd (which DARTS excludes) the second sees one row or
    column of zeros more.

    Args:
        channels: of the output, an even number.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.conv_even = real_conv(in_channels, channels // 2, 1, role="preprocess")
        self.conv_odd = real_conv(in_channels, channels // 2, 1, role="preprocess")
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        even, odd = every_second(self.relu(x))
        return self.bn(torch.cat((self.conv_even(even), self.conv_odd(odd)), 1))


class DartsStyle:
    """Builds the parts of a real-valued DARTS cell, as :class:`onebit.backbones.cells.operations.CellStyle` those
    of a 1-bit one."""

    def preprocess(self, in_channels: int, channels: int) -> nn.Module:
        return ReLUConvBN(in_channels, channels)

    def halve(self, in_channels: int, channels: int) -> nn.Module:
        return FactorizedReduce(in_channels, channels)

    def operation(self, name: str, channels: int, stride: int) -> nn.Module:
        """Build the operation ``name`` of :data:`onebit.backbones.cells.genotype.OPERATIONS`.

        Args:
            channels: of its input and output.
            stride: 1, or 2 on the edges that leave the input nodes of a reduction cell.
        """
        if name == "none":
            return Zero(stride)
        if name == "skip_connect":
            return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
        if name == "max_pool_3x3":
            return nn.MaxPool2d(3, stride, padding=1)
        if name == "avg_pool_3x3":
            return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
        kind, _, size = name.split("_")
        kernel_size = int(size[0])
        if kind == "dil":
            return SeparableConv(channels, kernel_size, stride, 2)
        return nn.Sequential(
            SeparableConv(channels, kernel_size, stride, 1), SeparableConv(channels, kernel_size, 1, 1)
        )
