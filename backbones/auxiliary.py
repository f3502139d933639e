"""The auxiliary classifier that DARTS trains beside a network of cells."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

#: Channels of its two convolutions.
CHANNELS = (128, 768)


class AuxiliaryHead(nn.Module):
    """ReLU, pooling to 2x2, 1x1 convolution to 128 channels, BN, ReLU, 2x2 convolution to 768, BN,
    ReLU, linear classifier (NASNet and DARTS).

    DARTS pools maps of 8x8 (CIFAR) and of 7x7 pixels (ImageNet) with 5x5 windows of stride 3 and 2.
    Maps of other sizes are pooled adaptively (ours).

    Args:
        in_channels: of the map that cell floor(2L/3) puts out.
        num_classes: number of classes.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        first, second = CHANNELS
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, first, 1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
            nn.Conv2d(first, second, 2, bias=False),
            nn.BatchNorm2d(second),
            nn.ReLU(inplace=True),
        )
        self.classifier = nn.Linear(second, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """A map [N, in_channels, H, W] to logits [N, num_classes]."""
        x = F.relu(x)
        height, width = x.shape[2:]
        if {height, width} <= {7, 8}:
            x = F.avg_pool2d(x, 5, (height - 5, width - 5))
        else:
            x = F.adaptive_avg_pool2d(x, 2)
        return self.classifier(self.features(x).flatten(1))
