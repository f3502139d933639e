"""The operations of a 1-bit cell.

Structure as the DCP-NAS authors released it, but for the eps of most of their batch norms (1e-3, here 1e-5) and the
in-place ReLU of their stem, which rectifies the older input of the first cell too. By default weights are 1-bit
throughout and activations only in the pointwise convolutions; :class:`CellStyle` has the switches. Batch norms and PReLUs
are real-valued, and there is no ReLU.
Every operation maps [N, C, H, W] to [N, C, ceil(H / stride), ceil(W / stride)].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit.backbones.binarization import Binarizer
from onebit.backbones.conv import REAL_BITS, OneBitConv2d, real_conv, set_role
from onebit.backbones.prelu import PReLU

#: What of a convolution is made 1-bit.
BINARIZED = ("none", "weights", "both")


@dataclass(frozen=True)
class CellStyle:
    """How the parts of a network's 1-bit cells are built.

    Attributes:
        binarizer: of weights and activations; None makes every convolution real-valued.
        shortcut: add the input of a stride-1 separable or dilated block to its output. The paper
            says there is none; the authors' released code has one.
        binarize_preprocess: of the convolutions that fit a cell's two inputs to its width
            ``none`` (real-valued), ``weights`` or ``both`` weights and activations.
        binarize_depthwise: the same of depthwise convolutions.
    """

    binarizer: Binarizer | None
    shortcut: bool = True
    binarize_preprocess: str = "weights"
    binarize_depthwise: str = "weights"

    def conv(
        self, in_channels: int, out_channels: int, kernel_size: int, role: str, *, binarize: str, **options
    ) -> nn.Conv2d:
        """A convolution without bias that declares its ``cost_role`` (see :mod:`onebit.backbones.cost`).

        Args:
            binarize: one of :data:`BINARIZED`.
        """
        sizes = in_channels, out_channels, kernel_size
        if self.binarizer is None or binarize == "none":
            return real_conv(*sizes, role=role, **options)
        conv = OneBitConv2d(*sizes, binarizer=self.binarizer, binarize_input=binarize == "both", **options)
        set_role(conv, role)
        return conv

    def preprocess(self, in_channels: int, channels: int) -> nn.Module:
        """What fits a cell's input to its width."""
        return Preprocess(in_channels, channels, self)

    def halve(self, in_channels: int, channels: int, binarize: str | None = None) -> nn.Module:
        """The same for an input twice as high and wide; ``binarize`` in place of that of preprocessing."""
        return Halve(in_channels, channels, self, binarize or self.binarize_preprocess)

    def operation(self, name: str, channels: int, stride: int) -> nn.Module:
        """Build the operation ``name`` of :data:`onebit.backbones.cells.genotype.OPERATIONS`.

        Args:
            channels: of its input and output.
            stride: 1, or 2 on the edges that leave the input nodes of a reduction cell.
        """
        if name == "none":
            return Zero(stride)
        if name == "skip_connect":
            return nn.Identity() if stride == 1 else self.halve(channels, channels, "weights")
        kind, _, size = name.split("_")
        if kind in ("max", "avg"):
            return Pool(channels, kind, stride)
        if kind == "dil":
            return SeparableBlock(channels, int(size[0]), stride, 2, self)
        return nn.Sequential(
            SeparableBlock(channels, int(size[0]), stride, 1, self), SeparableBlock(channels, int(size[0]), 1, 1, self)
        )


class SeparableBlock(nn.Module):
    """BN, depthwise convolution, BN, PReLU, pointwise convolution, BN, shortcut, PReLU.

    The depthwise convolution sees real-valued activations unless ``style`` says otherwise, the
    pointwise one their signs. The shortcut adds the block's own input, at stride 1 only. With k-bit
    activations the first PReLU is left out.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int, dilation: int, style: CellStyle) -> None:
        super().__init__()
        self.bn_in = nn.BatchNorm2d(channels)
        self.depthwise = style.conv(
            channels,
            channels,
            kernel_size,
            "depthwise",
            binarize=style.binarize_depthwise,
            stride=stride,
            padding=dilation * (kernel_size - 1) // 2,
            dilation=dilation,
            groups=channels,
        )
        self.bn_depthwise = nn.BatchNorm2d(channels)
        self.pointwise = style.conv(channels, channels, 1, "pointwise", binarize="both")
        # Quantizers of k > 1 bits are their own activation function: what is below 0 they clip.
        clips = 1 < getattr(self.pointwise, "input_bits", REAL_BITS) < REAL_BITS
        self.prelu_depthwise = nn.Identity() if clips else PReLU(channels)
        self.bn_pointwise = nn.BatchNorm2d(channels)
        self.prelu = PReLU(channels)
        self.shortcut = style.shortcut and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        out = self.prelu_depthwise(self.bn_depthwise(self.depthwise(self.bn_in(x))))
        out = self.bn_pointwise(self.pointwise(out))
        return self.prelu(out + x if self.shortcut else out)


class Pool(nn.Module):
    """3x3 max or average pooling (padding counts for neither), then BN."""

    def __init__(self, channels: int, kind: str, stride: int) -> None:
        super().__init__()
        largest = kind == "max"
        self.pool = (
            nn.MaxPool2d(3, stride, 1) if largest else nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
        )
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.pool(x))


class Zero(nn.Module):
    """The operation ``none``: no information passes along this edge."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class Preprocess(nn.Module):
    """BN, 1x1 convolution, BN, PReLU: a cell's input to its width."""

    def __init__(self, in_channels: int, channels: int, style: CellStyle) -> None:
        super().__init__()
        self.bn_in = nn.BatchNorm2d(in_channels)
        binarize = style.binarize_preprocess
        self.conv = style.conv(in_channels, channels, 1, "preprocess", binarize=binarize)
        self.bn = nn.BatchNorm2d(channels)
        self.prelu = PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.prelu(self.bn(self.conv(self.bn_in(x))))


class Halve(nn.Module):
    """BN, two 1x1 convolutions at every second pixel, concatenated, BN, PReLU.

    The first convolution sees the even rows and columns, the second the odd ones, each makes half
    of the output channels. Where H or W is odd the second sees one row or column of zeros more, so
    that both put out ceil(H / 2) x ceil(W / 2).

    Args:
        channels: of the output, an even number.
        binarize: one of :data:`BINARIZED`.
    """

    def __init__(self, in_channels: int, channels: int, style: CellStyle, binarize: str) -> None:
        super().__init__()
        self.bn_in = nn.BatchNorm2d(in_channels)
        half = channels // 2
        self.conv_even = style.conv(in_channels, half, 1, "preprocess", binarize=binarize)
        self.conv_odd = style.conv(in_channels, half, 1, "preprocess", binarize=binarize)
        self.bn = nn.BatchNorm2d(channels)
        self.prelu = PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        even, odd = every_second(self.bn_in(x))
        return self.prelu(self.bn(torch.cat((self.conv_even(even), self.conv_odd(odd)), 1)))


def every_second(x: Tensor) -> tuple[Tensor, Tensor]:
    """The even and the odd rows and columns of a map, the latter padded to the size of the former.

    Subsampling before a 1x1 convolution is a 1x1 convolution of stride 2.
    """
    return x[:, :, ::2, ::2], F.pad(x[:, :, 1::2, 1::2], (0, x.shape[3] % 2, 0, x.shape[2] % 2))
