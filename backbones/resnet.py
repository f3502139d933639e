"""ResNet 18, 34 and 50, real-valued or 1-bit.

Real-valued it is torchvision's network, parameter names included. In the 1-bit form the stem and
the 1x1 convolutions of downsampling shortcuts stay real-valued, and there is no ReLU.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from onebit.backbones.binarization import BINARIZERS, Binarizer
from onebit.backbones.conv import OneBitConv2d, real_conv, set_role
from onebit.backbones.expert_conv import MOST_EXPERTS, ExpertConv2d
from onebit.backbones.registry import MODELS, Family, register_family
from onebit.backbones.staged import StagedBackbone
from onebit.commons import guards
from onebit.commons.errors import InputError

#: Blocks per stage, He et al., CVPR 2016, Table 1.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def downsample(in_channels: int, out_channels: int, stride: int, pool: bool) -> nn.Module | None:
    """The shortcut of a block that changes shape; None where the identity will do.

    Args:
        pool: 2x2 average pooling before a 1x1 convolution of stride 1 (Bi-Real Net) instead of a
            strided 1x1 convolution (ResNet, option B).
    """
    if stride == 1 and in_channels == out_channels:
        return None
    layers = [average_pool(stride)] if pool and stride > 1 else []
    conv = real_conv(in_channels, out_channels, 1, 1 if pool else stride)
    return nn.Sequential(*layers, conv, nn.BatchNorm2d(out_channels))


def average_pool(stride: int) -> nn.Module:
    """Average pooling that leaves ceil(H / stride) rows, as a padded 3x3 convolution does."""
    return nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)


def keep_resolution(block: nn.Module) -> None:
    """Set the strides of a block to 1. Its weights, and their names, stay what they were."""
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        elif isinstance(module, nn.AvgPool2d):
            module.kernel_size = module.stride = 1


class BasicBlock(nn.Module):
    """Two real-valued 3x3 convolutions (He et al., CVPR 2016, Fig. 5 left).

    Args:
        width: channels of both convolutions.
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = real_conv(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = real_conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample(in_channels, width, stride, pool=False)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nn.Module):
    """Real-valued 1x1, 3x3 and 1x1 convolutions (He et al., CVPR 2016, Fig. 5 right).

    The stride is in the 3x3 convolution, as in torchvision.
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = 4 * width
        self.conv1 = real_conv(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = real_conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = real_conv(width, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample(in_channels, out_channels, stride, pool=False)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class OneBitUnit(nn.Module):
    """A 1-bit convolution with its norm, and a real-valued shortcut around it where asked for.

    Norm after the convolution: act(bn(conv(x)) + shortcut(x)) (Bi-Real Net, ReActNet). Norm first:
    conv(bn(x)) (XNOR-Net).

    Args:
        shortcut: None for no shortcut.
        experts: more than one make the convolution an :class:`onebit.backbones.ExpertConv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        binarizer: Binarizer,
        pad_value: int,
        shortcut: nn.Module | None,
        experts: int = 1,
    ) -> None:
        super().__init__()
        self.norm_first = binarizer.norm_first
        shape = (in_channels, out_channels, kernel_size, stride, kernel_size // 2)
        options: dict[str, Any] = dict(binarizer=binarizer, pad_value=pad_value)
        self.conv = (
            OneBitConv2d(*shape, **options) if experts == 1 else ExpertConv2d(*shape, **options, experts=experts)
        )
        self.bn = nn.BatchNorm2d(in_channels if self.norm_first else out_channels)
        self.shortcut = shortcut
        self.activation = binarizer.activation(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(self.bn(x)) if self.norm_first else self.bn(self.conv(x))
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        return self.activation(out)


class OneBitBlock(nn.Module):
    """The 1-bit form of :class:`BasicBlock`: two 3x3 units.

    With ``shortcut_per_conv`` each unit has its own shortcut, otherwise the block has one.
    """

    def __init__(
        self, in_channels: int, width: int, stride: int, binarizer: Binarizer, pad_value: int, experts: int = 1
    ) -> None:
        super().__init__()
        per_conv = binarizer.shortcut_per_conv
        around = downsample(in_channels, width, stride, pool=per_conv) or nn.Identity()
        self.shortcut = None if per_conv else around
        first, second = (around, nn.Identity()) if per_conv else (None, None)
        self.unit1 = OneBitUnit(in_channels, width, 3, stride, binarizer, pad_value, first, experts)
        self.unit2 = OneBitUnit(width, width, 3, 1, binarizer, pad_value, second, experts)

    def forward(self, x: Tensor) -> Tensor:
        out = self.unit2(self.unit1(x))
        return out if self.shortcut is None else out + self.shortcut(x)


class OneBitBottleneck(nn.Module):
    """The 1-bit form of :class:`Bottleneck`: 1x1, 3x3 and 1x1 units (ours).

    The block keeps its own shortcut, which carries real values past all three units. With
    ``shortcut_per_conv`` every unit that keeps its number of channels has one besides: always the
    3x3 one (average pooling where it has stride 2), and the first 1x1 one of the network. The
    other 1x1 units change the number of channels, so that the block's shortcut alone bypasses
    them.
    """

    def __init__(
        self, in_channels: int, width: int, stride: int, binarizer: Binarizer, pad_value: int, experts: int = 1
    ) -> None:
        super().__init__()
        out_channels = 4 * width
        per_conv = binarizer.shortcut_per_conv

        def unit(channels: int, filters: int, kernel_size: int, stride: int = 1) -> OneBitUnit:
            shortcut = None
            if per_conv and channels == filters:
                shortcut = nn.Identity() if stride == 1 else average_pool(stride)
            return OneBitUnit(channels, filters, kernel_size, stride, binarizer, pad_value, shortcut, experts)

        self.unit1 = unit(in_channels, width, 1)
        self.unit2 = unit(width, width, 3, stride)
        self.unit3 = unit(width, out_channels, 1)
        self.shortcut = downsample(in_channels, out_channels, stride, pool=per_conv) or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.unit3(self.unit2(self.unit1(x))) + self.shortcut(x)


@MODELS.register_module()
class ResNet(StagedBackbone):
    """ResNet as a backbone (He et al., CVPR 2016), real-valued or 1-bit.

    Args:
        depth: 18, 34 or 50.
        width: channels of the stem and of the first stage's 3x3 convolutions.
        binarizer: None for the real-valued network, else a name or a :class:`Binarizer`.
        stem: ``imagenet`` (7x7 convolution of stride 2, max-pooling; the stages have strides 4, 8,
            16, 32) or ``cifar`` (3x3 convolution; strides 1, 2, 4, 8).
        last_stride: of the last stage, 2 or 1. With 1 its maps are as high and wide as those of the
            stage before (Sun et al., ECCV 2018; Luo et al., CVPR Workshops 2019).
        out_indices: the stages, of 0 to 3, whose maps are returned, in any order. Later stages are
            not built.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages: no
            gradients, batch norm in eval mode.
        norm_eval: keep every batch norm in eval mode during training.
        pad_value: of the 1-bit convolutions, see :class:`OneBitConv2d`.
        init_cfg: mmengine's, e.g. ``dict(type='Pretrained', checkpoint=...)``.
        with_cp, norm_cfg: see :class:`onebit.backbones.backbone.Backbone`.
        num_stages: as in MMDetection: ``out_indices`` has to lie below it.
        style: as in MMDetection, ``pytorch`` or ``caffe``, which differ in bottlenecks only: those here have their
            stride in the 3x3 convolution (``pytorch``).
        experts: sets of filters of every 1-bit convolution, of which each image chooses one; see
            :class:`onebit.backbones.ExpertConv2d`.

    Attributes:
        feature_channels, feature_strides: of the returned maps, one per out_index.

    Raises:
        InputError: an argument out of range.
    """

    stages = 4
    stem_is_scale = False

    def __init__(
        self,
        depth: int = 18,
        width: int = 64,
        binarizer: str | Binarizer | None = None,
        stem: str = "imagenet",
        last_stride: int = 2,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        pad_value: int = 0,
        init_cfg: dict | list[dict] | None = None,
        with_cp: bool = False,
        norm_cfg: Mapping[str, Any] | None = None,
        num_stages: int = 4,
        style: str = "pytorch",
        experts: int = 1,
    ) -> None:
        # Before the rest is built by them.
        self.depth = guards.choice("depth", depth, BLOCKS)
        self.last_stride = guards.choice("last_stride", last_stride, (1, 2))
        self.experts = guards.whole("experts", experts, 1, MOST_EXPERTS)
        if experts > 1 and binarizer is None:
            raise InputError(f"experts {experts}: expected a binarizer, as experts are 1-bit")
        stages = guards.whole("num_stages", num_stages, 1, 4)
        if max(out_indices, default=0) >= stages:
            raise InputError(f"out_indices {tuple(out_indices)}: expected indices below num_stages, {stages}")
        if guards.choice("style", style, ("pytorch", "caffe")) == "caffe" and depth >= 50:
            raise InputError("style caffe: bottlenecks have their stride in the 3x3 convolution here, style pytorch")
        super().__init__(
            width, binarizer, stem, out_indices, frozen_stages, norm_eval, pad_value, init_cfg, with_cp, norm_cfg
        )

    def build_stem(self) -> None:
        sizes = (7, 2) if self.imagenet else (3, 1)
        self.conv1 = real_conv(3, self.width, *sizes, role="stem")
        self.bn1 = nn.BatchNorm2d(self.width)
        set_role(self.bn1, "stem")
        # A ReLU here would leave the first sign nothing to tell apart.
        self.relu = nn.ReLU(inplace=True) if self.binarizer is None else nn.Identity()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if self.imagenet else nn.Identity()

    def stage(self, index: int, in_channels: int) -> tuple[list[nn.Module], int, int]:
        width, stride = self.width * 2**index, 2 if index else 1
        blocks: list[nn.Module] = []
        for block in range(BLOCKS[self.depth][index]):
            shape = in_channels, width, 1 if block else stride
            if self.binarizer is None:
                blocks.append((BasicBlock if self.depth < 50 else Bottleneck)(*shape))
            else:
                onebit = OneBitBlock if self.depth < 50 else OneBitBottleneck
                blocks.append(onebit(*shape, self.binarizer, self.pad_value, self.experts))
            in_channels = width * (1 if self.depth < 50 else 4)
        if index == 3 and self.last_stride == 1:
            keep_resolution(blocks[0])
            stride = 1
        return blocks, in_channels, stride

    def run_stem(self, x: Tensor) -> Tensor:
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))

    def stem_modules(self) -> list[nn.Module]:
        return [self.conv1, self.bn1]


_NAME = re.compile(
    r"resnet(?P<depth>\d+)(?:_w(?P<width>[1-9]\d*))?(?:_e(?P<experts>[1-9]\d*)(?=_))?(?:_(?P<binarizer>[a-z][a-z0-9]*))?"
)


def _parse(name: str) -> dict | None:
    match = _NAME.fullmatch(name)
    if not match or int(match["depth"]) not in BLOCKS:
        return None
    if match["binarizer"] is not None and match["binarizer"] not in BINARIZERS:
        return None
    arguments = dict(depth=int(match["depth"]), width=int(match["width"] or 64), binarizer=match["binarizer"])
    return arguments | (dict(experts=int(match["experts"])) if match["experts"] else {})


def _names() -> list[str]:
    return [
        f"resnet{depth}{width}{suffix}"
        for depth in BLOCKS
        for width in ("", "_w16")
        for suffix in ("", *(f"_{binarizer}" for binarizer in BINARIZERS))
    ]


register_family(Family(type="ResNet", names=_names, parse=_parse))
