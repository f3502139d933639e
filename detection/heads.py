"""The region proposal network with a 1-bit conv."""

from __future__ import annotations

from mmcv.cnn import ConvModule
from mmdet.models.dense_heads import RPNHead
from torch import nn

from onebit.backbones import OneBitConv2d
from onebit.backbones.registry import MODELS
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
        blocks, channels = [], self.in_channels
        for _ in range(self.num_convs):
            # No ReLU between: the sign of 0 is -1 here, so that a sign behind it would see the same,
            # but negative inputs would get no gradient.
            block = ConvModule(
                channels, self.feat_channels, 3, padding=1, bias=False, norm_cfg=self._norm_cfg, act_cfg=None
            )
            binarize(block, **self._onebit)
            blocks.append(block)
            channels = self.feat_channels
        self.rpn_conv = nn.Sequential(*blocks)

    def init_weights(self) -> None:
        """``RPNHead``'s rule for the real-valued convs; a 1-bit conv initializes itself."""
        super().init_weights()
        for module in self.modules():
            if isinstance(module, OneBitConv2d):
                module.init_weights()
