"""Four stages of one 1-bit convolution each: the smallest network with the four scales of an FPN."""

import re
from collections.abc import Sequence

from torch import Tensor, nn

from onebit.backbones import MODELS, Family, OneBitConv2d, get_binarizer, register_family
from onebit.backbones.backbone import Backbone
from onebit.backbones.binarization import BINARIZERS
from onebit.commons import guards


class Stage(nn.Module):
    """A 1-bit 3x3 convolution of stride 2 beside a real-valued shortcut, then the activation.

    Args:
        binarizer: its name.
    """

    def __init__(self, in_channels: int, out_channels: int, binarizer: str) -> None:
        super().__init__()
        self.conv = OneBitConv2d(in_channels, out_channels, 3, 2, 1, binarizer=binarizer)
        self.bn = nn.BatchNorm2d(out_channels)
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.activation = get_binarizer(binarizer).activation(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.bn(self.conv(x)) + self.shortcut(self.pool(x)))


@MODELS.register_module()
class TinyNet(Backbone):
    """Stem and four stages that double the channels and halve the size.

    Args:
        width: channels of the first stage.
        binarizer: name of what makes the convolutions 1-bit.
        stem: ``imagenet`` (stride 2: maps at 4, 8, 16, 32) or ``cifar`` (stride 1: at 2, 4, 8, 16).
        out_indices, frozen_stages, norm_eval, init_cfg: see ``onebit.backbones.backbone.Backbone``.
    """

    def __init__(
        self,
        width: int = 16,
        binarizer: str = "tanhsign",
        stem: str = "imagenet",
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(4, out_indices, frozen_stages, norm_eval, init_cfg)
        guards.choice("stem", stem, ("imagenet", "cifar"))
        stride = 2 if stem == "imagenet" else 1
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width))
        channels = [width * 2**stage for stage in range(4)]
        # Stages behind the last one asked for are not built: nothing would train them.
        inputs = [width, *channels][: self.out_indices[-1] + 1]
        self.stages = nn.ModuleList(Stage(i, o, binarizer) for i, o in zip(inputs, channels, strict=False))
        self.feature_channels = tuple(channels[i] for i in self.out_indices)
        self.feature_strides = tuple(stride * 2 ** (i + 1) for i in self.out_indices)
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images [N, 3, H, W] to one map per out_index."""
        x = self.stem(x)
        maps = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.out_indices:
                maps.append(x)
        return tuple(maps)

    def frozen_modules(self, stages: int) -> list[nn.Module]:
        return [self.stem, *self.stages[:stages]]


_NAME = re.compile(r"tinynet_w(?P<width>[1-9]\d*)_(?P<binarizer>[a-z][a-z0-9]*)")


def _parse(name: str) -> dict | None:
    match = _NAME.fullmatch(name)
    if match is None or match["binarizer"] not in BINARIZERS:
        return None
    return dict(width=int(match["width"]), binarizer=match["binarizer"])


def _names() -> list[str]:
    return [f"tinynet_w16_{binarizer}" for binarizer in BINARIZERS]


register_family(Family(type="TinyNet", names=_names, parse=_parse))
