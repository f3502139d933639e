"""Top-k accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from onebit.classification.predictions import Predictions, ranks_of, top_k


@METRICS.register_module(force=True)
class TopK(BaseMetric):
    """Share of images whose label is among the k classes of highest score, as a fraction.

    Takes what :class:`onebit.classification.model.ImageClassifier` predicts, and holds what was scored
    last in ``predictions``, in the order of the data.

    Args:
        num_classes: how many classes the network tells apart.
    """

    ks = (1, 5)
    default_prefix = ""  # None would make mmengine warn that there is none

    def __init__(self, num_classes: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.predictions: Predictions | None = None

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        self.results += [(s["label"], s["classes"], s["ranks"]) for s in data_samples]

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        labels, classes, ranks = zip(*results, strict=True)
        kept = Predictions(torch.stack(classes), torch.stack(ranks), self.num_classes)
        self.predictions = kept
        return top_k(ranks_of(torch.tensor(labels), kept.classes, kept.ranks), self.ks)
