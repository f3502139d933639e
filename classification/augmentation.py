"""Augmentation of whole batches on the device that trains."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from onebit.backbones.registry import MODELS
from onebit.commons import guards
from onebit.commons.compat import ensure_torchvision

ensure_torchvision()

# ruff: isort: split
from torchvision.transforms import v2


@MODELS.register_module()
class BatchAugmentation(BaseDataPreprocessor):
    """Random crop, flip and cutout of whole batches on the training device, then normalization.

    Every image of the batch draws its own offsets. In evaluation only the normalization is left.

    Args:
        mean, std: per channel, on the scale 0 to 255.
        padding: pixels of zero padding before a crop to the old size; 0 crops nothing.
        flip: flip left and right with probability 1/2.
        cutout: side in pixels of a square that is set to the mean (DeVries and Taylor, 2017); it
            may reach over the border. 0 cuts nothing.
        mixup: alpha of mixup (Zhang et al., ICLR 2018); 0 mixes nothing.
        cutmix: alpha of CutMix (Yun et al., ICCV 2019); 0 mixes nothing. With both, a coin decides
            for every batch.
        num_classes: number of classes; needed to mix labels.

    Raises:
        InputError: an alpha below 0.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        padding: int = 0,
        flip: bool = False,
        cutout: int = 0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(non_blocking=True)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), False)
        self.padding, self.flip, self.cutout = padding, flip, cutout
        mixes = []
        for name, kind, alpha in (("mixup", v2.MixUp, mixup), ("cutmix", v2.CutMix, cutmix)):
            if guards.number(f"{name} alpha", alpha, 0):
                mixes.append(kind(alpha=float(alpha), num_classes=num_classes))
        self.mix = v2.RandomChoice(mixes) if mixes else None

    def forward(self, data: dict, training: bool = False) -> dict:
        """``inputs`` uint8 [N, 3, H, W] to float of the same shape.

        ``labels`` [N] pass through; mixed ones become shares of the classes, [N, classes].
        """
        data = self.cast_data(data)
        images = data["inputs"]
        if training and self.padding:
            images = self._crop(images)
        if training and self.flip:
            chosen = torch.rand(len(images), device=images.device) < 0.5
            images = torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images)
        images = (images.float() - self.mean) / self.std
        if training and self.cutout:
            images = images * self._cutout_mask(images)
        labels = data["labels"]
        if training and self.mix is not None:
            images, labels = self.mix(images, labels)
        return dict(inputs=images, labels=labels)

    def _crop(self, images: Tensor) -> Tensor:
        n, channels, height, width = images.shape
        padded = F.pad(images, [self.padding] * 4)
        top, left = torch.randint(0, 2 * self.padding + 1, (2, n, 1), device=images.device)
        rows = (top + torch.arange(height, device=images.device)).view(n, 1, height, 1)
        columns = (left + torch.arange(width, device=images.device)).view(n, 1, 1, width)
        image = torch.arange(n, device=images.device).view(n, 1, 1, 1)
        channel = torch.arange(channels, device=images.device).view(1, channels, 1, 1)
        return padded[image, channel, rows, columns]

    def _cutout_mask(self, images: Tensor) -> Tensor:
        n, _, height, width = images.shape

        def outside(size: int) -> Tensor:
            centre = torch.randint(0, size, (n, 1), device=images.device)
            offset = torch.arange(size, device=images.device) - centre
            return (offset < -(self.cutout // 2)) | (offset >= self.cutout - self.cutout // 2)

        return (outside(height).view(n, 1, height, 1) | outside(width).view(n, 1, 1, width)).float()
