import json

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from onebit import backbones
from onebit.backbones.cells.genotype import OPERATIONS
from onebit.backbones.cells.net import Cell
from onebit.backbones.cells.operations import CellStyle, Halve, PReLU, SeparableBlock
from onebit.commons.errors import InputError

MCN_STYLE = CellStyle(backbones.MCN)
GENOTYPE = backbones.cells.load_cell("dcp_nas_imagenet")


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("size", "millions"), [("s", 4.190), ("m", 6.948), ("l", 14.506)])
def test_published_number_of_parameters(size, millions):
    """Ten cells with a 1000-class classifier: this pins down every operation's structure."""
    network = backbones.create_backbone(f"dcp_nas_{size}")
    total = parameters(network) + 1000 * network.feature_channels[-1] + 1000
    assert total / 1e6 == pytest.approx(millions, abs=0.0005)


@pytest.mark.parametrize(
    ("stem", "strides", "stem_channels"), [("imagenet", (4, 8, 16, 32), 8), ("cifar", (1, 1, 2, 4), 24)]
)
@pytest.mark.parametrize("size", [(64, 64), (67, 45), (33, 50)])
@pytest.mark.parametrize("layers", [3, 4, 6, 10])
def test_maps_have_the_stated_channels_and_strides(stem, strides, stem_channels, size, layers):
    network = backbones.create_backbone("dcp_nas_c8", stem=stem, layers=layers).eval()
    assert network.feature_strides == strides
    assert network.feature_channels == (stem_channels, 32, 64, 128)
    with torch.no_grad():
        maps = network(torch.randn(1, 3, *size))
    for out, stride, channels in zip(maps, strides, network.feature_channels, strict=True):
        assert out.shape == (1, channels, *(-(-n // stride) for n in size))


def test_out_indices_choose_among_the_same_maps():
    torch.manual_seed(0)
    whole = backbones.create_backbone("dcp_nas_c8").eval()
    image, weights = torch.randn(1, 3, 64, 64), whole.state_dict()
    with torch.no_grad():
        maps = whole(image)
        for chosen in [(0,), (1,), (0, 2), (1, 3)]:
            part = backbones.create_backbone("dcp_nas_c8", out_indices=chosen).eval()
            needed = part.state_dict().keys()
            part.load_state_dict({key: weights[key] for key in needed})
            assert parameters(part) < parameters(whole) or chosen[-1] == 3
            for index, out in zip(chosen, part(image), strict=True):
                assert torch.equal(out, maps[index])


def test_reduction_cells_stand_at_one_and_two_thirds():
    network = backbones.create_backbone("dcp_nas_c8", layers=10)
    widths = [cell.preprocess_newer.conv.out_channels for cell in network.cells]
    assert widths == [8] * 3 + [16] * 3 + [32] * 4
    halved = [isinstance(cell.preprocess_older, Halve) for cell in network.cells]
    assert [i for i, halve in enumerate(halved) if halve] == [0, 4, 7]
    cifar = backbones.create_backbone("dcp_nas_c8", layers=6, stem="cifar")
    assert [type(cell.preprocess_older).__name__ for cell in cifar.cells] == [
        *("Preprocess", "Preprocess", "Preprocess", "Halve", "Preprocess", "Halve")
    ]


def test_precision_of_every_convolution():
    """1-bit weights in the cells; 1-bit activations in pointwise convolutions only; real stem."""
    network = backbones.create_backbone("dcp_nas_c8")
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and not name.startswith("stem"):
            assert module.weight_bits == 1
            assert module.input_bits == (1 if "pointwise" in name else 32), name
    assert not any(isinstance(m, backbones.OneBitConv2d) for m in network.stem.modules())
    assert not any(isinstance(m, nn.ReLU) for m in network.cells.modules())
    real = backbones.create_backbone("dcp_nas_c8_real")
    assert not any(isinstance(m, backbones.OneBitConv2d) for m in real.modules())


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (5, 4), (1, 1)])
def test_operations_halve_odd_sizes_alike(name, stride, size):
    out = MCN_STYLE.operation(name, 4, stride)(torch.randn(2, 4, *size))
    assert out.shape == (2, 4, *(-(-n // stride) for n in size))
    assert out.abs().sum() > 0 or name == "none" or size == (1, 1)


def test_separable_block_step_by_step():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 9, 9)

    def norm(x, like):
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
        return (x - mean) / (var + like.eps).sqrt()

    def one_bit(conv):
        return torch.where(conv.weight > 0, 0.02, -0.02)

    for shortcut in (True, False):
        block = SeparableBlock(6, 5, 1, 2, CellStyle(backbones.MCN, shortcut=shortcut))
        out = F.conv2d(norm(x, block.bn_in), one_bit(block.depthwise), padding=4, dilation=2, groups=6)
        out = F.prelu(norm(out, block.bn_depthwise), block.prelu_depthwise.weight)
        out = F.conv2d(torch.where(out > 0, 1.0, -1.0), one_bit(block.pointwise))
        out = norm(out, block.bn_pointwise) + (x if shortcut else 0)
        torch.testing.assert_close(block(x), F.prelu(out, block.prelu.weight))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_prelu_is_torchs(memory_format):
    """Values and gradients, at zeros of both signs too; second derivatives elsewhere."""
    torch.manual_seed(0)
    smooth = torch.randn(3, 4, 5, 6, dtype=torch.float64).to(memory_format=memory_format)
    zeros = smooth.clone()
    zeros[0, :, 0, :2] = torch.tensor([0.0, -0.0], dtype=torch.float64)
    grad = torch.randn_like(smooth)
    layers = PReLU(4).double(), nn.PReLU(4).double()
    for layer in layers:
        layer.weight.data = torch.tensor([0.25, -0.5, 0.0, 2.0], dtype=torch.float64)
    for x in (zeros.requires_grad_(), smooth.requires_grad_()):
        assert torch.equal(layers[0](x), layers[1](x))
        first = [torch.autograd.grad(layer(x), (x, layer.weight), grad, create_graph=True) for layer in layers]
        torch.testing.assert_close(*first)
    second = [
        torch.autograd.grad(to_x.pow(3).sum() + to_slope.pow(2).sum(), (smooth, layer.weight))
        for (to_x, to_slope), layer in zip(first, layers, strict=True)
    ]
    torch.testing.assert_close(*second)


def test_halving_is_two_strided_convolutions_of_which_one_is_shifted():
    torch.manual_seed(0)
    halve = MCN_STYLE.halve(4, 6).eval()
    x = torch.randn(1, 4, 7, 5)
    even = F.conv2d(halve.bn_in(x), halve.conv_even.quantize_weight(halve.conv_even.weight), stride=2)
    shifted = F.pad(halve.bn_in(x), (-1, 1, -1, 1))
    odd = F.conv2d(shifted, halve.conv_odd.quantize_weight(halve.conv_odd.weight), stride=2)
    expected = halve.prelu(halve.bn(torch.cat((even, odd), 1)))
    torch.testing.assert_close(halve(x), expected)


def test_a_node_sums_its_edges_and_the_cell_concatenates_its_nodes():
    """With identities only, node i is a sum of earlier states that can be written down."""
    nodes = [[("skip_connect", source) for source in range(number)] for number in (2, 3, 4, 5)]
    cell = Cell(nodes, 3, 5, 4, reduction=False, halve_older=False, style=MCN_STYLE).eval()
    older, newer = torch.randn(1, 3, 6, 6), torch.randn(1, 5, 6, 6)
    a, b = cell.preprocess_older(older), cell.preprocess_newer(newer)
    expected = torch.cat([(a + b) * factor for factor in (1, 2, 4, 8)], 1)
    torch.testing.assert_close(cell(older, newer), expected)


def test_all14_genotype_with_every_operation():
    node = [[[OPERATIONS[(s + n) % 8], s] for s in range(n)] for n in (2, 3, 4, 5)]
    network = backbones.CellNet(
        dict(format="onebit-genotype", version=1, normal=node, reduce=node), channels=4, layers=3
    )
    maps = network(torch.randn(2, 3, 65, 40))
    assert [out.shape[1] for out in maps] == [4, 16, 32, 64]
    assert network.genotype.derivation == "all14"
    sum(out.sum() for out in maps).backward()


def test_genotype_file_is_a_name(tmp_path):
    path = GENOTYPE.save(tmp_path / "cell.json")
    network = backbones.create_backbone(str(path), channels=8, layers=3)
    assert network.genotype == GENOTYPE
    assert backbones.CellNet(path, channels=8, layers=3).genotype == GENOTYPE
    assert backbones.CellNet(GENOTYPE, channels=8, layers=3).genotype == GENOTYPE
    content = json.loads(path.read_text())
    content["normal"][0][0][0] = "conv"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"cell\.json: normal cell, node 2, edge 0: operation 'conv': expected one of"):
        backbones.create_backbone(str(path))
    with pytest.raises(InputError, match="no genotype file at"):
        backbones.create_backbone(str(tmp_path / "missing.json"))


def test_mmengine_config(tmp_path):
    text = "model = dict(type='onebit.CellNet', arch='dcp_nas_c8', layers=3, stem='cifar')"
    (tmp_path / "config.py").write_text(text)
    network = MODELS.build(Config.fromfile(tmp_path / "config.py").model)
    assert isinstance(network, backbones.CellNet)
    assert len(network.cells) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(arch="dcp_nas_xl"), "arch 'dcp_nas_xl': expected dcp_nas_s"),
        (dict(arch=7), r"unknown cell 7; there are .*darts_v2, dcp_nas_imagenet"),
        (dict(channels=7), "channels 7: expected a multiple of 2 from 2 to 1024"),
        (dict(channels=0), "channels 0"),
        (dict(channels=True), "channels True"),
        (dict(layers=2), "layers 2: expected a whole number from 3 to 256"),
        (dict(layers=3.5), "layers 3.5"),
        (dict(stem="svhn"), "stem 'svhn'"),
        (dict(binarizer="mnc"), "unknown binarizer 'mnc'; did you mean mcn"),
        (dict(frozen_stages=5), "frozen_stages 5"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        backbones.CellNet(**arguments)


def test_odd_width_in_a_name():
    with pytest.raises(InputError, match="channels 15"):
        backbones.create_backbone("dcp_nas_c15")


def test_frozen_stages_follow_the_scales():
    network = backbones.create_backbone("dcp_nas_c8", layers=6, frozen_stages=2)
    trainable = {name.split(".")[1] for name, p in network.cells.named_parameters(prefix="c") if p.requires_grad}
    assert trainable == {"2", "3", "4", "5"}
    assert not any(p.requires_grad for p in network.stem.parameters())


def test_a_narrow_cell_net_learns():
    """Eight random images, two classes: a few steps fit them, which the untrained net does not."""
    torch.manual_seed(0)
    network = backbones.create_backbone("dcp_nas_c8", stem="cifar", layers=3)
    head = nn.Linear(network.feature_channels[-1], 2)
    images, labels = torch.randn(8, 3, 16, 16), torch.arange(8) % 2
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=0.01)
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(head(network(images)[-1].mean((2, 3))), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.4
    assert losses[-1] < 0.1


def test_a_name_can_set_the_number_of_cells():
    config = backbones.backbone_config("dcp_nas_c8_l6_real")
    assert config == dict(type="onebit.CellNet", arch="dcp_nas_c8", layers=6, binarizer=None)
    assert len(backbones.create_backbone("dcp_nas_c8_l6").cells) == 6
    with pytest.raises(InputError, match="expected a whole number from 3 to 256"):
        backbones.create_backbone("dcp_nas_c8_l2")


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_maps_have_the_memory_format_of_the_images(memory_format):
    network = backbones.create_backbone("dcp_nas_c8_l6")
    images = torch.rand(2, 3, 64, 64).contiguous(memory_format=memory_format)
    for maps in (network(images), network.eval()(images)):
        assert all(m.is_contiguous(memory_format=memory_format) for m in maps)
