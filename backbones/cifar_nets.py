"""ResNet-20 and VGG-Small, the networks of CIFAR size in which 1-bit methods report.

IR-Net (CVPR 2020), RBNN (NeurIPS 2020), ReCU (ICCV 2021) and AdaBin (ECCV 2022) report both.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from onebit.backbones.conv import real_conv
from onebit.backbones.registry import MODELS, register_family
from onebit.backbones.resnet import OneBitBlock, OneBitUnit
from onebit.backbones.staged import StagedBackbone, width_family

#: Residual blocks per stage of ResNet-20: 6 x 3 + 2 layers (He et al., CVPR 2016, section 4.2).
BLOCKS = 3
STAGES = 3


class PaddedBlock(nn.Module):
    """Two real-valued 3x3 convolutions whose shortcut has no parameters.

    Where the shape changes, the shortcut takes every other pixel and pads the channels with zeros
    (He et al., CVPR 2016, section 4.2, option A).
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = real_conv(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = real_conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.stride, self.added = stride, width - in_channels

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.added:
            x = F.pad(x, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))
        return self.relu(out + x)


@MODELS.register_module()
class CifarResNet(StagedBackbone):
    """ResNet-20 as a backbone (He et al., CVPR 2016, section 4.2), real-valued or 1-bit.

    Three stages of three blocks. Real-valued, shortcuts have no parameters (option A): 0.27 M
    parameters with a classifier of ten classes. In the 1-bit form the blocks are those of the 1-bit
    ResNet, whose shortcuts have a real-valued 1x1 convolution where the shape changes.

    Scales: the stem, then the three stages, of ``width``, ``width``, 2 ``width`` and 4 ``width``
    channels, with strides 1, 1, 2, 4 for ``stem='cifar'`` and 4, 8, 16, 32 for ``imagenet`` (ours).

    Arguments, attributes and errors are those of :class:`onebit.backbones.staged.StagedBackbone`; ResNet-20 has a ``width`` of 16.
    """

    stages, paper_width = STAGES, 16

    def stage(self, index: int, in_channels: int) -> tuple[list[nn.Module], int, int]:
        width, stride = self.width * 2**index, 2 if index or self.imagenet else 1
        blocks: list[nn.Module] = []
        for block in range(BLOCKS):
            shape = (width if block else in_channels, width, 1 if block else stride)
            if self.binarizer is None:
                blocks.append(PaddedBlock(*shape))
            else:
                blocks.append(OneBitBlock(*shape, self.binarizer, self.pad_value))
        return blocks, width, stride


@MODELS.register_module()
class VGGSmall(StagedBackbone):
    """VGG-Small as a backbone (Zhang et al., LQ-Nets, ECCV 2018, section 5.1), real-valued or 1-bit.

    Six 3x3 convolutions of 128, 128, 256, 256, 512 and 512 channels, each with a norm; a 2x2 maximum
    ends each of the three stages. The first convolution is the stem and stays real-valued. There is
    no shortcut, whatever the binarizer has in a ResNet. The papers' classifier sees all 4 x 4 pixels
    of the last maps (4.66 M parameters in all with ten classes); this suite's sees their mean (4.58 M).

    Scales: the stem, then the three stages, of ``width``, ``width``, 2 ``width`` and 4 ``width``
    channels, with strides 1, 2, 4, 8 for ``stem='cifar'`` and 4, 8, 16, 32 for ``imagenet`` (ours).

    Args, attributes and errors are those of :class:`CifarResNet`; ``width`` is 128 in the papers.
    """

    stages, paper_width = STAGES, 128

    def stage(self, index: int, in_channels: int) -> tuple[list[nn.Module], int, int]:
        width = self.width * 2**index
        # The stem is the first of the first stage's two convolutions.
        shapes = [(width, width)] if in_channels == width else [(in_channels, width), (width, width)]
        units: list[nn.Module] = []
        for shape in shapes:
            if self.binarizer is None:
                units += [real_conv(*shape, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            else:
                units.append(OneBitUnit(*shape, 3, 1, self.binarizer, self.pad_value, None))
        return [*units, nn.MaxPool2d(2, 2, ceil_mode=True)], width, 2


register_family(width_family(CifarResNet, "resnet20", narrow=8))
register_family(width_family(VGGSmall, "vgg_small", narrow=16))
