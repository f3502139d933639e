"""What CP-NAS, BNAS and ABanditNAS make of the accuracies of sampled architectures.

These methods draw one operation per edge, train that architecture, and give its validation accuracy
to every operation in it. Everything here works on all edges at once, on tensors [2, 14, M]: the
normal and the reduction cell, the edges of a cell, the M candidate operations. Accuracies are
fractions, 0 to 1, and logarithms are natural.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Equations ------------------------------------------------------------------------------------


def child_parent_indicator(child: float, parent: float, beta_p: float) -> float:
    """z = A_C + beta_P (A_P - A_C) = (1 - beta_P) A_C + beta_P A_P.

    Zhuo et al., CP-NAS, IJCAI 2020, Eq. 1, as printed. With beta_P = 2, the paper's for CIFAR-10, it is
    2 A_P - A_C: of two architectures with equal Parents the one with the worse Child scores higher. From 0 to 1
    it is a weighted mean of both accuracies, and with a negative beta_P what the Child loses counts against it.

    Args:
        child: A_C, accuracy of the 1-bit network.
        parent: A_P, accuracy of the real-valued network of the same architecture.
        beta_p: beta_P; 0 looks at the child alone, 1 at the parent alone.
    """
    return child + beta_p * (parent - child)


def softmax_among(values: Tensor, among: Tensor) -> Tensor:
    """exp(v_k) / sum_m exp(v_m) over the operations ``among``, 0 for the others.

    CP-NAS, Eq. 2 (v the mean indicator); Chen et al., BNAS, IJCV 2021, Eq. 7 (v the mean accuracy).

    Args:
        values: [2, 14, M].
        among: bool [2, 14, M], at least one operation of every edge.
    """
    return values.masked_fill(~among, -torch.inf).softmax(-1)


def smaller_half(alpha: Tensor, active: Tensor) -> Tensor:
    """The ceil(K / 2) of an edge's K active operations with the smallest alpha.

    BNAS, Algorithm 1, line 3. Ties go to the operation listed first (ours).

    Args:
        alpha: architecture parameters [2, 14, M].
        active: bool [2, 14, M].

    Returns:
        bool [2, 14, M].
    """
    order = alpha.detach().masked_fill(~active, torch.inf).argsort(dim=-1, stable=True)
    place = order.argsort(-1)
    return active & (place < (active.sum(-1, keepdim=True) + 1) // 2)


def selection_likelihood(likelihood: Tensor, accuracy: Tensor, smaller: Tensor) -> Tensor:
    """s <- s / 2 + q s_smaller + (1 - q) s_larger.

    s_smaller is the softmax of the mean accuracies among the sampled operations (Eq. 7); s_larger,
    for all others, is the middle between its maximum and its mean (Eq. 8); q is 1 for the sampled
    operations (Eq. 9). BNAS, Eqs. 7 to 9.

    Args:
        likelihood: s before the update, [2, 14, M].
        accuracy: mean over T of the accuracies y, [2, 14, M]; read where ``smaller`` is set.
        smaller: q, bool [2, 14, M], the operations that were sampled.
    """
    sampled = softmax_among(accuracy, smaller)
    mean = sampled.sum(-1, keepdim=True) / smaller.sum(-1, keepdim=True)
    larger = (sampled.amax(-1, keepdim=True) + mean) / 2
    return likelihood / 2 + torch.where(smaller, sampled, larger)


def exploration(selected: Tensor) -> Tensor:
    """sqrt(2 log N / n), the half width of a bandit's confidence interval.

    BNAS, Eq. 10; Chen et al., ABanditNAS, ECCV 2020, Eqs. 3 and 6. An operation that was never
    selected counts as selected once (ours: the papers leave n = 0 open).

    Args:
        selected: n, how often every operation was selected, [2, 14, M]. N is its sum over an
            edge's operations, abandoned ones included: the number of sampled architectures.
    """
    total = selected.sum(-1, keepdim=True).clamp(min=1)
    return (2 * total.log() / selected.clamp(min=1)).sqrt()


def lower_confidence_bound(performance: Tensor, selected: Tensor) -> Tensor:
    """s_L = m - sqrt(2 log N / n). ABanditNAS, Eq. 3; see :func:`exploration`."""
    return performance - exploration(selected)


def upper_confidence_bound(performance: Tensor, selected: Tensor) -> Tensor:
    """s_U = m + sqrt(2 log N / n). ABanditNAS, Eq. 6; see :func:`exploration`."""
    return performance + exploration(selected)


def sampling_probability(lower: Tensor, active: Tensor) -> Tensor:
    """p = exp(-s_L) / sum_m exp(-s_L,m) over the active operations, 0 for the others.

    The minus sign prefers operations of which little is known yet or little is expected, so that
    they get their chance before they are judged. ABanditNAS, Eq. 4.
    """
    return softmax_among(-lower, active)


def decayed_performance(performance: Tensor, accuracy: float, weight: float) -> Tensor:
    """m <- (1 - lambda) m + lambda a, a mean that forgets. ABanditNAS, Eq. 5.

    Args:
        performance: m of the operations that were just sampled.
        accuracy: a.
        weight: lambda.
    """
    return (1 - weight) * performance + weight * accuracy


# State between epochs -------------------------------------------------------------------------


class ActiveOperations(nn.Module):
    """O^(i,j): the operations that every edge still has, and when it lost the others.

    Args:
        shape: [2, 14, M].

    Attributes:
        active: bool [2, 14, M].
        abandoned_in: [2, 14, M], the abandonment (1, 2, ...) that took an operation, 0 if none did.
    """

    active: Tensor
    abandoned_in: Tensor

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("active", torch.ones(shape, dtype=torch.bool))
        self.register_buffer("abandoned_in", torch.zeros(shape, dtype=torch.long))

    def abandon_worst(self, values: Tensor, lots: Tensor) -> None:
        """O <- O - {argmin_k values}, on every edge.

        CP-NAS, Algorithm 1, line 9; BNAS, Eq. 11; ABanditNAS, Eq. 7. Of several smallest values,
        which few evaluation images make common, the one with the smallest lot goes (ours).

        Args:
            values, lots: [2, 14, M].
        """
        values = values.masked_fill(~self.active, torch.inf)
        smallest = values == values.amin(-1, keepdim=True)
        worst = lots.to(values).masked_fill(~smallest, torch.inf).argmin(-1, keepdim=True)
        self.abandoned_in.scatter_(-1, worst, int(self.abandoned_in.max()) + 1)
        self.active.scatter_(-1, worst, False)

    def ranked(self, values: Tensor) -> Tensor:
        """``values`` (not negative) of active operations; below 0 the abandoned, the latest first.

        The highest score of an edge is thus an operation that it still has.
        """
        return torch.where(self.active, values, (self.abandoned_in - self.active.shape[-1]) * 1.0)


class WithoutReplacement(nn.Module):
    """Draws one operation per edge until every operation of the given sets was drawn once.

    Args:
        shape: [2, 14, M].

    Attributes:
        remaining: bool [2, 14, M], what is still to be drawn.
    """

    remaining: Tensor

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("remaining", torch.zeros(shape, dtype=torch.bool))

    def restart(self, among: Tensor) -> None:
        """Put the operations ``among`` (bool [2, 14, M], equally many on every edge) back."""
        self.remaining.copy_(among)

    def draw(self) -> Tensor:
        """One operation for every edge, [2, 14], each with the same chance; it is then used up."""
        choice = draw(self.remaining.float())
        self.remaining.scatter_(-1, choice[..., None], False)
        return choice


def draw(probability: Tensor) -> Tensor:
    """One operation for every edge, [2, 14], with chances in proportion to [2, 14, M].

    Drawn from the CPU's generator, so that a search samples alike on every device.
    """
    rows = probability.detach().cpu().flatten(0, 1)
    choice = torch.multinomial(rows, 1).view(probability.shape[:-1])
    return choice.to(probability.device)


def lots(shape: tuple[int, ...]) -> Tensor:
    """Numbers to break ties with. Draw them before any data, as every process draws the same."""
    return torch.rand(shape)


class MeanScores(nn.Module):
    """The mean of what every operation was given since :meth:`reset`.

    Args:
        shape: [2, 14, M].

    Attributes:
        total, count: [2, 14, M], float64 and int64.
    """

    total: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(shape, dtype=torch.long))

    def reset(self) -> None:
        self.total.zero_()
        self.count.zero_()

    def give(self, choice: Tensor, value: float) -> None:
        """``value`` to the operations ``choice`` [2, 14]."""
        add_at(self.total, choice, value)
        add_at(self.count, choice, 1)

    def mean(self) -> Tensor:
        """[2, 14, M], float64; 0 for operations that were given nothing."""
        return self.total / self.count.clamp(min=1)


def add_at(values: Tensor, choice: Tensor, amount: float) -> None:
    """Add ``amount`` to [2, 14, M] at the operations ``choice`` [2, 14], in place."""
    at = choice[..., None]
    values.scatter_add_(-1, at, torch.full_like(at, amount, dtype=values.dtype))
