"""CP-NAS: a 1-bit Child judged together with its real-valued Parent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from onebit.backbones.class_centres import ClassCentreLoss
from onebit.backbones.losses import ChildParentLoss, method_losses
from onebit.classification.search.bandits import (
    MeanScores,
    WithoutReplacement,
    child_parent_indicator,
    lots,
    softmax_among,
)
from onebit.classification.search.options import STRICT, NotNegative, Positive
from onebit.classification.search.space import SearchSpace
from onebit.classification.search.strategies.base import Report, Schedule, SearchData, cross_entropy
from onebit.classification.search.strategies.sampled import SampledStrategy
from onebit.classification.search.supernet import Supernet


@dataclass(frozen=True, config=STRICT)
class CPNASOptions:
    """Options of CP-NAS.

    Attributes:
        binarizer: of the Child (CP-NAS, section 2.4, builds on XNOR).
        T: how often every operation is judged in a round (section 3.1).
        beta_p: beta_P of Eq. 1, any number: 2 for CIFAR-10, 0.33 for ImageNet (section 3.1). 0 looks at the
            Child alone, which the paper calls BNAS with one performance measure (Table 1). Above 1 a worse
            Child scores higher, below 0 its distance to the Parent counts against it;
            see :func:`onebit.classification.search.bandits.child_parent_indicator`.
        child_parent: factor of the first term of Eq. 3 (1 in the paper).
        class_centre: lambda of the second term of Eq. 3 (ours: the paper gives none).
    """

    binarizer: str = "xnor"
    T: Positive = 3
    beta_p: float = 2.0
    child_parent: NotNegative = 1.0
    class_centre: NotNegative = 1e-3


class CPNAS(SampledStrategy):
    """Child-Parent architecture search.

    Zhuo et al., CP-NAS, IJCAI 2020, Algorithm 1. Child and Parent share no weights; an architecture
    is trained within its supernet, from where others left its operations.

    Attributes:
        child, parent: the two supernets.
        indicator: z of Eq. 1, as given in the current round.
        evaluation: e of Eq. 2, [2, 14, M], as of the last round.
    """

    name = "cp-nas"
    Options = CPNASOptions
    searched = "child"
    evaluation: Tensor

    def __init__(self, space: SearchSpace, options=None, schedule: Schedule | None = None) -> None:
        super().__init__(space, options, schedule)
        self.child = Supernet(space, self.options.binarizer)
        self.parent = Supernet(space)
        self.weight_optimizer("child", self.child)
        self.weight_optimizer("parent", self.parent)
        self.sampling = WithoutReplacement(space.shape)
        self.indicator = MeanScores(space.shape)
        self.register_buffer("evaluation", torch.zeros(space.shape, dtype=torch.float64))
        most = len(space.operations)
        # Lines 1 to 3: while K > 1, for t = 1, ..., T, for e = 1, ..., K.
        self._plan = [(k, t, e) for k in range(most, 1, -1) for t in range(self.options.T) for e in range(k)]

    @property
    def epochs(self) -> int:
        """T (8 + 7 + ... + 2) for K = 8 operations: 105 for T = 3 (section 3.1)."""
        return len(self._plan)

    @property
    def least_epochs(self) -> int:
        """The first round."""
        return self.options.T * len(self.space.operations)

    def epoch(self, index: int, data: SearchData, report: Report) -> None:
        k, t, e = self._plan[index]
        self.set_learning_rate(index, "child", "parent")
        if e == 0:
            self.sampling.restart(self.operations.active)
        # Line 4: one operation for every edge, without replacement.
        choice, ties = self.sampling.draw(), lots(self.space.shape)
        # Line 5: train Child and Parent of this architecture; assign Eq. 1 to all its operations.
        self._train_both(choice, data, report)
        z = child_parent_indicator(
            child=self.evaluate(self.child, data.evaluation, choice=choice),
            parent=self.evaluate(self.parent, data.evaluation, choice=choice),
            beta_p=self.options.beta_p,
        )
        self.indicator.give(choice, z)
        if t == self.options.T - 1 and e == k - 1:
            # Line 8: Eq. 2.
            self.evaluation.copy_(softmax_among(self.indicator.mean(), self.operations.active))
            # Lines 9 and 10: drop the worst operation of every edge; K = K - 1.
            self.operations.abandon_worst(self.evaluation, ties)
            self.indicator.reset()

    def _train_both(self, choice: Tensor, data: SearchData, report: Report) -> None:
        """One epoch of both networks on the same batches; the Child's loss is that of Eq. 4."""
        choice = choice.cpu()  # every step reads it
        on_path = nn.ModuleList(self.child.path_modules(choice))
        parent_on_path = nn.ModuleList(self.parent.path_modules(choice))
        child_parent = ChildParentLoss(on_path, parent_on_path, self.options.child_parent)
        # Each architecture has class centres of its own.
        classes = self.space.num_classes
        width = self.child.classifier.in_features
        class_centre = ClassCentreLoss(width, classes, self.options.class_centre)
        class_centre.to(self.evaluation.device)
        own = nn.ModuleList([*on_path, child_parent, class_centre])

        def parent_loss(images: Tensor, labels: Tensor) -> Tensor:
            return cross_entropy(self.parent(images, choice=choice), labels)

        def child_loss(images: Tensor, labels: Tensor) -> Tensor:
            with inputs_of(self.child.classifier) as features:
                loss = cross_entropy(self.child(images, choice=choice), labels)
            class_centre(features[0], labels)
            return loss + sum(method_losses(own).values())

        networks = {"parent": (self.parent, parent_loss), "child": (self.child, child_loss)}
        for batch in data.train:
            losses = {
                f"loss_{name}": self.weight_step(network, self._optimizers[name], partial(loss, *batch), report)
                for name, (network, loss) in networks.items()
            }
            report(losses, len(batch[0]))

    def scores(self) -> Tensor:
        """e of Eq. 2 for the operations that an edge still has, below 0 for the others."""
        return self.operations.ranked(self.evaluation)


@contextmanager
def inputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """The inputs that ``module`` is called with meanwhile."""
    inputs: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    try:
        yield inputs
    finally:
        hook.remove()
