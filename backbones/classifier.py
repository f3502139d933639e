"""The smallest network that classifies: what costs, packed files and latencies are stated for."""

from __future__ import annotations

from torch import Tensor, nn

from onebit.backbones.conv import set_role
from onebit.commons import guards
from onebit.commons.errors import InputError


class Classifier(nn.Module):
    """A backbone with global average pooling and a linear layer on its last map.

    Args:
        backbone: a network with ``feature_channels`` whose forward returns a tuple of maps.
        classes: number of classes.

    Raises:
        InputError: no such network, or a number of classes below 1.
    """

    def __init__(self, backbone: nn.Module, classes: int) -> None:
        super().__init__()
        guards.whole("classes", classes)
        channels: tuple[int, ...] = getattr(backbone, "feature_channels", ())
        if not channels:
            raise InputError(
                f"classes={classes} needs a backbone with feature_channels; {type(backbone).__name__} has none"
            )
        like = next(backbone.parameters())
        self.backbone = backbone
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels[-1], classes, device=like.device, dtype=like.dtype)
        set_role(self.classifier, "classifier")

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, 3, H, W] to logits [N, classes]."""
        return self.classifier(self.pool(self.backbone(x)[-1]).flatten(1))
