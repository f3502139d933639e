"""DARTS of first and second order, with or without the decoupled optimization of DCP-NAS."""

# No `from __future__ import annotations`: pydantic 2.6 would look up what fields of the options are in the modules of
# subclasses.
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from onebit.backbones.losses import onebit_convs
from onebit.classification.search.architecture import entropy, entropy_share, frozen, operation_weights, start_alpha
from onebit.classification.search.decoupling import Decoupling, DecouplingOptions
from onebit.classification.search.options import STRICT, NotNegative
from onebit.classification.search.space import SearchSpace
from onebit.classification.search.strategies.base import (
    Batch,
    Report,
    Schedule,
    SearchData,
    Strategy,
    cross_entropy,
    gradient,
    paired,
    usable,
)
from onebit.classification.search.supernet import Supernet
from onebit.commons.errors import InputError

#: epsilon |v| of the quotient of differences (DARTS, section 2.3).
DIFFERENCE = 0.01


@dataclass(frozen=True, config=STRICT)
class DARTSOptions(DecouplingOptions):
    """Options of DARTS; see :class:`DecouplingOptions` for those of DCP-NAS's Table 6.

    Attributes:
        binarizer: of the supernet; None searches a real-valued network.
        structure: of its cells: ``onebit``, those of 1-bit networks, or ``darts``, DARTS' own (ReLU, convolution, BN),
            which are real-valued (Liu et al., section 3.1.1).
        order: of the gradient of alpha, ``first`` (xi = 0) or ``second``: through one step of the weights, by Eqs. 7
            and 8. That step is SGD's, with the learning rate of the epoch as xi, its momentum and its weight decay.
        arch_lr, arch_weight_decay: of Adam with betas (0.5, 0.999) for architecture parameters.
            (Liu et al., DARTS, ICLR 2019, appendix A.1.)
        entropy: lambda of a bonus for architecture parameters that are undecided: the step of alpha descends
            L_valid - lambda exp(-t / tau) H, with H the mean entropy (natural logarithm) of an edge's operations and t
            the epoch, from 0. (Kim et al., Learning Architectures for Binary Networks, ECCV 2020, whose release has
            lambda = 1 and tau = 7.7; there H counts the last edge of the reduction cell in place of each of its
            edges, here all edges.)
        entropy_decay: tau, in epochs.
        keep: the scores of the ``last`` epoch, or of the ``best``: the one after which the whole supernet is most
            accurate on the evaluation images. (Kim et al.; their release takes the images that alpha learns on, and
            the alpha from before the epoch.)
    """

    decoupled: bool = False
    binarizer: str | None = None
    structure: Literal["onebit", "darts"] = "onebit"
    order: Literal["first", "second"] = "first"
    arch_lr: NotNegative = 3e-4
    arch_weight_decay: NotNegative = 1e-3
    entropy: NotNegative = 0.0
    entropy_decay: Annotated[float, Field(gt=0)] = 7.7
    keep: Literal["last", "best"] = "last"


