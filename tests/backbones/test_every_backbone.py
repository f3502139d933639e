"""What holds for every backbone on the list, whatever its family and its binarizer.

Narrow ones are built, run and trained for a step; of full-width ones, which differ from them in
numbers alone, the shapes and costs are checked without memory for their weights.
"""

import functools
import re

import pytest
import torch
import torch.nn.functional as F
from mmengine.analysis import FlopAnalyzer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from onebit import backbones
from onebit.backbones.binarization import BINARIZERS
from onebit.commons.errors import InputError
from tests.backbones.covering import NAMES, REAL, covering, split

#: What the options of a backbone do does not depend on depth and binarizer.
OPTIONS = [
    *("resnet18_w16", "resnet18_w16_reactnet", "resnet50_w16_xnor", "wrn22_w16", "wrn22_w16_mcn"),
    *("reactnet_a_w8", "reactnet_a_w8_real", "dcp_nas_c8", "dcp_nas_c8_real", "darts_v2_c8_l6"),
    "bnas_imagenet_c8_l6",
]
SIZES = {"imagenet": [(64, 96), (67, 45)], "cifar": [(16, 24), (19, 13)]}


def real_twin(name):
    """The real-valued backbone of the same convolutions."""
    bare = split(name)[0]
    return f"{bare}_real" if f"{bare}_real" in NAMES or bare not in REAL else bare


COVERING = list(covering())
NARROW = [name for name in COVERING if re.search(r"_[wc](8|16)(_|$)", name)]
#: The stem knows nothing of the binarizer.
OTHER_STEM = [
    *OPTIONS,
    *{split(name)[0]: name for name in NARROW if split(name)[0] not in {split(n)[0] for n in OPTIONS}}.values(),
]


def test_the_covering_has_every_network_and_every_binarizer():
    pairs = [split(name) for name in COVERING]
    assert {network for network, _ in pairs} >= {split(name)[0] for name in NAMES}
    for binarizer in BINARIZERS:
        assert len([network for network, found in pairs if found == binarizer]) >= 5


def batch_norms(network):
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def buffers(module):
    return {name: value.clone() for name, value in module.named_buffers()}


