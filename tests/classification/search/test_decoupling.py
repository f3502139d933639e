"""Eqs. 32 to 36 of DCP-NAS against examples worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import tensor

from onebit.classification.search.decoupling import (
    Decoupling,
    DecouplingOptions,
    backtrack,
    backtracked_operations,
    psi_gradient,
    psi_step,
    squared_norms,
)
from onebit.classification.search.space import SearchSpace
from onebit.classification.search.supernet import Supernet


@pytest.mark.parametrize(
    ("epsilon", "rank_from", "expected"),
    [
        # Ranks of R = (0, 5, 3, 3, 9), smallest first: 1, 4, 2, 3, 5.
        (0.2, "smallest", [0, 1, 1, 1, 1]),  # tau = 1
        (0.5, "smallest", [0, 1, 0, 1, 1]),  # tau = floor(2.5) = 2
        (0.6, "smallest", [0, 1, 0, 0, 1]),  # tau = 3, though 0.6 * 5 is a little less
        (0.1, "smallest", [1, 1, 1, 1, 1]),  # tau = 0
        (1.0, "smallest", [0, 0, 0, 0, 0]),
        # Largest first: 5, 2, 3, 4, 1.
        (0.2, "largest", [1, 1, 1, 1, 0]),
        (0.6, "largest", [1, 0, 0, 1, 0]),
    ],
)
def test_which_operations_are_backtracked(epsilon, rank_from, expected):
    """Eqs. 34 and 36."""
    chosen = backtracked_operations(tensor([0.0, 5.0, 3.0, 3.0, 9.0]), epsilon, rank_from)
    assert chosen.int().tolist() == expected


def test_backtracking():
    """Eq. 32: alpha~ = alpha_next + eta psi alpha, in the chosen columns."""
    alpha_next = tensor([[[1.0, 2.0], [3.0, 4.0]]])
    alpha = tensor([[[10.0, 20.0], [30.0, 40.0]]])
    psi = tensor([[[2.0], [3.0]]])
    found = backtrack(alpha_next, alpha, psi, tensor([True, False]), eta=0.1)
    # 1 + 0.1 * 2 * 10 = 3; 3 + 0.1 * 3 * 30 = 12.
    torch.testing.assert_close(found, tensor([[[3.0, 2.0], [12.0, 4.0]]]))


def test_psi_learns():
    """Eq. 33, |psi - eta_psi dL/dpsi|, with dL/dpsi = sum over chosen columns of eta alpha g."""
    gradient = tensor([[[1.0, -2.0], [4.0, 1.0]]])
    alpha = tensor([[[10.0, 20.0], [30.0, 40.0]]])
    to_psi = psi_gradient(gradient, alpha, tensor([True, True]), eta=0.1)
    # 0.1 (10 - 40) = -3; 0.1 (120 + 40) = 16.
    torch.testing.assert_close(to_psi, tensor([[[-3.0], [16.0]]]))
    torch.testing.assert_close(psi_gradient(gradient, alpha, tensor([False, True]), eta=0.1), tensor([[[-4.0], [4.0]]]))
    # 2 - 0.5 (-3) = 3.5; |3 - 0.5 * 16| = 5.
    stepped = psi_step(tensor([[[2.0], [3.0]]]), to_psi, eta_psi=0.5)
    torch.testing.assert_close(stepped, tensor([[[3.5], [5.0]]]))


def test_the_gradient_to_psi_is_the_chain_rule_through_backtracking():
    torch.manual_seed(0)
    alpha_next, alpha, target = torch.randn(3, 2, 14, 8, dtype=torch.float64)
    psi = torch.rand(2, 14, 1, dtype=torch.float64, requires_grad=True)
    chosen = torch.arange(8) > 2
    moved = backtrack(alpha_next, alpha, psi, chosen, 0.3)
    moved.retain_grad()
    (moved * target).sin().sum().backward()
    torch.testing.assert_close(psi_gradient(moved.grad, alpha, chosen, 0.3), psi.grad)


def test_norms_of_operations():
    """Eq. 35; 1-bit weights count as beta o sign(w)."""
    space = SearchSpace(3, cells=3, channels=4)
    for binarizer in (None, "mcn"):
        supernet = Supernet(space, binarizer)
        found = dict(zip(space.operations, squared_norms(supernet).tolist(), strict=True))
        assert found["none"] == 0
        assert found["skip_connect"] == 1
        assert found["max_pool_3x3"] == found["avg_pool_3x3"] == pytest.approx(1 / 9)
    # MCN's beta is 0.02 at the start. A dilated convolution at width C has 9 C + C^2 weights; the
    # widths of the three cells are 4, 8 and 16.
    expected = 0.02**2 * sum(9 * c + c * c for c in (4, 8, 16)) / 3
    assert found["dil_conv_3x3"] == pytest.approx(expected)
    assert found["sep_conv_3x3"] == pytest.approx(2 * expected)


def test_the_state_over_two_steps():
    space = SearchSpace(3, cells=3, channels=4, operations=("none", "dil_conv_3x3"))
    options = DecouplingOptions(epsilon=0.5, eta=0.1, eta_psi=0.5, psi=2.0)
    supernet, state = Supernet(space), Decoupling(space, options)
    alpha = torch.full(space.shape, 10.0)
    state.learn(alpha, torch.ones(space.shape))
    torch.testing.assert_close(state.psi, torch.full((2, 14, 1), 2.0))  # nothing went before
    alpha -= 1
    state.backtrack(alpha, supernet)
    # tau = 1: `none` stays at 9, the convolution becomes 9 + 0.1 * 2 * 10 = 11.
    torch.testing.assert_close(alpha, tensor([9.0, 11.0]).expand(2, 14, 2))
    state.learn(alpha, torch.full(space.shape, 3.0))
    # dL/dpsi = 0.1 * 3 * 10 = 3 of the convolution alone; |2 - 0.5 * 3| = 0.5.
    torch.testing.assert_close(state.psi, torch.full((2, 14, 1), 0.5))
    state.inherit(alpha)
    state.learn(alpha, torch.full(space.shape, 3.0))
    torch.testing.assert_close(state.psi, torch.full((2, 14, 1), 0.5))


@pytest.mark.parametrize("options", [dict(epsilon=1.1), dict(epsilon=-0.1), dict(eta=-1), dict(psi=math.nan)])
def test_bad_options(options):
    with pytest.raises(ValidationError, match=next(iter(options))):
        DecouplingOptions(**options)