class DARTS(Strategy):
    """Differentiable architecture search.

    Liu et al., DARTS, ICLR 2019, Algorithm 1; with ``decoupled`` the step of alpha is followed by that
    of DCP-NAS, Eqs. 32 to 36 (its Table 6).

    Attributes:
        best_accuracy, best_scores: with ``keep`` set to ``best``, the largest accuracy after an epoch, and the scores
            then, [2, 14, M].
    """

    best_accuracy: Tensor
    best_scores: Tensor

    name = "darts"
    Options = DARTSOptions
    derivation = "top2"
    #: What of its channels an operation sees.
    channel_fraction = 1.0

    def __init__(
        self,
        space: SearchSpace,
        options: Mapping[str, Any] | DARTSOptions | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(space, options, schedule)
        if self.options.order == "second" and self.schedule.optimizer != "sgd":
            raise InputError(
                f"{self.name}, option order 'second': expected schedule.optimizer sgd, whose step it unrolls"
            )
        self.supernet = Supernet(space, self.options.binarizer, self.channel_fraction, structure=self.options.structure)
        remembers = any(True for conv in onebit_convs(self.supernet).values() for _ in conv.quantize_weight.buffers())
        if self.options.order == "second" and remembers:
            raise InputError(
                f"{self.name}, option order 'second': binarizer {self.options.binarizer} remembers its last step, which "
                f"the steps that are tried here would change"
            )
        self.start()
        self.decoupling = Decoupling(space, self.options) if self.options.decoupled else None
        if self.options.keep == "best":
            self.register_buffer("best_accuracy", torch.full((), -1.0, dtype=torch.float64))
            self.register_buffer("best_scores", torch.zeros(space.shape))
        self._bonus = self.options.entropy
        self.weight_optimizer("weights", self.supernet)
        self._optimizers["alpha"] = architecture_optimizer(
            self.architecture_parameters(), self.options.arch_lr, self.options.arch_weight_decay
        )

    def start(self) -> None:
        """Make the architecture parameters."""
        self.alpha = start_alpha(self.space)

    def architecture_parameters(self) -> list[Tensor]:
        return [self.alpha]

    def mixture(self) -> dict[str, Tensor]:
        """What the supernet's forward takes: the relaxed architecture (Eq. 2)."""
        return {"weights": operation_weights(self.alpha)}

    def parts(self) -> tuple[str, ...]:
        return (*super().parts(), "evaluation") if self.options.keep == "best" else super().parts()

    def searches(self, index: int) -> bool:
        """Whether the architecture parameters learn in epoch ``index``."""
        return True

    def epoch(self, index: int, data: SearchData, report: Report) -> None:
        self.set_learning_rate(index, "weights")
        self._bonus = self.options.entropy * math.exp(-index / self.options.entropy_decay)
        for train, valid in paired(data.train, data.valid):
            losses, images = {}, len(train[0])
            # 1. Update alpha by descending the gradient of the validation loss.
            if self.searches(index):
                losses["loss_architecture"] = self.architecture_step(valid, report, train)
                images += len(valid[0])
            # 2. Update w by descending the gradient of the training loss.
            losses["loss_weights"] = self.training_step(train, report)
            report(losses, images)
        if self.options.keep == "best" and self.searches(index):
            self._keep_best(data)

    def _keep_best(self, data: SearchData) -> None:
        with torch.no_grad():
            mixture = self.mixture()
        accuracy = self.evaluate(self.supernet, data.evaluation, **mixture)
        if accuracy > self.best_accuracy:
            self.best_accuracy.fill_(accuracy)
            self.best_scores.copy_(self.own_scores())

    def training_step(self, batch: Batch, report: Report) -> Tensor:
        """One step of the weights on a training batch; returns the loss."""
        with torch.no_grad():
            mixture = self.mixture()
        return self.weight_step(
            self.supernet,
            self._optimizers["weights"],
            lambda: cross_entropy(self.supernet(batch[0], **mixture), batch[1]),
            report,
        )

    def architecture_step(self, batch: Batch, report: Report, train: Batch | None = None) -> Tensor:
        """One step of the architecture parameters on a validation batch; returns the loss.

        Args:
            train: the training batch that the gradient of second order goes through.
        """
        parameters = self.architecture_parameters()
        if self.options.order == "second":
            loss, gradients = self.unrolled_gradient(batch, train, report)
        else:
            with frozen(self.supernet):
                loss = self._loss(batch, report, self._bonus)
            gradients = gradient(loss, parameters, report)
        if usable(gradients, report):
            optimizer = self._optimizers["alpha"]
            descend(optimizer, parameters, gradients, self.decoupling, self.supernet)
        return loss.detach()

    def _loss(self, batch: Batch, report: Report, bonus: float = 0.0) -> Tensor:
        """Cross-entropy of the mixture, less ``bonus`` times the mean entropy of an edge."""
        with report.autocast():
            loss = cross_entropy(self.supernet(batch[0], **self.mixture()), batch[1])
        return loss - bonus * entropy(self.alpha) if bonus else loss

    def unrolled_gradient(self, valid: Batch, train: Batch, report: Report) -> tuple[Tensor, tuple[Tensor, ...]]:
        """L_valid(w', alpha) and its gradient to the architecture parameters, w' = w - xi grad_w L_train(w, alpha).

        DARTS, Eq. 7; its second term, a product with the mixed second derivative of L_train, is the difference of two
        gradients at w +- epsilon v, epsilon |v| = 0.01, v = grad_w' L_valid (Eq. 8). Momentum and weight decay are
        part of the step to w', as in SGD's. The weights are left as they were.
        """
        weights, parameters = list(self.supernet.parameters()), self.architecture_parameters()
        optimizer = self._optimizers["weights"]
        xi = optimizer.param_groups[0]["lr"]
        to_weights = gradient(self._loss(train, report), weights, report)
        before = [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            for weight, each in zip(weights, to_weights, strict=True):
                step = each + self.schedule.weight_decay * weight
                velocity = optimizer.state.get(weight, {}).get("momentum_buffer")
                if velocity is not None:
                    step += self.schedule.momentum * velocity
                weight -= xi * step
        loss = self._loss(valid, report, self._bonus)
        both = gradient(loss, [*parameters, *weights], report)
        first, v = both[: len(parameters)], both[len(parameters) :]
        length = torch.stack(torch._foreach_norm(v)).norm().clamp(min=torch.finfo(v[0].dtype).tiny)
        epsilon = DIFFERENCE / length
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                for weight, old, each in zip(weights, before, v, strict=True):
                    weight.copy_(old + sign * epsilon * each)
            with frozen(self.supernet):
                sides.append(gradient(self._loss(train, report), parameters, report))
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)
        gradients = tuple(
            direct - xi * (plus - minus) / (2 * epsilon) for direct, plus, minus in zip(first, *sides, strict=True)
        )
        return loss, gradients

    def own_scores(self) -> Tensor:
        """What the architecture parameters say now, [2, 14, M]."""
        return operation_weights(self.alpha.detach())

    def scores(self) -> Tensor:
        """Of the epoch that is kept."""
        if self.options.keep == "best" and self.best_accuracy >= 0:
            return self.best_scores
        return self.own_scores()

    def measures(self) -> dict[str, float]:
        return {"alpha_entropy": entropy_share(self.alpha)}


def architecture_optimizer(parameters: list[Tensor], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Adam as DARTS has it for its architecture parameters (appendix A.1)."""
    return torch.optim.Adam(parameters, lr=lr, betas=(0.5, 0.999), weight_decay=weight_decay)


def descend(
    optimizer: torch.optim.Optimizer,
    parameters: list[Tensor],
    gradients: tuple[Tensor, ...],
    decoupling: Decoupling | None,
    supernet: Supernet,
) -> None:
    """One step of architecture parameters, alpha first; then the decoupled optimization's of alpha.

    Args:
        decoupling: None for the plain step.
        supernet: whose weights it ranks.
    """
    for parameter, each in zip(parameters, gradients, strict=True):
        parameter.grad = each
    alpha = parameters[0]
    if decoupling is not None:
        decoupling.learn(alpha, gradients[0])
    optimizer.step()
    if decoupling is not None:
        decoupling.backtrack(alpha, supernet)
