"""Feature pyramids with 1-bit convs.

DCP-NAS (Sec. 4.1) replaces the lateral connections of the FPN by 3x3 1-bit convolutions. Whether
the 3x3 output convs stay real-valued is not said there; they do by default here, because they feed
the real-valued heads.
"""

from __future__ import annotations

from mmcv.cnn import ConvModule
from mmdet.models.necks import FPN, PAFPN
from mmengine.model import xavier_init
from torch import nn

from onebit.backbones import OneBitConv2d, get_binarizer
from onebit.backbones.registry import MODELS

#: ``act_cfg`` for the activation that the binarizer's paper ends a block with.
OF_BINARIZER = "binarizer"


class _OneBitPyramid:
    """What the pyramids share. Goes before MMDetection's class among the bases."""

    def __init__(
        self,
        in_channels: list[int],
        out_channels: int,
        num_outs: int,
        binarizer: str = "bireal",
        pad_value: int = 0,
        onebit_outputs: bool = False,
        norm_cfg: dict | None = dict(type="BN"),  # noqa: B006  (never changed)
        act_cfg: dict | str | None = None,
        init_cfg: dict | list[dict] | None = None,
        **kwargs,
    ) -> None:
        of_binarizer = act_cfg == OF_BINARIZER
        super().__init__(
            in_channels,
            out_channels,
            num_outs,
            norm_cfg=norm_cfg,
            act_cfg=None if of_binarizer else act_cfg,
            init_cfg=init_cfg,
            **kwargs,
        )
        onebit = dict(binarizer=binarizer, pad_value=pad_value, activate=of_binarizer)
        for lateral in self.lateral_convs:
            binarize(lateral, kernel_size=3, padding=1, **onebit)
        if onebit_outputs:
            # The sign of 0 is -1: a ReLU before a sign changes no output and takes the gradient of negative values.
            self.relu_before_extra_convs = False
            for output in self.output_convs:
                binarize(output, **onebit)

    @property
    def output_convs(self) -> list[ConvModule]:
        """The 3x3 convs behind the laterals, and those of extra levels."""
        return [*self.fpn_convs]

    def init_weights(self) -> None:
        """Xavier for the real-valued convs; a 1-bit conv initializes itself."""
        if self.init_cfg is not None:
            super().init_weights()
            return
        for module in self.modules():
            if isinstance(module, OneBitConv2d):
                module.init_weights()
            elif isinstance(module, nn.Conv2d):
                xavier_init(module, distribution="uniform")
        self._is_init = True


@MODELS.register_module(force=True)
class OneBitFPN(_OneBitPyramid, FPN):
    """MMDetection's FPN with 3x3 1-bit lateral convs.

    Input and output are those of ``FPN``: a tuple of maps [N, in_channels[i], H_i, W_i] gives
    ``num_outs`` maps [N, out_channels, H_i, W_i].

    Args:
        in_channels, out_channels, num_outs: as in ``FPN``.
        binarizer: any name that :class:`onebit.backbones.OneBitConv2d` knows.
        pad_value: what a 1-bit conv sees outside the map: 0, -1 or +1.
        onebit_outputs: make the 3x3 output convs (and extra levels) 1-bit as well.
        norm_cfg: normalization after every conv. A 1-bit conv's output is a scaled count, so the
            default is BN; None leaves it out.
        act_cfg: activation after every conv, as in ``FPN``; or ``binarizer``: after every 1-bit
            conv the one that the binarizer's paper ends a block with (RPReLU for ReActNet).
        init_cfg: mmengine's, which then rules 1-bit convs too; by default Xavier for the real-valued ones.
        **kwargs: the other arguments of ``FPN``.

    Raises:
        InputError: unknown binarizer, or a pad value other than the above.
    """


@MODELS.register_module(force=True)
class OneBitPAFPN(_OneBitPyramid, PAFPN):
    """MMDetection's PAFPN (Liu et al., CVPR 2018) with 3x3 1-bit lateral convs (ours).

    Arguments, input and output are those of :class:`OneBitFPN`; ``onebit_outputs`` makes the convs of the path from
    fine to coarse maps 1-bit as well. Where a map comes down a level, its values are added to what a 1-bit conv makes
    of the finer one, so that real values flow past every 1-bit conv.

    Raises:
        InputError: as :class:`OneBitFPN`.
    """

    @property
    def output_convs(self) -> list[ConvModule]:
        """The 3x3 convs behind the laterals, and those of the second path."""
        return [*self.fpn_convs, *self.downsample_convs, *self.pafpn_convs]


def binarize(block: ConvModule, binarizer: str, pad_value: int, activate: bool = False, **changes) -> None:
    """Replace the real-valued conv of ``block`` by a 1-bit one of the same shape but ``changes``.

    Args:
        activate: end the block with the binarizer's activation.
    """
    real = block.conv
    shape = dict(kernel_size=real.kernel_size, stride=real.stride, padding=real.padding) | changes
    block.conv = OneBitConv2d(real.in_channels, real.out_channels, **shape, binarizer=binarizer, pad_value=pad_value)
    if activate:
        block.activate = get_binarizer(binarizer).activation(real.out_channels)
        block.with_activation = True