def check_maps(network, maps, size):
    assert isinstance(maps, tuple)
    assert len(maps) == len(network.feature_channels) == len(network.feature_strides)
    for out, channels, stride in zip(maps, network.feature_channels, network.feature_strides, strict=True):
        assert out.shape[1:] == (channels, -(-size[0] // stride), -(-size[1] // stride))
        assert out.is_meta or torch.isfinite(out).all()


def train_step(network, images):
    """Gradients of a random linear function of the maps; returns the maps."""
    network.zero_grad()
    maps = network(images)
    sum((out * torch.randn_like(out)).sum() for out in maps).backward()
    return maps


def check_gradients(network, images):
    """Every parameter is reached.

    A batch norm takes back what a scale before it does: in training the gradient of such a scale is
    0 but for the norm's eps, and may be rounded to 0. With norms at rest it must not be. What depends on the step
    before (RBONN) has a gradient from the second step on, once weights have changed.
    """
    unmoved = []
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, f"no gradient reaches {name}"
        assert torch.isfinite(parameter.grad).all(), name
        if not parameter.grad.any():
            unmoved.append((name, parameter))
    if unmoved:
        for norm in batch_norms(network):
            norm.eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(1e-3 * torch.randn_like(parameter))
        train_step(network, images)
        for name, parameter in unmoved:
            assert parameter.grad.any(), f"the gradient of {name} is zero"


@pytest.mark.parametrize(
    ("name", "stem"), [*((name, "imagenet") for name in NARROW), *((name, "cifar") for name in OTHER_STEM)]
)
def test_backbone(name, stem):
    sizes = SIZES[stem]
    torch.manual_seed(0)
    network = backbones.create_backbone(name, stem=stem)
    assert list(network.feature_strides) == sorted(network.feature_strides)

    network.train()
    images = torch.randn(2, 3, *sizes[0])
    check_maps(network, train_step(network, images), sizes[0])
    check_gradients(network, images)

    network.eval()
    with torch.no_grad():
        images = torch.randn(1, 3, *sizes[1])
        maps = network(images)
        check_maps(network, maps, sizes[1])
        for once, again in zip(maps, network(images), strict=True):
            assert torch.equal(once, again)

    if stem == "imagenet":
        check_cost(network, name)
    torch.manual_seed(1)
    copy = backbones.create_backbone(name, stem=stem).eval()
    copy.load_state_dict(network.state_dict())
    with torch.no_grad():
        for ours, theirs in zip(maps, copy(images), strict=True):
            assert torch.equal(ours, theirs)


def check_cost(network, name):
    """Every layer is counted, with as many MACs as the real-valued twin has by torch's counter."""
    size, maps = (67, 45), []
    device = next(network.parameters()).device
    images = torch.zeros(1, 3, *size, device=device)
    cost = backbones.cost(network, forward=lambda net: maps.append(net(images)))
    check_maps(network, maps[0], size)
    assert cost.params_1bit + cost.params_real == sum(p.numel() for p in network.parameters())
    # A MAC of w-bit weights and a-bit activations is w * a BOPs.
    counted = (r.flops + r.bops / (r.weight_bits * r.input_bits if r.bops else 1) for r in cost.rows)
    assert sum(counted) == cost.macs
    convs = {n: m for n, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    assert {row.name for row in cost.rows if row.macs} == set(convs)
    # ResNet-20's real-valued shortcuts have no convolution, those of its 1-bit forms do.
    added = [r.macs for r in cost.rows if name.startswith("resnet20") and "shortcut" in r.name]
    # Offsets of two-valued weights are one filter more per group (docs/cost.md).
    affine = {n: m.out_channels // m.groups for n, m in convs.items() if getattr(m, "weight_affine", False)}
    added += [r.macs // (affine[r.name] + 1) for r in cost.rows if r.name in affine and r.input_bits == 1]
    assert cost.macs - sum(added) == torchs_macs(real_twin(name), size)
    onebit = [m for m in convs.values() if getattr(m, "weight_bits", 32) == 1]
    assert cost.params_1bit == sum(m.weight.numel() for m in onebit)
    quantized = [m for m in convs.values() if getattr(m, "weight_bits", 32) < 32]
    assert (cost.bops > 0) == any(m.input_bits < 32 for m in quantized)
    assert (name in REAL) == (not any(hasattr(m, "weight_bits") for m in convs.values()))


@functools.cache
def torchs_macs(name, size):
    """What torch's counter sees of operators, below our modules; two operations per MAC."""
    with torch.device("meta"):
        network = backbones.create_backbone(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, *size, device="meta"))
    return counter.get_total_flops() / 2


#: Sizes of one cell differ in numbers alone, and binarizers do what they do in a narrow one: one of them.
FULL_WIDTH = {
    (re.sub(r"_([sml]|c\d+(_l\d+)?)$", "", split(name)[0]), name in REAL): name
    for name in COVERING
    if name not in NARROW
}.values()


@pytest.mark.parametrize("name", FULL_WIDTH)
def test_shapes_and_cost_at_full_width(name):
    with torch.device("meta"):
        network = backbones.create_backbone(name).eval()
    check_cost(network, name)


@pytest.mark.parametrize("name", [name for name in REAL if name in NARROW])
def test_macs_equal_mmengines_counter(name):
    network = backbones.create_backbone(name).eval()
    analyzer = FlopAnalyzer(network, torch.zeros(1, 3, 67, 45))
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    assert backbones.cost(network, (3, 67, 45)).macs == analyzer.by_operator()["conv"]


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("out_indices", [(0,), (1, 3), [2], (0, 1, 2)])
def test_subset_of_scales(name, out_indices):
    network = backbones.create_backbone(name, out_indices=out_indices)
    whole = backbones.create_backbone(name)
    maps = network(torch.randn(2, 3, 64, 64))
    check_maps(network, maps, (64, 64))
    assert network.feature_channels == tuple(whole.feature_channels[i] for i in out_indices)
    assert network.feature_strides == tuple(whole.feature_strides[i] for i in out_indices)
    sum(out.square().mean() for out in maps).backward()
    assert all(p.grad is not None for p in network.parameters())  # none is built in vain
    # What is there has the whole network's names, so that its weights can be loaded.
    assert set(network.state_dict()) <= set(whole.state_dict())


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(
    "arguments",
    [
        dict(out_indices=(4,)),
        dict(out_indices=(-1,)),
        dict(out_indices=()),
        dict(out_indices=(1, 1)),
        dict(frozen_stages=-2),
        dict(frozen_stages=5),
        dict(stem="mnist"),
    ],
    ids=str,
)
def test_argument_out_of_range(name, arguments):
    with pytest.raises(InputError, match=next(iter(arguments))):
        backbones.create_backbone(name, **arguments)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("frozen_stages", [0, 2, 4])
def test_frozen_stages(name, frozen_stages):
    torch.manual_seed(0)
    network = backbones.create_backbone(name, frozen_stages=frozen_stages)
    frozen = list(network.frozen_modules(frozen_stages))
    frozen_parameters = {id(p) for module in frozen for p in module.parameters()}
    assert frozen_parameters
    assert len(frozen) > len(list(network.frozen_modules(0))) or frozen_stages == 0

    network.eval()
    network.train()  # what every epoch does
    before = [buffers(module) for module in frozen]
    maps = network(torch.randn(2, 3, 64, 64) + 1)
    for module, old in zip(frozen, before, strict=True):
        assert not any(m.training for m in module.modules())
        for key, value in module.named_buffers():
            assert torch.equal(value, old[key])
    for parameter in network.parameters():
        assert parameter.requires_grad == (id(parameter) not in frozen_parameters)
    free = [norm for norm in batch_norms(network) if norm.training]
    if frozen_stages < 4:
        assert free
        assert all(norm.num_batches_tracked == 1 for norm in free)
        sum(out.square().mean() for out in maps).backward()
        assert all((p.grad is None) == (id(p) in frozen_parameters) for p in network.parameters())
    else:
        assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("name", OPTIONS)
def test_norm_eval(name):
    network = backbones.create_backbone(name, norm_eval=True)
    network.train()
    assert network.training
    assert batch_norms(network)
    assert not any(norm.training for norm in batch_norms(network))
    assert all(p.requires_grad for p in network.parameters())
    default = backbones.create_backbone(name).train()
    assert all(norm.training for norm in batch_norms(default))


@pytest.mark.parametrize("name", [*OPTIONS[:7], "dcp_nas_c8_l3", "darts_v2_c8_l3"])
def test_pretrained_weights_are_loaded(name, tmp_path):
    torch.manual_seed(0)
    source = backbones.create_backbone(name)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "weights.pth")
    torch.manual_seed(1)
    network = backbones.create_backbone(
        name, init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "weights.pth"))
    )
    assert any(not torch.equal(a, b) for a, b in zip(network.parameters(), source.parameters(), strict=True))
    network.init_weights()
    for key, value in network.state_dict().items():
        assert torch.equal(value, source.state_dict()[key]), key


def check_two(rows):
    """Every row has two values at most, up to rounding."""
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    torch.testing.assert_close(rows, torch.where(rows > (low + high) / 2, high, low).expand_as(rows))


@pytest.mark.parametrize("name", [name for name in NARROW if name not in REAL])
def test_layers_have_the_values_they_declare(name):
    """A hook sees every quantized convolution's operands as they enter the arithmetic."""
    network = backbones.create_backbone(name).eval()
    convs = [m for m in network.modules() if isinstance(m, backbones.OneBitConv2d)]
    assert convs
    seen = []
    for conv in convs:
        if conv.quantize_input is not None:
            conv.quantize_input.register_forward_hook(lambda module, args, out: seen.append((module, out)))
    with torch.no_grad():
        network(torch.randn(1, 3, 64, 64))
        for module, values in seen:
            precision = module.precision
            if getattr(module, "affine", False):  # any two values
                check_two(values.flatten()[None])
                continue
            steps = 2**precision - 1
            levels = torch.tensor([-1.0, 1.0]) if precision == 1 else torch.arange(steps + 1) / steps
            assert torch.isin(values, levels).all()
        for conv in convs:
            weight = conv.quantize_weight(conv.weight)
            if conv.weight_bits == 1:
                if conv.weight_affine:
                    check_two(weight.flatten(1))
                    continue
                magnitude = weight.flatten(1).abs()
                torch.testing.assert_close(magnitude, magnitude[:, :1].expand_as(magnitude))
            else:
                steps = (weight + 1) / 2 * (2**conv.weight_bits - 1)
                torch.testing.assert_close(steps, steps.round())
                assert (steps.round() >= 0).all()
                assert (weight <= 1).all()
    assert len(seen) == sum(conv.input_bits < 32 for conv in convs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["wrn22_w8", "wrn22_w8_reactnet", "reactnet_a_w8", "bnas_imagenet_c8_l3", "darts_v2_c8_l3"]
)
def test_a_narrow_network_learns(name):
    """Eight random images, two classes: a few steps fit them, which the untrained net does not."""
    torch.manual_seed(0)
    network = backbones.create_backbone(name, stem="cifar")
    head = nn.Linear(network.feature_channels[-1], 2)
    images, labels = torch.randn(8, 3, 16, 16), torch.arange(8) % 2
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=0.003)
    losses = []
    for _ in range(60):
        loss = F.cross_entropy(head(network(images)[-1].mean((2, 3))), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.4
    assert losses[-1] < 0.2
