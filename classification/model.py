"""A backbone with a classifier."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from onebit.backbones.auxiliary import AuxiliaryHead
from onebit.backbones.conv import binarize_weights
from onebit.backbones.losses import feature_losses
from onebit.backbones.registry import MODELS
from onebit.classification.cuda_graph import GraphedNetwork
from onebit.classification.distillation import Distillation
from onebit.classification.predictions import leading
from onebit.commons import guards
from onebit.commons.errors import InputError


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """Backbone, global average pooling, linear classifier, cross-entropy.

    In training the pooled features and the labels go to the modules in ``feature_losses`` too: those
    of the backbone's binarizer, and what is appended (:class:`onebit.backbones.ClassCentreLoss`). Their
    losses are collected with those of the layers (:func:`onebit.backbones.method_losses`).

    Args:
        backbone: config of a backbone with one output.
        num_classes: number of classes.
        label_smoothing: of the cross-entropy.
        auxiliary_weight: of the cross-entropy of an auxiliary head on a network of cells, in
            training; the papers have 0.4. Without weight there is no such head.
        data_preprocessor: config of :class:`onebit.classification.augmentation.BatchAugmentation`.
        binarize: ``both``, or ``activations`` of the 1-bit convolutions alone, whose weights are
            then used as they are.
        distillation: arguments of :class:`onebit.classification.distillation.Distillation`.
        channels_last: keep weights and maps in this memory format.
        cuda_graph: train the backbone through CUDA graphs (:mod:`onebit.classification.cuda_graph`), captured
            anew in every epoch.

    Raises:
        InputError: an auxiliary head for a backbone that has no place for one, or with ``cuda_graph``; mixed
            labels for losses that need a class; a teacher that does not fit.
    """

    def __init__(
        self,
        backbone: dict,
        num_classes: int,
        label_smoothing: float = 0.0,
        auxiliary_weight: float = 0.0,
        data_preprocessor: dict | None = None,
        binarize: str = "both",
        distillation: dict | None = None,
        channels_last: bool = False,
        cuda_graph: bool = False,
    ) -> None:
        super().__init__(data_preprocessor)
        self.backbone = MODELS.build(backbone)
        self.binarize = guards.choice("binarize", binarize, ("activations", "both"))
        binarize_weights(self.backbone, binarize == "both")
        channels = self.backbone.feature_channels[-1]
        self.classifier = nn.Linear(channels, num_classes)
        self.feature_losses = feature_losses(self.backbone, channels, num_classes)
        if len(self.feature_losses) and getattr(self.data_preprocessor, "mix", None):
            raise InputError("mixup and cutmix: expected a method without a loss on classes")
        self.label_smoothing = guards.fraction("label_smoothing", label_smoothing)
        self.distillation = Distillation(num_classes, **distillation) if distillation else None
        self.auxiliary_weight = guards.number("auxiliary_weight", auxiliary_weight, 0)
        if auxiliary_weight:
            channels = getattr(self.backbone, "auxiliary_channels", 0)
            if not channels:
                raise InputError(
                    f"auxiliary_weight {auxiliary_weight!r}: expected a network of cells with its "
                    f"last scale, found {type(self.backbone).__name__}"
                )
            self.auxiliary_head = AuxiliaryHead(channels, num_classes)
        self.channels_last = channels_last
        if channels_last:
            self.to(memory_format=torch.channels_last)
        self.graphed = GraphedNetwork() if cuda_graph else None

    def set_progress(self, fraction: float) -> None:
        """A new epoch begins: what its modules were told is part of a graph."""
        if self.graphed is not None:
            self.graphed.forget()

    def forward(self, inputs: Tensor, labels: Tensor | None = None, mode: str = "tensor"):
        """Images [N, 3, H, W] to logits [N, classes], a dict of losses, or predictions.

        Args:
            mode: ``tensor``; ``loss``; or ``predict``: one dict per image with its ``label`` and,
                of :func:`onebit.classification.predictions.leading`, its ``classes`` and ``ranks``.
        """
        if self.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
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
        """``labels`` [N], or shares of the classes [N, classes]."""

        def cross_entropy(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

        if self.auxiliary_weight:
            maps, auxiliary_map = self.backbone.forward_auxiliary(inputs)
        else:
            maps = self.backbone(inputs) if self.graphed is None else self.graphed(self.backbone, inputs)
        features = self._features(maps)
        for feature_loss in self.feature_losses:
            feature_loss(features, labels)
        logits = self.classifier(features)
        losses = {}
        share = self.distillation.weight if self.distillation else 0.0
        if share < 1:
            losses["loss_main"] = (1 - share) * cross_entropy(logits)
        if self.distillation:
            losses["loss_distillation"] = share * self.distillation(logits, inputs)
        # Of one image, the head's maps of one pixel have no variance to normalize by.
        if self.auxiliary_weight and len(inputs) > 1:
            auxiliary = cross_entropy(self.auxiliary_head(auxiliary_map))
            losses["loss_auxiliary"] = self.auxiliary_weight * auxiliary
        if len(losses) > 1:
            return losses
        # One loss is called ``loss``, as mmengine calls the sum of several in its logs.
        return dict(loss=next(iter(losses.values())))
