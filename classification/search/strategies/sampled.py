"""What CP-NAS, BNAS and ABanditNAS share: they draw architectures, and abandon operations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from onebit.backbones.losses import method_losses
from onebit.classification.search.bandits import ActiveOperations
from onebit.classification.search.space import SearchSpace
from onebit.classification.search.strategies.base import Report, Schedule, SearchData, Strategy, cross_entropy
from onebit.classification.search.supernet import Supernet
from onebit.commons.errors import InputError


class SampledStrategy(Strategy):
    """A method that trains one sampled architecture per epoch and judges operations by it.

    Every edge loses one operation per round until one is left, so a cell keeps all its 14 edges.

    Attributes:
        operations: what every edge still has.

    Raises:
        InputError: besides the reasons of :class:`Strategy`, fewer than two operations.
    """

    derivation = "all14"

    def __init__(
        self, space: SearchSpace, options: Mapping[str, Any] | Any = None, schedule: Schedule | None = None
    ) -> None:
        super().__init__(space, options, schedule)
        if len(space.operations) < 2:
            raise InputError(f"{self.name}: expected at least 2 operations to choose from, found 1")
        self.operations = ActiveOperations(space.shape)

    def parts(self) -> tuple[str, ...]:
        return ("train", "evaluation")

    def train_path(self, supernet: Supernet, choice: Tensor, data: SearchData, report: Report) -> None:
        """Train the architecture ``choice`` [2, 14] within ``supernet`` for one epoch.

        The losses of the binarizer count for what is on the path alone: the rest of the supernet is
        no part of the architecture.
        """
        choice = choice.cpu()  # every step reads it
        on_path = nn.ModuleList(supernet.path_modules(choice))
        for images, labels in data.train:
            loss = self.weight_step(
                supernet,
                self._optimizers["weights"],
                lambda images=images, labels=labels: (
                    cross_entropy(supernet(images, choice=choice), labels) + sum(method_losses(on_path).values())
                ),
                report,
            )
            report({"loss_weights": loss}, len(images))
