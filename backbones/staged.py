"""Backbones of a stem and stages, and the names of those that differ in width and binarizer only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from onebit.backbones.backbone import MOST_CHANNELS, Backbone
from onebit.backbones.binarization import BINARIZERS, Binarizer, get_binarizer
from onebit.backbones.conv import real_conv, set_role
from onebit.backbones.registry import Family
from onebit.commons import guards

#: In place of a binarizer: that of the paper's network.
DEFAULT = "default"
#: Of a real-valued twin's name, where the bare name is 1-bit.
REAL = "real"


class StagedBackbone(Backbone):
    """A stem, then stages in modules ``layer1``, ``layer2``, ... as far as ``out_indices`` needs them.

    Args:
        width: channels of the stem; None for ``paper_width``.
        binarizer: None for the real-valued network, else a name or a :class:`Binarizer`; ``default``
            for ``paper_binarizer``.
        stem: ``imagenet`` or ``cifar``.
        out_indices: the scales to return, in any order. Stages behind the last one are not built.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and what the first k scales need: no
            gradients, batch norm in eval mode.
        norm_eval: keep every batch norm in eval mode during training.
        init_cfg: mmengine's, e.g. ``dict(type='Pretrained', checkpoint=...)``.
        with_cp, norm_cfg: see :class:`onebit.backbones.backbone.Backbone`.
        pad_value: of the 1-bit convolutions, see :class:`onebit.backbones.OneBitConv2d`.

    Attributes:
        feature_channels, feature_strides: of the returned maps, one per out_index.
        stages: how many there are.
        stem_is_scale: whether the stem's map is the first scale.
        stem_stride: of the stem for images of ImageNet's size; for ``cifar`` it is 1.
        paper_width, paper_binarizer: those of the paper's network; None is the real-valued one.

    Raises:
        InputError: an argument out of range.
    """

    feature_channels: tuple[int, ...]
    feature_strides: tuple[int, ...]
    stages: ClassVar[int]
    stem_is_scale: ClassVar[bool] = True
    stem_stride: ClassVar[int] = 4
    paper_width: ClassVar[int]
    paper_binarizer: ClassVar[str | None] = None

    def __init__(
        self,
        width: int | None = None,
        binarizer: str | Binarizer | None = DEFAULT,
        stem: str = "imagenet",
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        pad_value: int = 0,
        init_cfg: dict | list[dict] | None = None,
        with_cp: bool = False,
        norm_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        scales = self.stages + self.stem_is_scale
        super().__init__(scales, out_indices, frozen_stages, norm_eval, init_cfg, with_cp, norm_cfg)
        self.width = self.paper_width if width is None else guards.whole("width", width, 1, MOST_CHANNELS)
        binarizer = self.paper_binarizer if binarizer == DEFAULT else binarizer
        self.binarizer = None if binarizer is None else get_binarizer(binarizer)
        self.imagenet = guards.choice("stem", stem, ("imagenet", "cifar")) == "imagenet"
        self.pad_value = pad_value
        self.build_stem()
        channels, strides = [self.width], [self.stem_stride if self.imagenet else 1]
        built = self.out_indices[-1] + (not self.stem_is_scale)
        for index in range(built):
            modules, out_channels, stride = self.stage(index, channels[-1])
            self.add_module(f"layer{index + 1}", nn.Sequential(*modules))
            channels.append(out_channels)
            strides.append(strides[-1] * stride)
        self.built = built
        first = 0 if self.stem_is_scale else 1
        self.feature_channels = tuple(channels[first + i] for i in self.out_indices)
        self.feature_strides = tuple(strides[first + i] for i in self.out_indices)
        self.settle()

    def build_stem(self) -> None:
        """ResNet's 7x7 convolution and 3x3 maximum, both of stride 2; for ``cifar`` one 3x3 convolution."""
        conv = real_conv(3, self.width, 7, 2) if self.imagenet else real_conv(3, self.width, 3)
        self.stem = nn.Sequential(conv, *self.stem_norm(), *([nn.MaxPool2d(3, 2, padding=1)] if self.imagenet else []))
        set_role(self.stem, "stem")

    def stem_norm(self) -> list[nn.Module]:
        """What follows the stem's convolution."""
        # Before a sign, a ReLU would leave nothing to tell apart.
        active = [nn.ReLU(inplace=True)] if self.binarizer is None else []
        return [nn.BatchNorm2d(self.width), *active]

    def stage(self, index: int, in_channels: int) -> tuple[list[nn.Module], int, int]:
        """The modules of a stage, counted from 0; the channels that it puts out, and its stride."""
        raise NotImplementedError

    def run_stem(self, x: Tensor) -> Tensor:
        return self.stem(x)

    def stem_modules(self) -> list[nn.Module]:
        return [self.stem]

    def _layers(self) -> list[nn.Module]:
        return [getattr(self, f"layer{index + 1}") for index in range(self.built)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images [N, 3, H, W] to one map [N, C_i, ceil(H / s_i), ceil(W / s_i)] per out_index."""
        x = self.run_stem(x)
        first = int(self.stem_is_scale)
        maps = [x] if self.stem_is_scale and 0 in self.out_indices else []
        for scale, layer in enumerate(self._layers(), start=first):
            for part in layer.children() if self.with_cp else (layer,):
                x = self.run_block(part, x)
            if scale in self.out_indices:
                maps.append(x)
        return tuple(maps)

    def frozen_modules(self, stages: int) -> list[nn.Module]:
        return [*self.stem_modules(), *self._layers()[: max(stages - self.stem_is_scale, 0)]]


def width_family(network: type[StagedBackbone], base: str, narrow: int) -> Family:
    """The family of names ``base``, ``base_w16``, ``base_bireal``, ``base_w16_bireal``, ...

    Args:
        network: where its paper's network is 1-bit, the real-valued twin has the suffix ``real``.
        base: the name alone.
        narrow: a width for listing, for tests.
    """
    own = network.paper_binarizer
    rule = re.compile(rf"{base}(?:_w(?P<width>[1-9]\d*))?(?:_(?P<binarizer>[a-z][a-z0-9]*))?")

    def suffixes() -> list[str]:
        return [*(name for name in BINARIZERS if name != own), *([REAL] if own else [])]

    def parse(name: str) -> dict | None:
        match = rule.fullmatch(name)
        if not match or match["binarizer"] not in (None, own, *suffixes()):
            return None
        binarizer = match["binarizer"] or own
        return dict(
            width=int(match["width"] or network.paper_width), binarizer=None if binarizer == REAL else binarizer
        )

    def names() -> list[str]:
        bare = [f"{base}{size}" for size in ("", f"_w{narrow}")]
        return [f"{name}{suffix}" for name in bare for suffix in ("", *(f"_{each}" for each in suffixes()))]

    return Family(type=network.__name__, names=names, parse=parse)
