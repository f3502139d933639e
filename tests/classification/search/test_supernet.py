"""The supernet computes what its plain formulation and the derived network compute."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from onebit.backbones import Genotype
from onebit.backbones.cells.darts_operations import ReLUConvBN
from onebit.backbones.cells.genotype import OPERATIONS, search_space
from onebit.backbones.cells.net import CellNet
from onebit.backbones.cells.operations import SeparableBlock
from onebit.classification.search.architecture import edge_weights, frozen, operation_weights
from onebit.classification.search.depthwise import depthwise_conv2d
from onebit.classification.search.mixture import mix
from onebit.classification.search.space import INCOMING, SOURCES, SearchSpace
from onebit.classification.search.supernet import Supernet
from onebit.commons.errors import InputError
from tests.classification.search.plain import TEXTBOOK, PlainSupernet, Shifted

SMALL = SearchSpace(3, cells=3, channels=4)


def images(n: int = 2, size: int = 8, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(n, 3, size, size, dtype=dtype)


def random_choice(space: SearchSpace = SMALL) -> torch.Tensor:
    return torch.randint(len(space.operations), space.shape[:2])


@pytest.mark.parametrize(("binarizer", "plain"), [(None, None), ("mcn", TEXTBOOK)])
def test_values_and_gradients_are_those_of_the_plain_formulation(binarizer, plain):
    torch.manual_seed(0)
    supernet = Supernet(SMALL, binarizer).double()
    reference = PlainSupernet(SMALL, plain).double()
    missing, unexpected = reference.load_state_dict(supernet.state_dict(), strict=False)
    assert (missing, unexpected) == ([], [])
    for block in (*supernet.modules(), *reference.modules()):
        if isinstance(block, SeparableBlock):
            block.bn_pointwise = Shifted()
    # Large enough that no channel is constant: signs of 0 +- rounding would differ.
    x, weights = images(4, 16), torch.randn(SMALL.shape, dtype=torch.float64).softmax(-1)
    gradients = []
    outputs = []
    for network in (supernet, reference):
        mixing = weights.clone().requires_grad_()
        logits = network(x, mixing)
        outputs.append(logits.detach())
        logits.logsumexp(1).sum().backward()
        named = {name: p.grad for name, p in network.named_parameters()}
        gradients.append({"mixing": mixing.grad, **named})
    torch.testing.assert_close(*outputs)
    assert set(gradients[0]) == set(gradients[1])
    for name, ours in gradients[0].items():
        torch.testing.assert_close(ours, gradients[1][name], msg=lambda m, n=name: f"{n}: {m}")


def take_path(network, supernet, choice):
    """Give a derived network the weights of its path through the supernet."""
    network.stem.load_state_dict(supernet.stem.state_dict(), strict=False)
    for cell, ours in zip(network.cells, supernet.cells, strict=True):
        for part in ("preprocess_older", "preprocess_newer"):
            getattr(cell, part).load_state_dict(getattr(ours, part).state_dict(), strict=False)
        for node, edges in zip(cell.nodes, INCOMING, strict=True):
            for e in edges:
                name = supernet.space.operations[choice[ours.kind, e]]
                if name in ours.edges[e]:
                    state = ours.edges[e][name].state_dict()
                    node[f"from{SOURCES[e]}"].load_state_dict(state, strict=False)


@pytest.mark.parametrize("binarizer", [None, "mcn", "bnasxnor"])
def test_a_single_path_is_the_derived_network(binarizer):
    torch.manual_seed(1)
    both = "both" if binarizer == "bnasxnor" else "weights"
    style = dict(binarize_preprocess=both, binarize_depthwise=both)
    supernet = Supernet(SMALL, binarizer, **style).double()
    choice = random_choice()
    cells = [[[(OPERATIONS[kind[e]], SOURCES[e]) for e in edges] for edges in INCOMING] for kind in choice.tolist()]
    network = CellNet(
        cell=Genotype(*cells),
        channels=4,
        layers=3,
        stem="cifar",
        binarizer=binarizer,
        structure="onebit",
        out_indices=(3,),
        **style,
    ).double()
    take_path(network, supernet, choice)
    x = images(4, 16)
    (features,) = network.train()(x)
    expected = supernet.classifier(features.mean((2, 3)))
    torch.testing.assert_close(supernet(x, choice=choice), expected)


#: Of DARTS; its pooling has a batch norm in the search alone.
WITHOUT_POOLING = SearchSpace(3, cells=3, channels=4, operations=search_space(pooling=False))


@pytest.mark.parametrize("seed", range(2))
def test_a_single_path_of_darts_is_its_derived_network(seed):
    torch.manual_seed(seed)
    supernet = Supernet(WITHOUT_POOLING, structure="darts").double()
    choice = random_choice(WITHOUT_POOLING)
    names = WITHOUT_POOLING.operations
    cells = [[[(names[kind[e]], SOURCES[e]) for e in edges] for edges in INCOMING] for kind in choice.tolist()]
    genotype = Genotype(*cells, provenance={"supernet": supernet.about})
    network = CellNet(genotype, stem="cifar", out_indices=(3,)).double()
    assert isinstance(network.cells[0].preprocess_older, ReLUConvBN)
    take_path(network, supernet, choice)
    x = images(4, 16)
    (features,) = network.train()(x)
    torch.testing.assert_close(supernet(x, choice=choice), supernet.classifier(features.mean((2, 3))))


def test_darts_pools_with_a_batch_norm_after_it_and_has_no_1_bit_parts():
    torch.manual_seed(0)
    space = SearchSpace(3, cells=3, channels=4, operations=("max_pool_3x3",))
    cell = Supernet(space, structure="darts").cells[0]
    x = torch.randn(2, 12, 6, 6)
    nodes = cell(x, x, [[0]] * 14, None, None)
    pooled = [F.max_pool2d(part(x), 3, 1, 1) for part in (cell.preprocess_older, cell.preprocess_newer)]
    expected = sum(F.batch_norm(each, None, None, training=True) for each in pooled)
    torch.testing.assert_close(nodes[0].map, expected)
    with pytest.raises(InputError, match="structure 'darts': expected a real-valued supernet, found binarizer mcn"):
        Supernet(space, "mcn", structure="darts")
    with pytest.raises(InputError, match="structure 'nasnet': expected one of onebit, darts"):
        Supernet(space, structure="nasnet")


@pytest.mark.parametrize("structure", ["onebit", "darts"])
def test_one_operation_of_weight_one_is_the_single_path(structure):
    torch.manual_seed(2)
    supernet, choice, x = Supernet(SMALL, structure=structure), random_choice(), images(dtype=torch.float32)
    weights = torch.nn.functional.one_hot(choice, 8).float()
    expected = supernet(x, choice=choice)
    torch.testing.assert_close(supernet(x, weights), expected)
    torch.testing.assert_close(supernet(x, weights, active=weights.bool()), expected)


def test_abandoned_operations_are_not_evaluated():
    torch.manual_seed(3)
    supernet, x = Supernet(SMALL, "mcn"), images(dtype=torch.float32)
    active = torch.rand(SMALL.shape) < 0.4
    weights = operation_weights(torch.randn(SMALL.shape), active | ~active.any(-1, keepdim=True))
    weights = weights * active
    calls = []
    handles = [
        module.register_forward_hook(lambda *_, key=(c, e, name): calls.append(key))
        for c, cell in enumerate(supernet.cells)
        for e, edge in enumerate(cell.edges)
        for name, operation in edge.items()
        for module in [
            next(m for n, m in operation.named_modules() if n.endswith("pointwise") or n.endswith("conv_even"))
        ]
    ]
    logits = supernet(x, weights, active=active)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(logits, supernet(x, weights))
    expected = {
        (c, e, name)
        for c, cell in enumerate(supernet.cells)
        for e, edge in enumerate(cell.edges)
        for name in edge
        if active[cell.kind, e, OPERATIONS.index(name)]
    }
    assert set(calls) == expected
    assert len(calls) == len(expected)


def test_nothing_reaches_a_node_whose_edges_are_all_none():
    supernet, x = Supernet(SMALL), images(dtype=torch.float32)
    logits = supernet(x, choice=torch.zeros(2, 14, dtype=torch.int64))
    torch.testing.assert_close(logits, supernet.classifier.bias.expand(2, -1))
    assert supernet(images(size=7, dtype=torch.float32), choice=random_choice()).shape == (2, 3)


def test_partial_channels():
    """Written down by the formula of PC-DARTS for one cell's first node."""
    torch.manual_seed(4)
    space = SearchSpace(3, cells=3, channels=8, operations=("skip_connect", "avg_pool_3x3"))
    supernet = Supernet(space, channel_fraction=0.5)
    weights = operation_weights(torch.randn(space.shape))
    edges = edge_weights(torch.randn(2, 14))
    x = torch.randn(2, 24, 6, 6)
    cell = supernet.cells[0]
    older, newer = (torch.nn.functional.batch_norm(x * k, None, None, training=True) for k in (1, 2))
    nodes = cell(older, newer, [[0, 1]] * 14, weights[0] * edges[0][:, None], edges[0])
    expected = 0
    for e, state in enumerate((cell.preprocess_older(older), cell.preprocess_newer(newer))):
        seen, rest = state[:, :4], state[:, 4:]
        pooled = torch.nn.functional.avg_pool2d(seen, 3, 1, 1, count_include_pad=False)
        pooled = torch.nn.functional.batch_norm(pooled, None, None, training=True)
        mixed = weights[0, e, 0] * seen + weights[0, e, 1] * pooled
        together = torch.cat((mixed, rest), 1)
        expected = expected + edges[0, e] * together[:, [0, 4, 1, 5, 2, 6, 3, 7]]
    torch.testing.assert_close(nodes[0].map, expected)
    torch.testing.assert_close(torch.stack([edges[:, r.start : r.stop].sum(1) for r in INCOMING]), torch.ones(4, 2))


