"""WRN-22, the wide residual network that the papers compare with on CIFAR-10.

The papers print its cost and not its width. Stages of 64, 128 and 256 channels behind a stem of 64
("kernel stage 64-64-128-256" in the PCNN and BONN papers) have 4.327 M parameters with a classifier
of ten classes and 647.69 M MACs at 32x32 pixels; BNAS Table 2 prints 4.33 M, CP-NAS Table 3 647.70
M. The widths 16-64-128-256 of the wide ResNet paper with k = 4 have 4.30 M and 619.1 M; that is the 4.30 M
of another row of BNAS Table 2.
"""

from __future__ import annotations

from torch import Tensor, nn

from onebit.backbones.conv import real_conv
from onebit.backbones.registry import MODELS, register_family
from onebit.backbones.resnet import OneBitBlock
from onebit.backbones.staged import StagedBackbone, width_family

#: Residual blocks per stage: depth 22 = 6 x 3 + 4 (Zagoruyko and Komodakis, Table 1).
BLOCKS = 3
STAGES = 3


class PreActivationBlock(nn.Module):
    """BN, ReLU, 3x3 convolution, twice, and a shortcut (Zagoruyko and Komodakis, Fig. 1a).

    Where the shape changes, the shortcut is a 1x1 convolution of what the first ReLU puts out.
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = real_conv(in_channels, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = real_conv(width, width, 3)
        self.relu = nn.ReLU(inplace=True)
        same = stride == 1 and in_channels == width
        self.downsample = None if same else real_conv(in_channels, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu(self.bn1(x))
        shortcut = x if self.downsample is None else self.downsample(active)
        return self.conv2(self.relu(self.bn2(self.conv1(active)))) + shortcut


@MODELS.register_module()
class WideResNet(StagedBackbone):
    """WRN-22 as a backbone (Zagoruyko and Komodakis, BMVC 2016), real-valued or 1-bit.

    Three stages of three blocks. Real-valued, BN and ReLU come before every convolution, and once
    more after the last stage. In the 1-bit form the blocks are those of the 1-bit ResNet (BN after
    the convolution, or before it for XNOR-Net), the stem and the 1x1 convolutions of shortcuts stay
    real-valued, and there is no ReLU.

    Scales: the stem, then the three stages, of ``width``, ``width``, 2 ``width`` and 4 ``width``
    channels. Strides are 1, 1, 2, 4 with ``stem`` set to ``cifar``, the papers' network, and
    4, 8, 16, 32 with ``imagenet``, ours: the 7x7 convolution and max-pooling of ResNet, and a first
    stage of stride 2.

    Arguments, attributes and errors are those of :class:`onebit.backbones.staged.StagedBackbone`; the papers' network has a ``width`` of 64.
    """

    stages, paper_width = STAGES, 64

    def stem_norm(self) -> list[nn.Module]:
        return [] if self.binarizer is None else [nn.BatchNorm2d(self.width)]  # real-valued, the first block has it

    def stage(self, index: int, in_channels: int) -> tuple[list[nn.Module], int, int]:
        width, stride = self.width * 2**index, 2 if index or self.imagenet else 1
        blocks: list[nn.Module] = []
        for block in range(BLOCKS):
            shape = (width if block else in_channels, width, 1 if block else stride)
            if self.binarizer is None:
                blocks.append(PreActivationBlock(*shape))
            else:
                blocks.append(OneBitBlock(*shape, self.binarizer, self.pad_value))
        if index == STAGES - 1 and self.binarizer is None:
            blocks += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        return blocks, width, stride


register_family(width_family(WideResNet, "wrn22", narrow=16))
