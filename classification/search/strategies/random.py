"""Random search: the bar that any other method has to clear."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from classification.search.space import SearchSpace
from classification.search.strategies.base import (
    Report,
    Schedule,
    SearchData,
    Strategy,
    cross_entropy,
)
from classification.search.supernet import Supernet


@dataclass(frozen=True)
class RandomOptions:
    """Options of random search.

    Attributes:
        binarizer: of the supernet; None searches a real-valued network.
    """

    binarizer: str | None = "mcn"


class RandomSearch(Strategy):
    """Sample an architecture, train it for one epoch, score its operations by its performance.

    DCP-NAS, section 4.2.1 (Table 4, "Random Search"): in each epoch the 1-bit supernet samples and
    trains one architecture; the mean performance of the architectures that had an operation on an
    edge is its score, and the operations of the highest scores make the result. Operations that
    were never sampled score 0.
    """

    name = "random"
    Options = RandomOptions
    derivation = "top2"

    def __init__(self, space: SearchSpace, options=None, schedule: Schedule | None = None) -> None:
        super().__init__(space, options, schedule)
        self.supernet = Supernet(space, self.options.binarizer)
        self.weight_optimizer("weights", self.supernet)
        self.register_buffer("total", torch.zeros(space.shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(space.shape, dtype=torch.int64))

    def epoch(self, index: int, data: SearchData, report: Report) -> None:
        self.set_learning_rate(index, "weights")
        choice = torch.randint(len(self.space.operations), self.space.shape[:2])
        for images, labels in data.train:
            loss = self.weight_step(
                self.supernet,
                self._optimizers["weights"],
                lambda images=images, labels=labels: cross_entropy(
                    self.supernet(images, choice=choice), labels
                ),
                report,
            )
            report({"loss_weights": loss}, len(images))
        performance = self.evaluate(self.supernet, data.evaluation, choice=choice)
        chosen = choice[..., None].to(self.total.device)
        self.total.scatter_add_(
            -1, chosen, torch.full_like(chosen, performance, dtype=self.total.dtype)
        )
        self.count.scatter_add_(-1, chosen, torch.ones_like(chosen))

    def scores(self) -> Tensor:
        return self.total / self.count.clamp(min=1)
