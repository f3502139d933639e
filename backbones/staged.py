"""Backbones of a stem and stages, and the names of those that differ in width and binarizer only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import ClassVar

from torch import Tensor, nn

from onebit.backbones.backbone import Backbone
from onebit.backbones.binarization import BINARIZERS, Binarizer, get_binarizer
from onebit.backbones.conv import real_conv, set_role
from onebit.backbones.registry import Family
from onebit.commons import guards

#: Of a real-valued twin's name, where the bare name is 1-bit.
REAL = "real"


class StagedBackbone(Backbone):
    """A stem, then stages in modules ``layer1``, ``layer2``, ... as far as ``out_indices`` needs them.

    A subclass builds its stem and ends its constructor with :meth:`build_stages`.

    Args:
        width: channels of the stem.
        binarizer: None for the real-valued network, else a name or a :class:`Binarizer`.
        stem: ``imagenet`` or ``cifar``.
        out_indices, frozen_stages, norm_eval, init_cfg: see :class:`Backbone`.
        pad_value: of the 1-bit convolutions, see :class:`onebit.backbones.OneBitConv2d`.

    Attributes:
        stages: how many there are.
        stem_is_scale: whether the stem's map is the first scale.

    Raises:
        InputError: an argument out of range.
    """

    stages: ClassVar[int]
    stem_is_scale: ClassVar[bool] = True

    def __init__(
        self,
        width: int,
        binarizer: str | Binarizer | None,
        stem: str,
        out_indices: Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        pad_value: int,
        init_cfg: dict | list[dict] | None,
    ) -> None:
        super().__init__(self.stages + self.stem_is_scale, out_indices, frozen_stages, norm_eval, init_cfg)
        self.width = guards.whole("width", width)
        self.binarizer = None if binarizer is None else get_binarizer(binarizer)
        self.imagenet = guards.choice("stem", stem, ("imagenet", "cifar")) == "imagenet"
        self.pad_value = pad_value

    def stem_layers(self, pool: bool, norm: Iterable[nn.Module]) -> nn.Sequential:
        """ResNet's 7x7 convolution of stride 2, or 3x3 for ``cifar``; ``norm``; for the former a 3x3 maximum."""
        conv = real_conv(3, self.width, 7, 2) if self.imagenet else real_conv(3, self.width, 3)
        layers = nn.Sequential(conv, *norm, *([nn.MaxPool2d(3, 2, padding=1)] if pool and self.imagenet else []))
        set_role(layers, "stem")
        return layers

    def build_stages(self, stem_stride: int) -> None:
        """Build the stages by :meth:`stage`; say which channels and strides the scales have; freeze."""
        channels, strides = [self.width], [stem_stride]
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
        self.freeze()

    def stage(self, index: int, in_channels: int) -> tuple[list[nn.Module], int, int]:
        """The modules of a stage, counted from 0; the channels that it puts out, and its stride."""
        raise NotImplementedError

    def run_stem(self, x: Tensor) -> Tensor:
        return self.get_submodule("stem")(x)

    def stem_modules(self) -> list[nn.Module]:
        return [self.get_submodule("stem")]

    def _layers(self) -> list[nn.Module]:
        return [self.get_submodule(f"layer{index + 1}") for index in range(self.built)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images [N, 3, H, W] to one map [N, C_i, ceil(H / s_i), ceil(W / s_i)] per out_index."""
        x = self.run_stem(x)
        first = int(self.stem_is_scale)
        maps = [x] if self.stem_is_scale and 0 in self.out_indices else []
        for scale, layer in enumerate(self._layers(), start=first):
            x = layer(x)
            if scale in self.out_indices:
                maps.append(x)
        return tuple(maps)

    def frozen_modules(self, stages: int) -> list[nn.Module]:
        return [*self.stem_modules(), *self._layers()[: max(stages - self.stem_is_scale, 0)]]


def width_family(network: type[StagedBackbone], base: str, width: int, narrow: int, own: str | None = None) -> Family:
    """The family of names ``base``, ``base_w16``, ``base_bireal``, ``base_w16_bireal``, ...

    Args:
        network: takes ``width`` and ``binarizer``.
        base: the name alone.
        width: that it means.
        narrow: a width for listing, for tests.
        own: the binarizer that it means; the real-valued twin has the suffix ``real`` then.
    """
    rule = re.compile(rf"{base}(?:_w(?P<width>[1-9]\d*))?(?:_(?P<binarizer>[a-z][a-z0-9]*))?")

    def suffixes() -> list[str]:
        return [*(name for name in BINARIZERS if name != own), *([REAL] if own else [])]

    def parse(name: str) -> dict | None:
        match = rule.fullmatch(name)
        if not match or match["binarizer"] not in (None, own, *suffixes()):
            return None
        binarizer = match["binarizer"] or own
        return dict(width=int(match["width"] or width), binarizer=None if binarizer == REAL else binarizer)

    def names() -> list[str]:
        bare = [f"{base}{size}" for size in ("", f"_w{narrow}")]
        return [f"{name}{suffix}" for name in bare for suffix in ("", *(f"_{each}" for each in suffixes()))]

    return Family(type=network.__name__, names=names, parse=parse)
