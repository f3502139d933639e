"""BNAS: performance-based abandonment with PC-DARTS beside it, or with a bandit at 1 bit."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from onebit.backbones.losses import method_losses
from onebit.classification.search.architecture import edge_weights, frozen, operation_weights, start_alpha, start_beta
from onebit.classification.search.bandits import (
    MeanScores,
    WithoutReplacement,
    add_at,
    exploration,
    lots,
    selection_likelihood,
    smaller_half,
)
from onebit.classification.search.options import STRICT, Natural, NotNegative, Positive
from onebit.classification.search.space import SearchSpace
from onebit.classification.search.strategies.base import (
    Batch,
    Report,
    Schedule,
    SearchData,
    cross_entropy,
    gradient,
    paired,
    usable,
)
from onebit.classification.search.strategies.darts import architecture_optimizer
from onebit.classification.search.strategies.sampled import SampledStrategy
from onebit.classification.search.supernet import Supernet

#: Version and kernels to the binarizer of the supernet.
_BINARIZERS = {
    ("w1a32", "xnor"): "bnasxnorw1a32",
    ("w1a32", "pcnn"): "bnaspcnnw1a32",
    ("1bit", "xnor"): "bnasxnor",
    ("1bit", "pcnn"): "bnaspcnn",
}
#: delta where none is given (section 3.3; the rows of Table 2 that are not marked have none).
_DELTA = {"w1a32": 0.0, "1bit": 2.0}


@dataclass(frozen=True, config=STRICT)
class BNASOptions:
    """Options of BNAS.

    Attributes:
        version: ``1bit``: 1-bit weights and activations; no warm-up, all operations are sampled,
            and Eq. 10 is used. ``w1a32``: 1-bit weights; PC-DARTS warms up, and says which half of
            the operations is sampled.
        kernels: ``xnor`` or ``pcnn``, how weights are binarized (section 3.2).
        T: how often every operation of the half is judged in a round (section 4.1.2).
        last_pair: how many of the last two operations ``w1a32`` samples: as ``printed`` one, or
            ``both`` (ours). One alone gets 1 from Eq. 7, and the other 1 from Eq. 8: the last round
            then decides nothing, and earlier rounds put what was sampled and best above what was
            never sampled.
        L: epochs of PC-DARTS before the first round; ``1bit`` has none.
        freeze: how many of these leave alpha alone.
        V: epochs of PC-DARTS after each round.
        delta: factor of Eq. 10, 0 for none; None is 2 for ``1bit`` and 0 for ``w1a32``.
        channel_fraction: 1/C, the share of the channels that operations see (section 4.1.2).
        arch_lr: of Adam for alpha (section 4.1.2).
        arch_weight_decay: likewise (PC-DARTS, section 4.2).
    """

    version: Literal["1bit", "w1a32"] = "1bit"
    kernels: Literal["xnor", "pcnn"] = "pcnn"
    T: Positive = 3
    last_pair: Literal["printed", "both"] = "printed"
    L: Natural = 5
    freeze: Natural = 3
    V: Natural = 1
    delta: NotNegative | None = None
    channel_fraction: float = 0.5
    arch_lr: NotNegative = 0.01
    arch_weight_decay: NotNegative = 1e-3


class BNAS(SampledStrategy):
    """Performance-based binarized architecture search.

    Chen et al., BNAS, IJCV 2021, Algorithm 1 and section 3.3. One supernet serves the sampled
    architectures and PC-DARTS, so that both train the same weights.

    Attributes:
        alpha, beta: architecture and edge parameters of PC-DARTS, [2, 14, M] and [2, 14].
        smaller: bool [2, 14, M], O_smaller of the current round.
        accuracy: y of Eq. 7, as given in the current round.
        selected: n of Eq. 10, [2, 14, M], over all rounds.
        likelihood: s, [2, 14, M].
    """

    name = "bnas"
    Options = BNASOptions
    smaller: Tensor
    selected: Tensor
    likelihood: Tensor

    def __init__(self, space: SearchSpace, options=None, schedule: Schedule | None = None) -> None:
        super().__init__(space, options, schedule)
        chosen = self.options
        self.supernet = Supernet(
            space, _BINARIZERS[chosen.version, chosen.kernels], channel_fraction=chosen.channel_fraction
        )
        self.weight_optimizer("weights", self.supernet)
        self.alpha = start_alpha(space)
        self.beta = start_beta(space)
        self._optimizers["alpha"] = architecture_optimizer(
            [self.alpha, self.beta], chosen.arch_lr, chosen.arch_weight_decay
        )
        self.sampling = WithoutReplacement(space.shape)
        self.accuracy = MeanScores(space.shape)
        self.register_buffer("smaller", torch.zeros(space.shape, dtype=torch.bool))
        self.register_buffer("selected", torch.zeros(space.shape, dtype=torch.long))
        self.register_buffer("likelihood", torch.zeros(space.shape, dtype=torch.float64))
        self._delta = _DELTA[chosen.version] if chosen.delta is None else chosen.delta
        self._warm_up = chosen.L if chosen.version == "w1a32" else 0
        self._plan = self._lines(len(space.operations))

    def _lines(self, most: int) -> list[tuple[int, int, int] | None]:
        """Every epoch as (number sampled per repetition, t, e), or None for PC-DARTS."""
        chosen = self.options
        plan: list[tuple[int, int, int] | None] = [None] * self._warm_up  # line 1
        for k in range(most, 1, -1):  # line 2: while K > 1
            sampled = (k + 1) // 2
            if chosen.version == "1bit" or (k == 2 and chosen.last_pair == "both"):
                sampled = k
            # Lines 4 and 6: for t = 1, ..., T, for e = 1, ..., ceil(K / 2).
            plan += [(sampled, t, e) for t in range(chosen.T) for e in range(sampled)]
            plan += [None] * chosen.V  # line 17
        return plan

    @property
    def epochs(self) -> int:
        """105 + 7 for ``1bit`` and 5 + 57 + 7 for ``w1a32``, with 8 operations."""
        return len(self._plan)

    @property
    def least_epochs(self) -> int:
        """The first round."""
        sampled = next(each[0] for each in self._plan if each is not None)
        return self._warm_up + self.options.T * sampled

    def parts(self) -> tuple[str, ...]:
        by_pc_darts = ("valid",) if None in self._plan else ()
        return ("train", *by_pc_darts, "evaluation")

    def epoch(self, index: int, data: SearchData, report: Report) -> None:
        self.set_learning_rate(index, "weights")
        if self._plan[index] is None:
            # Lines 1 and 17.
            self._search_by_pc_darts(data, report, fixed=index < min(self._warm_up, self.options.freeze))
            return
        sampled, t, e = self._plan[index]
        active = self.operations.active
        if t == e == 0:
            # Line 3; at 1 bit O_smaller is O.
            everything = sampled == int(active.sum(-1).max())
            self.smaller.copy_(active if everything else smaller_half(self.alpha, active))
        if e == 0:
            self.sampling.restart(self.smaller)  # line 5
        # Lines 7 to 9: sample without replacement, train, assign the accuracy to all operations.
        choice, ties = self.sampling.draw(), lots(self.space.shape)
        self.train_path(self.supernet, choice, data, report)
        self.accuracy.give(choice, self.evaluate(self.supernet, data.evaluation, choice=choice))
        add_at(self.selected, choice, 1)
        if t == self.options.T - 1 and e == sampled - 1:
            self._abandon(ties)

    def _abandon(self, ties: Tensor) -> None:
        """Lines 12 to 16 and 18."""
        # Line 12: Eqs. 7 to 9.
        s = selection_likelihood(self.likelihood, self.accuracy.mean(), self.smaller)
        # Lines 13 to 15: Eq. 10.
        s = s + self._delta * exploration(self.selected)
        self.likelihood.copy_(s)
        # Lines 16 and 18: Eq. 11; K = K - 1.
        self.operations.abandon_worst(self.likelihood, ties)
        self.accuracy.reset()

    def _search_by_pc_darts(self, data: SearchData, report: Report, fixed: bool) -> None:
        """One epoch of PC-DARTS on the operations that are left; ``fixed`` leaves alpha alone."""
        active = self.operations.active.cpu()  # every step reads it
        for train, valid in paired(data.train, data.valid):
            losses, images = {}, len(train[0])
            if not fixed:
                losses["loss_architecture"] = self._architecture_step(valid, report, active)
                images += len(valid[0])
            losses["loss_weights"] = self.weight_step(
                self.supernet,
                self._optimizers["weights"],
                lambda train=train: (
                    self._mixed_loss(train, self.alpha.detach(), self.beta.detach(), active)
                    + sum(method_losses(self.supernet).values())
                ),
                report,
            )
            report(losses, images)

    def _architecture_step(self, batch: Batch, report: Report, active: Tensor) -> Tensor:
        with frozen(self.supernet), report.autocast():
            loss = self._mixed_loss(batch, self.alpha, self.beta, active)
        gradients = gradient(loss, [self.alpha, self.beta], report)
        if usable(gradients, report):
            self.alpha.grad, self.beta.grad = gradients
            self._optimizers["alpha"].step()
        return loss.detach()

    def _mixed_loss(self, batch: Batch, alpha: Tensor, beta: Tensor, active: Tensor) -> Tensor:
        """Eq. 6 on every edge, edges weighted as in PC-DARTS; ``active`` is what is left, on the CPU."""
        images, labels = batch
        weights = operation_weights(alpha, self.operations.active)
        logits = self.supernet(images, weights, active=active, edge_weights=edge_weights(beta))
        return cross_entropy(logits, labels)

    def scores(self) -> Tensor:
        """s for the operations that an edge still has, below 0 for the others.

        Before the first round, what PC-DARTS thinks of them.
        """
        if not self.likelihood.any():
            return operation_weights(self.alpha.detach()).double()
        return self.operations.ranked(self.likelihood)
