"""A backbone made into a re-identification network."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from onebit import backbones
from onebit.backbones.losses import feature_losses
from onebit.backbones.registry import MODELS
from onebit.commons import guards
from onebit.commons.errors import InputError

LOSSES = ("softmax", "triplet")
NECKS = ("none", "bn")


class Embedding(nn.Module):
    """What retrieval uses: images [N, 3, H, W] to features [N, D].

    Args:
        backbone: a module that returns feature maps; the last one counts.
        neck: ``none`` or ``bn``.
        feature_dim: D; None for the number of channels of the backbone's last map, otherwise a
            linear layer without bias stands behind the pooling.
    """

    def __init__(self, backbone: nn.Module, neck: str, feature_dim: int | None = None) -> None:
        super().__init__()
        guards.choice("neck", neck, NECKS)
        channels = backbone.feature_channels[-1]
        self.feature_dim = channels if feature_dim is None else guards.whole("feature_dim", feature_dim)
        self.backbone = backbone
        self.projection = nn.Identity()
        if feature_dim is not None:
            self.projection = nn.Linear(channels, feature_dim, bias=False)
            nn.init.kaiming_normal_(self.projection.weight, mode="fan_out")
        self.neck = nn.BatchNorm1d(self.feature_dim) if neck == "bn" else nn.Identity()

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        """The features [N, D] before the neck."""
        return self.projection(self.backbone(images)[-1].mean((2, 3)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.neck(self.pooled(images))


class ReIDModel(nn.Module):
    """Backbone, global average pooling, optionally a BN neck, and a classifier over identities.

    It answers as torchreid's engines expect: in training with logits [N, identities] (loss
    ``softmax``) or with logits and features (``triplet``), in evaluation with features [N, D].

    The BN neck is that of Luo et al., CVPR Workshops 2019: one batch normalization between pooled
    features and classifier; the triplet loss sees the features before it, retrieval those behind it.

    Args:
        backbone: a name that :func:`onebit.backbones.create_backbone` knows.
        num_classes: number of training identities.
        loss: ``softmax`` or ``triplet``.
        neck: ``none`` or ``bn``.
        feature_dim: D, by default the number of channels of the backbone's last map; otherwise a
            linear layer leads there.
        last_stride: stride of the backbone's last stage. 2 is every network as it is; 1 doubles
            height and width of the last maps, which only ResNets can do.
        backbone_options: overrides for ``create_backbone``, e.g. ``{"stem": "cifar"}``.

    Raises:
        InputError: unknown name or option, or a stride the network cannot have.
    """

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        *,
        loss: str = "softmax",
        neck: str = "none",
        feature_dim: int | None = None,
        last_stride: int = 2,
        backbone_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.loss = guards.choice("loss", loss, LOSSES)
        options = {**(backbone_options or {}), "out_indices": (3,)}
        if last_stride != 2:
            _require_last_stride(backbone, last_stride)
            options["last_stride"] = last_stride
        network = backbones.create_backbone(backbone, **options)
        if network.init_cfg:
            network.init_weights()
        self.embedding = Embedding(network, neck, feature_dim)
        self.classifier = nn.Linear(self.embedding.feature_dim, num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        self.feature_losses = feature_losses(network, self.embedding.feature_dim, num_classes)
        #: What the classifier saw last in training, for ``feature_losses``; None without these.
        self.features: torch.Tensor | None = None

    def forward(self, images: torch.Tensor, return_featuremaps: bool = False):
        """Images [N, 3, H, W] to logits, (logits, features) or features; see the class.

        ``return_featuremaps`` asks for the backbone's last map [N, C, h, w] instead, as torchreid's
        ``visualize_actmap`` does.
        """
        if return_featuremaps:
            return self.embedding.backbone(images)[-1]
        if not self.training:
            return self.embedding(images)
        pooled = self.embedding.pooled(images)
        features = self.embedding.neck(pooled)
        self.features = features if len(self.feature_losses) else None
        logits = self.classifier(features)
        return logits if self.loss == "softmax" else (logits, pooled)


def _require_last_stride(backbone: str, last_stride: int) -> None:
    network = MODELS.get(backbones.backbone_config(backbone)["type"])
    if "last_stride" not in inspect.signature(network).parameters:
        raise InputError(
            f"last_stride {last_stride}: {backbone} has no last stage whose stride could be changed; "
            f"ResNets have. Use last_stride 2"
        )


def builder(name: str):
    """The function torchreid calls for ``build_model(name, ...)``."""

    def build(num_classes: int, loss: str = "softmax", pretrained: bool = False, use_gpu: bool = True) -> ReIDModel:
        if pretrained:
            raise InputError(
                f"there are no pretrained weights of {name}: pass pretrained=False (torchreid's default is True)"
            )
        return ReIDModel(name, num_classes, loss=loss)

    return build