def test_a_partial_supernet_learns_everywhere():
    supernet = Supernet(SearchSpace(3, cells=3, channels=8), "mcn", channel_fraction=0.25)
    weights = operation_weights(torch.randn(2, 14, 8))
    supernet(images(dtype=torch.float32), weights, edge_weights=torch.rand(2, 14)).sum().backward()
    assert all(p.grad is not None for p in supernet.parameters())


@pytest.mark.parametrize(("pooling", "skip", "left"), [(False, True, 6), (True, False, 7), (False, False, 5)])
def test_ablations_of_the_search_space(pooling, skip, left):
    space = SearchSpace(3, cells=3, channels=4, operations=search_space(pooling, skip))
    assert space.shape == (2, 14, left)
    weights = torch.full(space.shape, 1 / left)
    assert Supernet(space)(images(dtype=torch.float32), weights).shape == (2, 3)


def test_parameters_of_an_operation():
    supernet = Supernet(SMALL, "mcn")
    by_operation = [supernet.operation_parameters(m) for m in range(8)]
    assert [len(parameters) > 0 for parameters in by_operation] == [False, True, False, False] + [True] * 4
    # Three cells of 14 edges, each with one depthwise and one pointwise convolution, both with a
    # modulator, and two PReLUs.
    assert len(by_operation[OPERATIONS.index("dil_conv_3x3")]) == 3 * 14 * 6
    identities = [id(p) for parameters in by_operation for p in parameters]
    assert len(set(identities)) == len(identities)


