"""Heads with 1-bit convs: the region proposal network, and one-stage detectors."""

from __future__ import annotations

import torch
from mmcv.cnn import ConvModule
from mmdet.models.dense_heads import FCOSHead, RetinaHead, RPNHead, YOLOXHead
from torch import nn

from onebit.backbones import OneBitConv2d
from onebit.backbones.registry import MODELS
from onebit.commons.errors import InputError
from onebit.detection.necks import binarize


@MODELS.register_module(force=True)
class OneBitRPNHead(RPNHead):
    """MMDetection's RPN head whose 3x3 convs are 1-bit (ours).

    Input and output are those of ``RPNHead``. Its two 1x1 output convs stay real-valued, and so does
    the ReLU before them.

    Args:
        in_channels, num_convs, **kwargs: as in ``RPNHead``.
        binarizer: any name that :class:`onebit.backbones.OneBitConv2d` knows.
        pad_value: what a 1-bit conv sees outside the map: 0, -1 or +1.
        norm_cfg: normalization after every 1-bit conv. One head serves all levels of the pyramid,
            whose statistics differ, so that the default normalizes every image and level by itself
            (GN); None leaves it out.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        binarizer: str = "bireal",
        pad_value: int = 0,
        norm_cfg: dict | None = dict(type="GN", num_groups=32),  # noqa: B006  (never changed)
        **kwargs,
    ) -> None:
        self._onebit = dict(binarizer=binarizer, pad_value=pad_value)
        self._norm_cfg = norm_cfg
        super().__init__(in_channels, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        # No ReLU between: the sign of 0 is -1 here, so that a sign behind it would see the same,
        # but negative inputs would get no gradient.
        self.rpn_conv = nn.Sequential(*_blocks(ConvModule, self, self.num_convs, self._norm_cfg))

    def init_weights(self) -> None:
        """``RPNHead``'s rule for the real-valued convs; a 1-bit conv initializes itself."""
        super().init_weights()
        init_onebit(self)


class ShortcutConv(ConvModule):
    """A conv past which its input flows, as around every 1-bit conv of Bi-Real Net (Liu et al., ECCV 2018)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [N, C, H, W] to maps of the same shape; where the channels change there is no shortcut."""
        made = super().forward(x)
        return made + x if made.shape == x.shape else made


class _OneBitTowers:
    """What one-stage heads share: the stacks of 3x3 convs before their outputs are 1-bit. Goes before the class."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        binarizer: str = "bireal",
        pad_value: int = 0,
        norm_cfg: dict | None = dict(type="GN", num_groups=32),  # noqa: B006  (never changed)
        **kwargs,
    ) -> None:
        self._onebit = dict(binarizer=binarizer, pad_value=pad_value)
        super().__init__(num_classes, in_channels, norm_cfg=norm_cfg, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        self.cls_convs = nn.ModuleList(_blocks(ShortcutConv, self, self.stacked_convs, self.norm_cfg))
        self.reg_convs = nn.ModuleList(_blocks(ShortcutConv, self, self.stacked_convs, self.norm_cfg))

    def init_weights(self) -> None:
        """MMDetection's rule for the real-valued convs; a 1-bit conv initializes itself."""
        super().init_weights()
        init_onebit(self)


@MODELS.register_module(force=True)
class OneBitRetinaHead(_OneBitTowers, RetinaHead):
    """MMDetection's RetinaNet head (Lin et al., ICCV 2017) whose stacks of 3x3 convs are 1-bit (ours).

    Input and output are those of ``RetinaHead``. Its two output convs stay real-valued. A shortcut leads past every
    1-bit conv whose channels stay, and there is no ReLU between them.

    Args:
        num_classes, in_channels, **kwargs: as in ``RetinaHead``.
        binarizer: any name that :class:`onebit.backbones.OneBitConv2d` knows.
        pad_value: what a 1-bit conv sees outside the map: 0, -1 or +1.
        norm_cfg: normalization after every 1-bit conv, by default GN, as in :class:`OneBitRPNHead`.

    Raises:
        InputError: unknown binarizer, or a pad value other than the above.
    """


@MODELS.register_module(force=True)
class OneBitFCOSHead(_OneBitTowers, FCOSHead):
    """MMDetection's FCOS head (Tian et al., ICCV 2019) whose stacks of 3x3 convs are 1-bit (ours).

    Input and output are those of ``FCOSHead``; its three output convs stay real-valued. Arguments are those of
    :class:`OneBitRetinaHead`.

    Raises:
        InputError: as :class:`OneBitRetinaHead`.
    """


@MODELS.register_module(force=True)
class OneBitYOLOXHead(_OneBitTowers, YOLOXHead):
    """MMDetection's YOLOX head (Ge et al., 2021) whose stacks of 3x3 convs, two for each level, are 1-bit (ours).

    Input and output are those of ``YOLOXHead``; its three output convs of a level stay real-valued, and there is no
    Swish between the 1-bit ones. Arguments are those of :class:`OneBitRetinaHead`.

    Raises:
        InputError: as :class:`OneBitRetinaHead`, or depthwise or deformable convs, which are not 1-bit here.
    """

    def _init_layers(self) -> None:
        if self.use_depthwise or self.dcn_on_last_conv:
            raise InputError("OneBitYOLOXHead has no use_depthwise and no dcn_on_last_conv: its convs are 1-bit")
        YOLOXHead._init_layers(self)  # builds the stacks level by level

    def _build_stacked_convs(self) -> nn.Sequential:
        return nn.Sequential(*_blocks(ShortcutConv, self, self.stacked_convs, self.norm_cfg))


def _blocks(kind: type[ConvModule], head: nn.Module, count: int, norm_cfg: dict | None) -> list[ConvModule]:
    """``count`` 1-bit 3x3 convs from a head's input channels to its inner ones, without activations."""
    blocks, channels = [], head.in_channels
    for _ in range(count):
        block = kind(channels, head.feat_channels, 3, padding=1, bias=False, norm_cfg=norm_cfg, act_cfg=None)
        binarize(block, **head._onebit)
        blocks.append(block)
        channels = head.feat_channels
    return blocks


def init_onebit(head: nn.Module) -> None:
    """Let every 1-bit conv initialize itself."""
    for module in head.modules():
        if isinstance(module, OneBitConv2d):
            module.init_weights()
