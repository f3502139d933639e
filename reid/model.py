"""A backbone made into a re-identification network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import backbones
from backbones.losses import feature_losses
from commons.errors import InputError

LOSSES = ("softmax", "triplet")
NECKS = ("none", "bn")


class Embedding(nn.Module):
    """What retrieval uses: images [N, 3, H, W] to features [N, D].

    Args:
        backbone: a module that returns feature maps; the last one counts.
        neck: ``none`` or ``bn``.
    """

    def __init__(self, backbone: nn.Module, neck: str) -> None:
        super().__init__()
        if neck not in NECKS:
            raise InputError(f"unknown neck {neck!r}; expected one of {', '.join(NECKS)}")
        self.feature_dim = backbone.feature_channels[-1]
        self.backbone = backbone
        self.neck = nn.BatchNorm1d(self.feature_dim) if neck == "bn" else nn.Identity()

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        """The features [N, D] before the neck."""
        return self.backbone(images)[-1].mean((2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.neck(self.pooled(images))


class ReIDModel(nn.Module):
    """Backbone, global average pooling, optionally a BN neck, and a classifier over identities.

    It answers as torchreid's engines expect: in training with logits [N, identities] (loss
    ``softmax``) or with logits and features (``triplet``), in evaluation with features [N, D], where
    D is the number of channels of the backbone's last map.

    The BN neck is that of Luo et al., CVPR Workshops 2019: one batch normalization between pooled
    features and classifier; the triplet loss sees the features before it, retrieval those behind it.

    Args:
        backbone: a name that :func:`backbones.create_backbone` knows.
        num_classes: number of training identities.
        loss: ``softmax`` or ``triplet``.
        neck: ``none`` or ``bn``.
        backbone_options: overrides for ``create_backbone``, e.g. ``{"stem": "cifar"}``.

    Raises:
        InputError: unknown name or option.
    """

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        *,
        loss: str = "softmax",
        neck: str = "none",
        backbone_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise InputError(f"unknown loss {loss!r}; expected one of {', '.join(LOSSES)}")
        self.loss = loss
        network = backbones.create_backbone(
            backbone, **{**(backbone_options or {}), "out_indices": (3,)}
        )
        if network.init_cfg:
            network.init_weights()
        self.embedding = Embedding(network, neck)
        self.classifier = nn.Linear(self.embedding.feature_dim, num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        self.feature_losses = feature_losses(network, self.embedding.feature_dim, num_classes)
        #: What the classifier saw last in training, for ``feature_losses``; None without these.
        self.features: torch.Tensor | None = None

    def forward(self, images: torch.Tensor):
        """Images [N, 3, H, W] to logits, (logits, features) or features; see the class."""
        pooled = self.embedding.pooled(images)
        features = self.embedding.neck(pooled)
        if not self.training:
            return features
        self.features = features if len(self.feature_losses) else None
        logits = self.classifier(features)
        return logits if self.loss == "softmax" else (logits, pooled)


def builder(name: str):
    """The function torchreid calls for ``build_model(name, ...)``."""

    def build(
        num_classes: int, loss: str = "softmax", pretrained: bool = False, use_gpu: bool = True
    ) -> ReIDModel:
        if pretrained:
            raise InputError(
                f"there are no pretrained weights of {name}: pass pretrained=False "
                f"(torchreid's default is True)"
            )
        return ReIDModel(name, num_classes, loss=loss)

    return build
