"""Top-k accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS


@METRICS.register_module(force=True)
class TopK(BaseMetric):
    """Share of images whose label is among the k classes of highest score, as a fraction.

    Takes the ``rank`` of each image's label that :class:`classification.model.ImageClassifier`
    predicts.
    """

    ks = (1, 5)
    default_prefix = ""  # None would make mmengine warn that there is none

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        self.results += [sample["rank"] for sample in data_samples]

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        return {f"top{k}": sum(rank < k for rank in results) / len(results) for k in self.ks}
