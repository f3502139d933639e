"""DARTS of first order, with or without the decoupled optimization of DCP-NAS."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from classification.search.architecture import frozen, operation_weights, start_alpha
from classification.search.space import SearchSpace
from classification.search.strategies.base import (
    Batch,
    Report,
    Schedule,
    SearchData,
    Strategy,
    check_range,
    cross_entropy,
    gradient,
    paired,
)
from classification.search.supernet import Supernet


@dataclass(frozen=True)
class DARTSOptions:
    """Options of DARTS.

    Attributes:
        binarizer: of the supernet; None searches a real-valued network.
        arch_lr, arch_weight_decay: of Adam with betas (0.5, 0.999) for alpha (DARTS, appendix A).
    """

    binarizer: str | None = None
    arch_lr: float = 3e-4
    arch_weight_decay: float = 1e-3

    def __post_init__(self) -> None:
        check_range("darts, option arch_lr", self.arch_lr, 0)
        check_range("darts, option arch_weight_decay", self.arch_weight_decay, 0)


class DARTS(Strategy):
    """Differentiable architecture search, first order.

    Liu et al., DARTS, ICLR 2019, Algorithm 1 with xi = 0.
    """

    name = "darts"
    Options = DARTSOptions
    derivation = "top2"

    def __init__(self, space: SearchSpace, options=None, schedule: Schedule | None = None) -> None:
        super().__init__(space, options, schedule)
        self.supernet = Supernet(space, self.options.binarizer)
        self.alpha = start_alpha(space)
        self.weight_optimizer("weights", self.supernet)
        self._optimizers["alpha"] = torch.optim.Adam(
            [self.alpha],
            lr=self.options.arch_lr,
            betas=(0.5, 0.999),
            weight_decay=self.options.arch_weight_decay,
        )

    def epoch(self, index: int, data: SearchData, report: Report) -> None:
        self.set_learning_rate(index, "weights")
        for train, valid in paired(data.train, data.valid):
            # 1. Update alpha by descending its gradient of the validation loss.
            architecture_loss = self.architecture_step(valid, report)
            # 2. Update w by descending its gradient of the training loss.
            images, labels = train
            loss = self.weight_step(
                self.supernet,
                self._optimizers["weights"],
                lambda images=images, labels=labels: self._loss(
                    images, labels, operation_weights(self.alpha.detach())
                ),
                report,
            )
            report(
                {"loss_weights": loss, "loss_architecture": architecture_loss},
                len(images) + len(valid[0]),
            )

    def _loss(self, images: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        return cross_entropy(self.supernet(images, weights), labels)

    def architecture_step(self, batch: Batch, report: Report) -> float:
        """One step of alpha on a validation batch; returns the loss."""
        with frozen(self.supernet), report.autocast():
            loss = self._loss(*batch, operation_weights(self.alpha))
        (self.alpha.grad,) = gradient(loss, [self.alpha], report)
        self._optimizers["alpha"].step()
        return loss.item()

    def scores(self) -> Tensor:
        return operation_weights(self.alpha.detach())
