"""PC-DARTS, with or without the decoupled optimization of DCP-NAS."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from onebit.classification.search.architecture import edge_weights, operation_weights, start_beta
from onebit.classification.search.options import STRICT, NotNegative, Positive
from onebit.classification.search.strategies.darts import DARTS, DARTSOptions


@dataclass(frozen=True, config=STRICT)
class PCDARTSOptions(DARTSOptions):
    """Options of PC-DARTS.

    Attributes:
        k: an operation sees 1 / K of the channels (paper: 4 on CIFAR-10, 2 on ImageNet).
        warmup: share of the epochs before the architecture parameters begin to learn (paper: 15 of
            50 on CIFAR-10).
        arch_lr: paper, section 4.2: 6e-4.
    """

    arch_lr: NotNegative = 6e-4
    k: Positive = 4
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.3


class PCDARTS(DARTS):
    """Partially connected DARTS: partial channels and edge normalization.

    Xu et al., PC-DARTS, ICLR 2020, sections 3.2 and 3.3. An operation sees 1 / K of the channels of
    its node; the edges into a node have weights of their own, a softmax of beta.
    Scores are the products of the two.
    """

    name = "pc-darts"
    Options = PCDARTSOptions

    @property
    def channel_fraction(self) -> float:
        return 1 / self.options.k

    def start(self) -> None:
        super().start()
        self.beta = start_beta(self.space)

    def architecture_parameters(self) -> list[Tensor]:
        return [self.alpha, self.beta]

    def mixture(self) -> dict[str, Tensor]:
        return {"weights": operation_weights(self.alpha), "edge_weights": edge_weights(self.beta)}

    def searches(self, index: int) -> bool:
        return index >= int(self.options.warmup * self.planned)

    def own_scores(self) -> Tensor:
        return operation_weights(self.alpha.detach()) * edge_weights(self.beta.detach())[..., None]
