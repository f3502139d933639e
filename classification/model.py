"""A backbone with a classifier, and the batch-wise augmentation in front of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import Tensor, nn

from backbones.auxiliary import AuxiliaryHead
from backbones.losses import feature_losses
from backbones.registry import MODELS
from classification.predictions import leading
from commons.errors import InputError


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
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        padding: int = 0,
        flip: bool = False,
        cutout: int = 0,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), False)
        self.padding, self.flip, self.cutout = padding, flip, cutout

    def forward(self, data: dict, training: bool = False) -> dict:
        """``inputs`` uint8 [N, 3, H, W] to float of the same shape; ``labels`` pass through."""
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
        return dict(inputs=images, labels=data["labels"])

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


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """Backbone, global average pooling, linear classifier, cross-entropy.

    In training the pooled features and the labels go to the modules in ``feature_losses`` too: those
    of the backbone's binarizer, and what is appended (:class:`backbones.ClassCentreLoss`). Their
    losses are collected with those of the layers (:func:`backbones.method_losses`).

    Args:
        backbone: config of a backbone with one output.
        num_classes: number of classes.
        label_smoothing: of the cross-entropy.
        auxiliary_weight: of the cross-entropy of an auxiliary head on a network of cells, in
            training; the papers have 0.4. Without weight there is no such head.
        data_preprocessor: config of :class:`BatchAugmentation`.

    Raises:
        InputError: an auxiliary head for a backbone that has no place for one.
    """

    def __init__(
        self,
        backbone: dict,
        num_classes: int,
        label_smoothing: float = 0.0,
        auxiliary_weight: float = 0.0,
        data_preprocessor: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor)
        self.backbone = MODELS.build(backbone)
        channels = self.backbone.feature_channels[-1]
        self.classifier = nn.Linear(channels, num_classes)
        self.feature_losses = feature_losses(self.backbone, channels, num_classes)
        self.label_smoothing = label_smoothing
        self.auxiliary_weight = auxiliary_weight
        if auxiliary_weight < 0:
            raise InputError(f"auxiliary_weight {auxiliary_weight!r}: expected 0 or more")
        if auxiliary_weight:
            channels = getattr(self.backbone, "auxiliary_channels", 0)
            if not channels:
                raise InputError(
                    f"auxiliary_weight {auxiliary_weight!r}: expected a network of cells with its "
                    f"last scale, found {type(self.backbone).__name__}"
                )
            self.auxiliary_head = AuxiliaryHead(channels, num_classes)

    def forward(self, inputs: Tensor, labels: Tensor | None = None, mode: str = "tensor"):
        """Images [N, 3, H, W] to logits [N, classes], a dict of losses, or predictions.

        Args:
            mode: ``tensor``; ``loss``; or ``predict``: one dict per image with its ``label`` and,
                of :func:`classification.predictions.leading`, its ``classes`` and ``ranks``.
        """
        if mode == "loss":
            return self._losses(inputs, labels)
        logits = self.classifier(self._features(self.backbone(inputs)))
        if mode == "tensor":
            return logits
        classes, ranks = leading(logits)
        return [
            dict(label=label, classes=c, ranks=r)
            for label, c, r in zip(labels.tolist(), classes.cpu(), ranks.cpu(), strict=True)
        ]

    @staticmethod
    def _features(maps: tuple[Tensor, ...]) -> Tensor:
        return maps[-1].mean((2, 3))

    def _losses(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        def cross_entropy(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

        if self.auxiliary_weight:
            maps, auxiliary_map = self.backbone.forward_auxiliary(inputs)
        else:
            maps = self.backbone(inputs)
        features = self._features(maps)
        for feature_loss in self.feature_losses:
            feature_loss(features, labels)
        loss = cross_entropy(self.classifier(features))
        if not self.auxiliary_weight:
            return dict(loss=loss)
        auxiliary = cross_entropy(self.auxiliary_head(auxiliary_map))
        # Not ``loss``, which mmengine calls the sum of both in its logs.
        return dict(loss_main=loss, loss_auxiliary=self.auxiliary_weight * auxiliary)