def test_frozen_parameters_get_no_gradient_and_thaw():
    supernet, x = Supernet(SMALL, "mcn"), images(dtype=torch.float32)
    weights = torch.full(SMALL.shape, 1 / 8, requires_grad=True)
    with frozen(supernet):
        supernet(x, weights).sum().backward()
    assert weights.grad is not None
    assert all(p.grad is None and p.requires_grad for p in supernet.parameters())


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_gradients(kernel, dilation, stride, size):
    torch.manual_seed(0)
    x = images(2, size)[:, [0, 1, 2, 0]].contiguous(memory_format=torch.channels_last)
    x = x.requires_grad_()
    weight = torch.randn(4, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    ours = depthwise_conv2d(x, weight, stride, dilation)
    padding = dilation * (kernel - 1) // 2
    theirs = torch.nn.functional.conv2d(x, weight, None, stride, padding, dilation, 4)
    assert torch.equal(ours, theirs)
    grad = torch.randn_like(ours)
    for a, b in zip(*(torch.autograd.grad(y, (x, weight), grad) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b)


def test_second_derivatives_of_the_parts():
    torch.manual_seed(0)
    x = images(1, 6).requires_grad_()
    weight = torch.randn(3, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: depthwise_conv2d(x, w, 1, 2), (x, weight))
    assert torch.autograd.gradgradcheck(lambda x: depthwise_conv2d(x, weight.detach(), 1, 1), x)
    maps = tuple(images(1, 3).requires_grad_() for _ in range(3))
    coefficients = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c, *m: mix(c, m), (coefficients, *maps))
    assert torch.autograd.gradgradcheck(lambda c, *m: mix(c, m), (coefficients, *maps))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(cells=2), "expected a whole number from 3 up"),
        (dict(channels=5), "expected a multiple of 2"),
        (dict(stem="cifar100"), "expected one of cifar, imagenet"),
        (dict(operations=("conv",)), "operation 'conv': expected one of none"),
        (dict(operations=("none",)), "at least one"),
        (dict(operations=("skip_connect",) * 2), "twice"),
    ],
)
def test_bad_spaces(arguments, message):
    with pytest.raises(InputError, match=message):
        SearchSpace(3, **arguments)


def test_bad_calls():
    supernet, x = Supernet(SMALL), images(dtype=torch.float32)
    with pytest.raises(InputError, match="either weights or a choice"):
        supernet(x)
    with pytest.raises(InputError, match=r"expected the shape \[2, 14, 8\], found \[14, 8\]"):
        supernet(x, torch.rand(14, 8))
    for fraction in (0.4, 0, 2):
        with pytest.raises(InputError, match="channel_fraction"):
            Supernet(SMALL, channel_fraction=fraction)
    with pytest.raises(InputError, match="even number of channels"):
        Supernet(SMALL, channel_fraction=0.25)


@pytest.mark.parametrize("name", ["binarize_preprocess", "binarize_depthwise"])
def test_what_is_binarized_beside_the_cells_is_one_of_the_choices(name):
    with pytest.raises(InputError, match=f"{name} 'nothing': expected one of"):
        Supernet(SearchSpace(2, cells=3, channels=4), **{name: "nothing"})
