"""WRN-22, the wide residual network that the papers compare with on CIFAR-10.

The papers print its cost and not its width. Stages of 64, 128 and 256 channels behind a stem of 64
("kernel stage 64-64-128-256" in the PCNN and BONN papers) have 4.327 M parameters with a classifier
of ten classes and 647.69 M MACs at 32x32 pixels; BNAS Table 2 prints 4.33 M, CP-NAS Table 3 647.70
M. The widths 16-64-128-256 of the wide ResNet paper with k = 4 have 4.30 M and 619.1 M; that is the 4.30 M
of another row of BNAS Table 2.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from onebit.backbones.binarization import Binarizer
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

    Args:
        width: channels of the stem and of the first stage; the papers' network has 64.
        binarizer: None for the real-valued network, else a name or a :class:`Binarizer`.
        stem: ``imagenet`` or ``cifar``.
        out_indices: the scales to return, ascending. Later stages are not built.
        frozen_stages: -1 freezes nothing, 0 or 1 the stem, k the stem and the first k - 1 stages:
            no gradients, batch norm in eval mode.
        norm_eval: keep every batch norm in eval mode during training.
        pad_value: of the 1-bit convolutions, see :class:`OneBitConv2d`.
        init_cfg: mmengine's, e.g. ``dict(type='Pretrained', checkpoint=...)``.

    Attributes:
        feature_channels, feature_strides: of the returned maps, one per out_index.

    Raises:
        InputError: an argument out of range.
    """

    stages = STAGES

    def __init__(
        self,
        width: int = 64,
        binarizer: str | Binarizer | None = None,
        stem: str = "imagenet",
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        pad_value: int = 0,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(width, binarizer, stem, out_indices, frozen_stages, norm_eval, pad_value, init_cfg)
        # Real-valued, the first block starts with this norm.
        self.stem = self.stem_layers(True, [] if self.binarizer is None else [nn.BatchNorm2d(width)])
        self.build_stages(4 if self.imagenet else 1)

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


register_family(width_family(WideResNet, "wrn22", 64, narrow=16))
