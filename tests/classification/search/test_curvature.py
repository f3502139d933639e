"""The curvature products against their definitions, in float64 on small supernets."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from onebit.backbones.binarization import BINARIZERS, RSign
from onebit.backbones.cells.operations import SeparableBlock
from onebit.backbones.conv import OneBitConv2d
from onebit.classification.search.architecture import operation_weights
from onebit.classification.search.curvature import CURVATURES, Curvature, kl_divergence
from onebit.classification.search.discrepancy import discrepancy
from onebit.classification.search.space import SearchSpace
from onebit.classification.search.straight_through import twice_differentiable
from onebit.classification.search.supernet import Supernet
from onebit.commons.errors import InputError
from tests.classification.search.plain import Shifted

SPACE = SearchSpace(3, cells=3, channels=4, operations=("none", "avg_pool_3x3", "sep_conv_3x3", "dil_conv_5x5"))
# 1-bit convolutions put out few different values. Where they feed a maximum or a second 1-bit
# depthwise convolution, the network stands right at a bend (a tie, or a 0 before a PReLU), and
# differences of gradients across it mean nothing; between these two operations there is none.
SMOOTH = SearchSpace(3, cells=3, channels=4, operations=("none", "dil_conv_3x3"))


class FrozenSurrogate(nn.Module):
    """max(-1, min(x, 1)) + c with c = sign(x0) - max(-1, min(x0, 1)) of the first call."""

    precision = 32

    def __init__(self) -> None:
        super().__init__()
        self.offset = None

    def forward(self, x):
        clipped = x.clamp(-1, 1)
        if self.offset is None:
            self.offset = (torch.where(x > 0, 1.0, -1.0) - clipped).detach()
        return clipped + self.offset


def setting(binarizer, space=SPACE):
    torch.manual_seed(0)
    network = Supernet(space, binarizer).double()
    for block in network.modules():
        if isinstance(block, SeparableBlock):
            block.bn_pointwise = Shifted()
        if isinstance(block, RSign):
            nn.init.normal_(block.bias, std=0.3)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    alpha = 0.3 * torch.randn(space.shape, dtype=torch.float64)
    parent_logits = torch.randn(2, 3, dtype=torch.float64)
    v = torch.randn_like(alpha)
    return network, lambda a: network(images, operation_weights(a)), alpha, parent_logits, v


def first_gradient(logits_of, alpha, parent_logits):
    alpha = alpha.detach().requires_grad_()
    return torch.autograd.grad(kl_divergence(parent_logits, logits_of(alpha)), alpha)[0]


@pytest.mark.parametrize(
    ("binarizer", "slopes"),
    [
        ("xnor", [0, 1, 1, 1, 1, 1, 0]),
        ("bireal", [0, 0, 1, 2, 1, 0, 0]),
        ("reactnet", [0, 0, 1, 2, 1, 0, 0]),
        ("dorefa2", [0, 0, 0, 1, 1, 1, 0]),
    ],
)
def test_slopes_of_the_surrogates(binarizer, slopes):
    quantizer = BINARIZERS[binarizer].input(1)
    assert quantizer.slope(torch.tensor([-1.5, -1, -0.5, 0, 0.5, 1, 1.5])).tolist() == slopes


@pytest.mark.parametrize("binarizer", [None, "mcn", "bnasxnorw1a32"])
def test_hessian_product_is_the_difference_of_gradients(binarizer):
    space = SMOOTH if binarizer == "mcn" else SPACE
    network, logits_of, alpha, parent_logits, v = setting(binarizer, space)
    curvature = Curvature("hessian", network, logits_of, alpha, parent_logits)
    product = curvature.product(v)
    torch.testing.assert_close(curvature.gradient, first_gradient(logits_of, alpha, parent_logits))
    for module in network.modules():  # of a 1-bit Child: of the function that it stands for
        if isinstance(module, OneBitConv2d) and module.quantize_input is not None:
            module.quantize_input, module.integers = FrozenSurrogate(), False
    logits_of(alpha)
    step = 1e-6
    plus, minus = (first_gradient(logits_of, alpha + s * v, parent_logits) for s in (step, -step))
    torch.testing.assert_close(product, (plus - minus) / (2 * step), rtol=1e-5, atol=1e-7)
    assert product.norm() > 1e-3


def test_the_hessian_of_a_child_is_symmetric():
    network, logits_of, alpha, parent_logits, v = setting("mcn")
    curvature = Curvature("hessian", network, logits_of, alpha, parent_logits)
    u = torch.randn_like(v)
    torch.testing.assert_close((u * curvature.product(v)).sum(), (v * curvature.product(u)).sum())


def test_the_explicit_matrix_is_the_hessian():
    torch.manual_seed(0)
    matrix = torch.randn(15, 6, dtype=torch.float64)
    alpha, v = torch.randn(2, 2, 3, dtype=torch.float64)
    parent_logits = torch.randn(5, 3, dtype=torch.float64)

    def bent(a):
        return (matrix @ a.flatten()).tanh().view(5, 3)

    expected = torch.autograd.functional.hessian(lambda a: kl_divergence(parent_logits, bent(a)), alpha).view(6, 6)
    explicit = Curvature("hessian-explicit", nn.Module(), bent, alpha, parent_logits)
    torch.testing.assert_close(explicit.matrix(), expected)
    torch.testing.assert_close(explicit.product(v).flatten(), expected @ v.flatten())
    product = Curvature("hessian", nn.Module(), bent, alpha, parent_logits).product(v)
    torch.testing.assert_close(product.flatten(), expected @ v.flatten())


@pytest.mark.parametrize("binarizer", [None, "mcn", "reactnet"])
def test_ggn_product_is_that_of_the_matrix_built_from_jacobians(binarizer):
    network, logits_of, alpha, parent_logits, v = setting(binarizer)
    alpha.requires_grad_()
    logits = logits_of(alpha)
    total = 0
    for sample in logits:
        rows = [torch.autograd.grad(z, alpha, retain_graph=True)[0].flatten() for z in sample]
        jacobian, q = torch.stack(rows), sample.detach().softmax(0)
        total = total + jacobian.T @ (torch.diag(q) - torch.outer(q, q)) @ jacobian
    expected = total / len(logits)
    curvature = Curvature("ggn", network, logits_of, alpha, parent_logits)
    for _ in range(2):  # the graph stays
        torch.testing.assert_close(curvature.product(v).flatten(), expected @ v.flatten())
    torch.testing.assert_close(curvature.gradient, first_gradient(logits_of, alpha, parent_logits))


def test_fisher_is_the_product_of_mean_scores():
    network, logits_of, alpha, parent_logits, v = setting("mcn")
    alpha.requires_grad_()
    log_q, p = logits_of(alpha).log_softmax(1), parent_logits.softmax(1)
    mean_score = 0
    for n in range(2):
        for c in range(3):
            score = torch.autograd.grad(log_q[n, c], alpha, retain_graph=True)[0]
            mean_score = mean_score + p[n, c] * score / 2
    curvature = Curvature("fisher", network, logits_of, alpha, parent_logits)
    expected = torch.outer(mean_score.flatten(), mean_score.flatten())
    torch.testing.assert_close(curvature.product(v).flatten(), expected @ v.flatten())
    torch.testing.assert_close(curvature.matrix(), expected)


def test_where_logits_are_linear_ggn_is_the_hessian():
    torch.manual_seed(0)
    matrix = torch.randn(20, 12, dtype=torch.float64)
    alpha, v = torch.randn(2, 12, dtype=torch.float64)
    parent_logits = torch.randn(5, 4, dtype=torch.float64)

    def linear(a):
        return (matrix @ a).view(5, 4)

    products = {kind: Curvature(kind, nn.Module(), linear, alpha, parent_logits).product(v) for kind in CURVATURES}
    torch.testing.assert_close(products["ggn"], products["hessian"])
    torch.testing.assert_close(products["ggn"], products["hessian-explicit"])
    assert not torch.allclose(products["ggn"], products["fisher"])
    # And in a supernet they are not.
    network, logits_of, alpha, parent_logits, v = setting(None)
    ggn, hessian = (Curvature(kind, network, logits_of, alpha, parent_logits).product(v) for kind in ("ggn", "hessian"))
    assert not torch.allclose(ggn, hessian, rtol=1e-3)


@pytest.mark.parametrize("binarizer", ["mcn", "bireal", "reactnet", "dorefa2"])
def test_differentiating_twice_changes_neither_value_nor_gradient(binarizer):
    torch.manual_seed(0)
    conv = OneBitConv2d(3, 3, 1, binarizer=binarizer).double()
    before = conv.quantize_input
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    plain = conv(x)
    gradient = torch.autograd.grad(plain.square().sum(), x)[0]
    with twice_differentiable(conv):
        twice = conv(x)
        again = torch.autograd.grad(twice.square().sum(), x)[0]
    assert torch.equal(plain, twice)
    torch.testing.assert_close(gradient, again)
    assert conv.quantize_input is before
    assert conv.integers


def test_an_unknown_quantizer_is_refused_by_name():
    conv = OneBitConv2d(3, 3, 1)
    conv.quantize_input = FrozenSurrogate()
    with pytest.raises(InputError, match="FrozenSurrogate"), twice_differentiable(conv):
        pass
    with pytest.raises(InputError, match="expected one of fisher, ggn"):
        Curvature("kfac", conv, None, torch.zeros(1), torch.zeros(1, 2))


@pytest.mark.parametrize("norm", ["frobenius", "l1", "cosine"])
def test_discrepancies_and_their_derivatives(norm):
    child = torch.tensor([3.0, 0.0, -4.0], dtype=torch.float64, requires_grad=True)
    parent = torch.tensor([3.0, 4.0, 0.0], dtype=torch.float64)
    value, slope = discrepancy(child, parent, norm)
    # v = (0, -4, -4); |child| = |parent| = 5 and <child, parent> = 9.
    expected = {"frobenius": 32.0, "l1": 8.0, "cosine": 1 - 9 / 25}[norm]
    assert value.item() == pytest.approx(expected)
    torch.testing.assert_close(slope, torch.autograd.grad(value, child)[0])


def test_gradients_of_zero_have_no_direction():
    zero, other = torch.zeros(3), torch.ones(3)
    for a, b in ((zero, other), (other, zero), (zero, zero)):
        value, slope = discrepancy(a, b, "cosine")
        assert value == 1
        assert slope.isfinite().all()
    with pytest.raises(InputError, match="frobenius, l1, cosine"):
        discrepancy(zero, zero, "l2")
