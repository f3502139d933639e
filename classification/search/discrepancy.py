"""The discrepancy between the architecture gradients of Child and Parent (DCP-NAS, Eq. 13)."""

from __future__ import annotations

import torch
from torch import Tensor

from onebit.commons.errors import InputError

NORMS = ("frobenius", "l1", "cosine")


def discrepancy(child: Tensor, parent: Tensor, norm: str = "frobenius") -> tuple[Tensor, Tensor]:
    """D, a scalar, and its derivative to the Child's gradient.

    DCP-NAS, Table 5: ``frobenius`` is ||v||^2 with v = child - parent (Eq. 13), ``l1`` the sum of
    |v|, ``cosine`` 1 less the cosine of the angle between the two.

    Args:
        child, parent: gradients of the two losses to their architecture parameters, of one shape.
            Both are of losses: the printed signs of the two likelihoods cancel.

    Raises:
        InputError: an unknown norm.
    """
    v = child - parent
    if norm == "frobenius":
        return v.square().sum(), 2 * v
    if norm == "l1":
        return v.abs().sum(), v.sign()
    if norm == "cosine":
        # A gradient of 0 has no direction, and no discrepancy of direction.
        tiny = torch.finfo(child.dtype).tiny
        length, other = child.norm().clamp(min=tiny), parent.norm().clamp(min=tiny)
        cosine = (child / length * (parent / other)).sum()
        return 1 - cosine, (child / length * cosine - parent / other) / length
    raise InputError(f"discrepancy norm {norm!r}: expected one of {', '.join(NORMS)}")
