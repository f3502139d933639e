"""ABanditNAS: an anti-bandit that samples by lower and abandons by upper confidence bounds."""

from __future__ import annotations

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from onebit.classification.search.bandits import (
    WithoutReplacement,
    add_at,
    decayed_performance,
    draw,
    lots,
    lower_confidence_bound,
    sampling_probability,
    upper_confidence_bound,
)
from onebit.classification.search.options import STRICT, Positive, Share
from onebit.classification.search.space import SearchSpace
from onebit.classification.search.strategies.base import Report, Schedule, SearchData
from onebit.classification.search.strategies.sampled import SampledStrategy
from onebit.classification.search.supernet import Supernet


@dataclass(frozen=True, config=STRICT)
class ABanditNASOptions:
    """Options of ABanditNAS.

    Attributes:
        binarizer: of the supernet; None searches a real-valued network, as the paper does.
        T: a round has K T samples, K the operations that an edge still has.
        decay: lambda of Eq. 5, the weight of the latest accuracy (section 4.3).
    """

    binarizer: str | None = None
    T: Positive = 3
    decay: Share = 0.7


class ABanditNAS(SampledStrategy):
    """Anti-bandit architecture search.

    Chen et al., ABanditNAS, ECCV 2020, Algorithm 1 and section 3.4, without its adversarial
    training and the operations that serve it.

    Attributes:
        performance: m of Eq. 5, [2, 14, M].
        selected: n of Eqs. 3 and 6, [2, 14, M], over all rounds.
    """

    name = "abanditnas"
    Options = ABanditNASOptions
    performance: Tensor
    selected: Tensor

    def __init__(self, space: SearchSpace, options=None, schedule: Schedule | None = None) -> None:
        super().__init__(space, options, schedule)
        self.supernet = Supernet(space, self.options.binarizer)
        self.weight_optimizer("weights", self.supernet)
        self.first_sampling = WithoutReplacement(space.shape)
        self.first_sampling.restart(self.operations.active)
        self.register_buffer("performance", torch.zeros(space.shape, dtype=torch.float64))
        self.register_buffer("selected", torch.zeros(space.shape, dtype=torch.long))
        most = len(space.operations)
        self._first = most
        # The epochs that end a round: K T samples each, for K = 8, ..., 2.
        self._ends, last = set(), most - 1
        for k in range(most, 1, -1):
            last += k * self.options.T
            self._ends.add(last)

    @property
    def epochs(self) -> int:
        """K to start with and T (K + ... + 2) after that: 8 + 105 for K = 8 and T = 3."""
        return max(self._ends) + 1

    def epoch(self, index: int, data: SearchData, report: Report) -> None:
        self.set_learning_rate(index, "weights")
        started = index >= self._first
        choice = self._sample() if started else self.first_sampling.draw()
        ties = lots(self.space.shape)
        # Train the architecture for one epoch; its accuracy goes to all its operations.
        self.train_path(self.supernet, choice, data, report)
        accuracy = self.evaluate(self.supernet, data.evaluation, choice=choice)
        at = choice[..., None]
        if started:
            m = decayed_performance(self.performance.gather(-1, at), accuracy, self.options.decay)
        else:
            # m_0: every operation's first accuracy, of K samples without replacement.
            m = torch.full_like(at, accuracy, dtype=self.performance.dtype)
        self.performance.scatter_(-1, at, m)
        add_at(self.selected, choice, 1)
        if index in self._ends:
            # Eqs. 6 and 7: abandon the smallest upper confidence bound; K = K - 1.
            upper = upper_confidence_bound(self.performance, self.selected)
            self.operations.abandon_worst(upper, ties)

    @property
    def least_epochs(self) -> int:
        """Those in which every operation is sampled once."""
        return self._first

    def _sample(self) -> Tensor:
        """Eqs. 3 and 4: one operation for every edge, likelier where the lower bound is smaller."""
        lower = lower_confidence_bound(self.performance, self.selected)
        return draw(sampling_probability(lower, self.operations.active))

    def scores(self) -> Tensor:
        """s_U of Eq. 6 for the operations that an edge still has, below 0 for the others."""
        return self.operations.ranked(upper_confidence_bound(self.performance, self.selected))
