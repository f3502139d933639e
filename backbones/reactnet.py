"""ReActNet-A, a MobileNetV1 of 1-bit convolutions only (Liu et al., ECCV 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onebit.backbones.binarization import Binarizer
from onebit.backbones.conv import real_conv, set_role
from onebit.backbones.registry import MODELS, register_family
from onebit.backbones.resnet import OneBitUnit, average_pool
from onebit.backbones.staged import StagedBackbone, width_family

#: What the blocks put out, by scale, in multiples of the stem's channels. Of each scale the first
#: block has stride 2, but of the first scale the second: its first is at the stem's resolution.
SCALES = ((2, 4, 4), (8, 8), (16,) * 6, (32, 32))


class RealUnit(nn.Module):
    """The real-valued twin of a 1-bit unit: relu(bn(conv(x)) + shortcut(x))."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv = real_conv(in_channels, out_channels, kernel_size, stride)
        self.bn = nn.BatchNorm2d(out_channels)
        self.shortcut = shortcut
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)) + self.shortcut(x))


class Duplicated(nn.Module):
    """Two 1x1 units that see the same input, concatenated: twice as many channels.

    Each has an identity around it, so that what they put out carries the real-valued input twice
    (Liu et al., Section 4.1).
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.first(x), self.second(x)), dim=1)


class ReActBlock(nn.Module):
    """A 3x3 unit that keeps the number of channels, then 1x1 units that keep or double it.

    Around the 3x3 unit is an identity, or 2x2 average pooling where its stride is 2; around each
    1x1 unit an identity (Liu et al., Section 4.1). For binarizers without a shortcut per
    convolution, one pooled, repeated shortcut bypasses the block instead (ours): without any, no
    real value would get past it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, binarizer: Binarizer | None, pad_value: int
    ) -> None:
        super().__init__()
        per_conv = binarizer is None or binarizer.shortcut_per_conv

        def unit(kernel_size: int, stride: int = 1) -> nn.Module:
            around = average_pool(stride) if stride > 1 else nn.Identity()
            if binarizer is None:
                return RealUnit(in_channels, in_channels, kernel_size, stride, around)
            shortcut = around if per_conv else None
            return OneBitUnit(in_channels, in_channels, kernel_size, stride, binarizer, pad_value, shortcut)

        self.spatial = unit(3, stride)
        self.copies = out_channels // in_channels
        self.pointwise = unit(1) if self.copies == 1 else Duplicated(unit(1), unit(1))
        self.shortcut = None
        if not per_conv:
            self.shortcut = average_pool(stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.pointwise(self.spatial(x))
        if self.shortcut is None:
            return out
        around = self.shortcut(x)
        return out + (around if self.copies == 1 else torch.cat((around, around), dim=1))


@MODELS.register_module()
class ReActNetA(StagedBackbone):
    """ReActNet-A as a backbone (Liu et al., ECCV 2020, Section 4).

    MobileNetV1 with each depthwise convolution replaced by a full 1-bit 3x3 one. The stem is
    real-valued. With ``width`` 32 and a classifier of 1000 classes it has 29.3 M parameters and, at
    224x224 pixels, 4.82 G BOPs and 12 M FLOPs: the paper's 87 M OPs. Scales have 4, 8, 16 and 32
    times ``width`` channels, with strides 4, 8, 16, 32 (``stem`` set to ``imagenet``) or 1, 2, 4, 8
    (``cifar``, ours: neither the stem nor the first scale has a stride).

    Arguments, attributes and errors are those of :class:`onebit.backbones.staged.StagedBackbone`.
    """

    stages = len(SCALES)
    stem_is_scale = False
    stem_stride = 2
    paper_width, paper_binarizer = 32, "reactnet"

    def build_stem(self) -> None:
        self.stem = nn.Sequential(real_conv(3, self.width, 3, 2 if self.imagenet else 1), *self.stem_norm())
        set_role(self.stem, "stem")

    def stage(self, index: int, in_channels: int) -> tuple[list[nn.Module], int, int]:
        blocks: list[nn.Module] = []
        for block, multiple in enumerate(SCALES[index]):
            strided = block == 0 if index else block == 1 and self.imagenet
            out_channels = multiple * self.width
            blocks.append(ReActBlock(in_channels, out_channels, 2 if strided else 1, self.binarizer, self.pad_value))
            in_channels = out_channels
        return blocks, in_channels, 2 if index or self.imagenet else 1


register_family(width_family(ReActNetA, "reactnet_a", narrow=8))
