"""Random search: the bar that any other method has to clear."""

from __future__ import annotations

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from onebit.classification.search.bandits import MeanScores
from onebit.classification.search.options import STRICT
from onebit.classification.search.space import SearchSpace
from onebit.classification.search.strategies.base import Report, Schedule, SearchData, Strategy, cross_entropy
from onebit.classification.search.supernet import Supernet


@dataclass(frozen=True, config=STRICT)
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
        self.performance = MeanScores(space.shape)

    def parts(self) -> tuple[str, ...]:
        return ("train", "evaluation")

    def epoch(self, index: int, data: SearchData, report: Report) -> None:
        self.set_learning_rate(index, "weights")
        choice = torch.randint(len(self.space.operations), self.space.shape[:2])
        for images, labels in data.train:
            loss = self.weight_step(
                self.supernet,
                self._optimizers["weights"],
                lambda images=images, labels=labels: cross_entropy(self.supernet(images, choice=choice), labels),
                report,
            )
            report({"loss_weights": loss}, len(images))
        accuracy = self.evaluate(self.supernet, data.evaluation, choice=choice)
        self.performance.give(choice.to(self.performance.count.device), accuracy)

    def scores(self) -> Tensor:
        return self.performance.mean()
