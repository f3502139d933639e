import json

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from onebit import backbones
from onebit.backbones.cost.conventions import CONVENTIONS
from onebit.backbones.cost.rules import _BY_NAME, _BY_TYPE, Count
from onebit.commons.errors import InputError


@pytest.fixture
def rules():
    """Rules that a test registers are forgotten afterwards."""
    by_type, by_name = dict(_BY_TYPE), dict(_BY_NAME)
    yield
    _BY_TYPE.clear()
    _BY_TYPE.update(by_type)
    _BY_NAME.clear()
    _BY_NAME.update(by_name)


@pytest.mark.parametrize(
    ("name", "convention", "mbit", "mops"),
    [
        ("dcp_nas_s", "dcp-nas", 4.19, 98.96),
        ("dcp_nas_m", "dcp-nas", 6.95, 161.7),
        ("dcp_nas_l", "dcp-nas", 14.51, 332.0),
        ("dcp_nas_s", "strict", 36.2, 286),
        ("dcp_nas_m", "strict", 50.1, 494),
        ("dcp_nas_l", "strict", 80.8, 1079),
    ],
)
def test_dcp_nas_at_imagenet_size(name, convention, mbit, mops):
    """DCP-NAS, Table 11, prints 4.2 / 100, 6.9 / 163, 14.4 / 334; strictly it is several times that."""
    cost = backbones.cost(name, (3, 224, 224), convention, classes=1000)
    # The expected values are rounded to the digits given: half a digit, or 0.1 % if that is more.
    assert cost.memory_bits / 1e6 == pytest.approx(mbit, rel=1e-3, abs=0.05 if mbit > 20 else 0)
    assert cost.ops / 1e6 == pytest.approx(mops, rel=1e-3)


def test_resnet18():
    real = backbones.cost("resnet18")
    convolutions = sum(row.memory_bits for row in real.rows if row.type == "Conv2d")
    assert convolutions == 32 * 11_166_912  # 357.3 Mbit; the 357.4 of the papers is 32 * 11.17
    assert real.memory_bits / 1e6 == pytest.approx(357.4, rel=1e-3)
    assert real.params_1bit == real.bops == 0
    assert backbones.cost("resnet18", classes=1000).macs == 1_814_073_344

    onebit = backbones.cost("resnet18_reactnet", classes=1000)
    assert onebit.bops / 1e6 == pytest.approx(1676.3, abs=0.05)
    assert onebit.flops / 1e6 == pytest.approx(137.8, abs=0.05)
    assert onebit.ops / 1e6 == pytest.approx(164, abs=0.5)
    assert onebit.macs == 1_814_073_344


def test_cp_nas_by_hand():
    """The stem's convolution and the classifier at 32 bits; every other parameter at one bit."""
    cost = backbones.cost("dcp_nas_c56", (3, 32, 32), "cp-nas", stem="cifar", classes=10)
    stem = 3 * 9 * 168
    classifier = 16 * 56 * 10 + 10
    params = cost.params_1bit + cost.params_real
    assert cost.memory_bits == params + 31 * (stem + classifier)
    real_macs = stem * 32 * 32 + 16 * 56 * 10
    assert cost.flops == real_macs
    assert cost.bops == cost.macs - real_macs
    assert cost.ops == pytest.approx(cost.flops + cost.bops / 58, rel=1e-12)
    assert cost.ops == pytest.approx(sum(row.ops for row in cost.rows), rel=1e-9)


@pytest.mark.parametrize(("channels", "millions", "mbit"), [(56, 2.9, 3.32), (72, 4.4, 4.85), (112, 10.6, 11.51)])
def test_memory_of_cp_nas_table_3_given_its_parameter_counts(channels, millions, mbit):
    """Its cell was not published: the counts of its Table 1, and our stem and classifier."""
    cost = backbones.cost(f"dcp_nas_c{channels}", (3, 32, 32), "cp-nas", stem="cifar", classes=10)
    wide = sum(
        row.params_1bit + row.params_real for row in cost.rows if row.memory_bits > row.params_1bit + row.params_real
    )
    assert wide == 3 * 9 * 3 * channels + 16 * channels * 10 + 10
    assert (millions + 31 * wide / 1e6) == pytest.approx(mbit, rel=0.02)


def test_wrn22_of_cp_nas_table_3():
    """Table 3 prints 138.27 Mbit and 647.70 M, and for WRN-22 (BONN) 5.71 Mbit and 17.03 M."""
    at = dict(stem="cifar", classes=10)
    real = backbones.cost("wrn22", (3, 32, 32), **at)
    assert real.memory_bits / 1e6 == pytest.approx(138.27, rel=2e-3)
    assert round(real.ops / 1e6, 1) == 647.7
    onebit = backbones.cost("wrn22_bonn", (3, 32, 32), "cp-nas", **at)
    assert onebit.memory_bits / 1e6 == pytest.approx(5.71, rel=5e-3)
    assert round(onebit.ops / 1e6, 2) == 17.03


def test_mmdet_legacy_by_hand():
    """Conv, norm, ReLU, pooling and linear layer as the old counter adds them up."""
    layers = [nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 9, 5))
    net[0].requires_grad_(False)
    cost = backbones.cost(net, (3, 8, 8), "mmdet-legacy")
    conv, norm, relu, pool, linear = 4 * 36 * 27 + 4 * 36, 2 * 4 * 36, 4 * 36, 4 * 36, 36 * 5
    assert cost.flops == conv + norm + relu + pool + linear
    assert cost.memory_bits == 32 * (8 + 36 * 5 + 5)
    assert cost.bops == 0


def test_mmdet_legacy_is_the_counter_that_mmcv_keeps():
    flops_counter = pytest.importorskip("mmcv.cnn.utils.flops_counter")
    net = backbones.create_backbone("resnet18_w16").eval()
    expected, _ = flops_counter.get_model_complexity_info(
        net, (3, 64, 96), print_per_layer_stat=False, as_strings=False
    )
    assert backbones.cost(net, (3, 64, 96), "mmdet-legacy").flops == expected


def test_strict_precision_is_that_of_the_wider_operand():
    layer = backbones.OneBitConv2d(4, 6, 3)
    both = backbones.cost(layer, (4, 5, 5))
    assert (both.flops, both.bops, both.memory_bits) == (0, 6 * 9 * 36, 6 * 36)
    weights_only = backbones.cost(backbones.OneBitConv2d(4, 6, 3, binarize_input=False), (4, 5, 5))
    assert (weights_only.flops, weights_only.bops, weights_only.memory_bits) == (6 * 9 * 36, 0, 6 * 36)
    assert both.ops == 6 * 9 * 36 / 64


def test_learnable_scales_and_shifts_count_at_full_width():
    mcn = backbones.cost(backbones.OneBitConv2d(4, 6, 3, binarizer="mcn"), (4, 5, 5))
    assert (mcn.params_1bit, mcn.params_real) == (6 * 36, 6)
    assert mcn.memory_bits == 6 * 36 + 32 * 6
    reactnet = backbones.cost(backbones.OneBitConv2d(4, 6, 3, binarizer="reactnet"), (4, 5, 5))
    assert (reactnet.params_1bit, reactnet.params_real) == (6 * 36, 4)


def test_norm_without_parameters_still_takes_memory():
    cost = backbones.cost(nn.BatchNorm2d(7, affine=False), (7, 4, 4))
    assert cost.memory_bits == 2 * 7 * 32
    assert cost.params_real == 0


TWINS = [
    ("resnet18_w16", "resnet18_w16_xnor"),
    ("resnet18_w16", "resnet18_w16_reactnet"),
    ("resnet50_w16", "resnet50_w16_bireal"),
    ("dcp_nas_c8_real", "dcp_nas_c8"),
    ("dcp_nas_c8_real", "dcp_nas_c8_bireal"),
]


@pytest.mark.parametrize(("real", "onebit"), TWINS)
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_macs_equal_torchs_counter_and_those_of_the_twin(real, onebit, stem):
    """torch counts two operations per MAC, below our modules: no layer can hide from it."""
    shape = (3, 64, 47)
    network = backbones.create_backbone(real, stem=stem).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *shape))
    twin = backbones.create_backbone(onebit, stem=stem)
    for module in (network, twin):
        cost = backbones.cost(module, shape)
        assert cost.macs == counter.get_total_flops() / 2
        assert cost.params_1bit + cost.params_real == sum(p.numel() for p in module.parameters())
        assert cost.macs == cost.flops + cost.bops
    assert cost.bops > 0


def test_transposed_grouped_and_dilated_convolutions_equal_torchs_counter():
    net = nn.Sequential(
        nn.ConvTranspose2d(4, 6, 4, 2, groups=2),
        nn.Conv2d(6, 9, (3, 5), dilation=2, groups=3),
        nn.Conv2d(9, 9, 3, stride=2, padding=1, groups=9),
    )
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 4, 16, 17))
    cost = backbones.cost(net, (4, 16, 17))
    assert cost.macs == counter.get_total_flops() / 2
    assert [row.role for row in cost.rows] == ["other", "other", "depthwise"]


def test_roles():
    cost = backbones.cost("dcp_nas_c8", (3, 64, 64), classes=10)
    roles = {row.name: row.role for row in cost.rows}
    assert roles["backbone.stem.0.1"] == "stem"
    assert roles["backbone.cells.0.preprocess_older.conv_even"] == "preprocess"
    assert roles["backbone.cells.0.nodes.0.from1.0.depthwise"] == "depthwise"
    assert roles["backbone.cells.0.nodes.0.from1.0.pointwise"] == "pointwise"
    assert roles["backbone.cells.0.nodes.0.from1.0.prelu"] == "other"
    assert roles["classifier"] == "classifier"


class Gain(nn.Module):
    """No rule knows this one, though it multiplies."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.gain * x


class Cube(nn.Module):
    """Neither this one: no parameters, but arithmetic."""

    def forward(self, x):
        return x**3


class Weighted(nn.Module):
    """Has children and a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.inner = nn.ReLU()

    def forward(self, x):
        return self.inner(self.weight * x)


@pytest.mark.parametrize("unknown", [Gain, Cube, Weighted])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_unknown_module_is_an_error_that_names_it(unknown, convention):
    net = nn.Sequential(nn.Conv2d(3, 3, 1), unknown())
    with pytest.raises(InputError, match=rf"no counting rule for {unknown.__name__} at '1'"):
        backbones.cost(net, (3, 4, 4), convention)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_unknown_module_that_does_not_run_does_not_matter():
    net = nn.Conv2d(3, 3, 1)
    net.loss = Cube()
    assert backbones.cost(net, (3, 4, 4)).macs == 9 * 16


@pytest.mark.parametrize("key", [Gain, "Gain"])
def test_third_parties_add_rules(rules, key):
    backbones.register_cost_rule(key, lambda module, inputs, output: Count(macs=output.numel()))

    class Louder(Gain):
        pass

    net = nn.Sequential(Gain(), Louder())
    cost = backbones.cost(net, (3, 4, 4))
    assert [(row.macs, row.params_real, row.memory_bits) for row in cost.rows] == [(48, 1, 32)] * 2
    with pytest.raises(InputError, match="expected a module class or its name"):
        backbones.register_cost_rule(3, None)


def test_a_shared_layer_runs_twice_and_is_stored_once():
    conv = nn.Conv2d(3, 3, 1, bias=False)
    shared = backbones.cost(nn.Sequential(conv, nn.ReLU(), conv), (3, 4, 4))
    assert [(row.type, row.calls) for row in shared.rows] == [("Conv2d", 2), ("ReLU", 1)]
    assert shared.macs == 2 * 9 * 16
    assert shared.params_real == 9
    tied = nn.Sequential(conv, nn.Conv2d(3, 3, 1, bias=False))
    tied[1].weight = conv.weight
    cost = backbones.cost(tied, (3, 4, 4))
    assert (cost.macs, cost.params_real) == (2 * 9 * 16, 9)


def test_the_module_is_left_as_it_was():
    class Counting(nn.Conv2d):
        def __init__(self):
            super().__init__(3, 3, 1)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            assert not self.training
            assert not torch.is_grad_enabled()
            self.seen += 1
            torch.rand(1)
            return super().forward(x)

    net = nn.Sequential(Counting(), nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm2d(3).eval()))
    net.train()
    net[2][0].eval()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    random_state = torch.get_rng_state()
    backbones.cost(net, (3, 4, 4))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert modes == [module.training for module in net.modules()]
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_forward_runs_what_takes_no_image():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(4, 2), nn.Linear(3, 2)

        def forward(self, left, right):
            return self.left(left) + self.right(input=right)

    cost = backbones.cost(Pair(), forward=lambda pair: pair(torch.ones(5, 4), right=torch.ones(5, 3)))
    assert [row.macs for row in cost.rows] == [5 * 4 * 2, 5 * 3 * 2]
    assert cost.input_shape is None


def test_summary_and_table_are_plain():
    cost = backbones.cost("dcp_nas_c8", (3, 32, 32), "dcp-nas", classes=10, stem="cifar", layers=3)
    summary = json.loads(json.dumps(cost.summary()))
    assert summary == cost.summary()
    assert summary["convention"] == "dcp-nas"
    assert summary["input_shape"] == [3, 32, 32]
    table = json.loads(json.dumps(cost.table()))
    for column in ("params_1bit", "params_real", "memory_bits", "macs", "flops", "bops", "ops"):
        assert sum(row[column] for row in table) == pytest.approx(summary[column])
        assert summary[column] == getattr(cost, column)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(convention="loose"), "unknown cost convention 'loose'; there are strict, dcp-nas"),
        (dict(input_shape=(3, 0, 4)), r"\(3, 0, 4\), H 0: expected a whole number from 1 up"),
        (dict(input_shape=(32, 32)), "expected three numbers"),
        (dict(input_shape=(3, 8.0, 8)), "H 8.0: expected a whole number"),
        (dict(classes=0), "classes 0"),
        (dict(classes=2), "Conv2d has none"),
        (dict(stem="cifar"), "'stem' can only go with a backbone's name"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        backbones.cost(nn.Conv2d(3, 3, 1), **{"input_shape": (3, 8, 8), **arguments})


def test_unknown_name():
    with pytest.raises(InputError, match="did you mean dcp_nas_s"):
        backbones.cost("dcpnas_s")


@pytest.mark.parametrize("convention", ["dcp-nas", "cp-nas"])
def test_a_real_valued_network_is_stored_in_32_bits_under_every_convention(convention):
    """Table 11 prints ResNet-18 with 357.4 Mbit beside 1-bit networks counted at one bit."""
    counted = backbones.cost("resnet18", (3, 64, 64), convention=convention)
    assert counted.memory_bits == 32 * 11_176_512
    onebit = backbones.cost("resnet18_bireal", (3, 64, 64), convention="dcp-nas")
    assert onebit.memory_bits == onebit.params_1bit + onebit.params_real


@pytest.mark.parametrize(
    "name",
    ["resnet18_w8_bireal", "resnet50_w8_xnor", "reactnet_a_w8", "wrn22_w8_dorefa4", "darts_v2_c4_l3"]
    + [f"dcp_nas_c4_l3_{binarizer}" for binarizer in ("real", "xnor", "pcnn", "bonn", "bnaspcnn")],
)
def test_quick_shapes_are_the_real_ones(name):
    """By its name a network is counted without arithmetic; the numbers are those of running it."""
    quick = backbones.cost(name, (3, 65, 97))
    assert quick.table() == backbones.cost(backbones.create_backbone(name), (3, 65, 97)).table()


def test_shapes_that_are_not_plain_are_left_to_torch():
    from onebit.backbones.shapes import ShapesOnly

    with torch.device("meta"), ShapesOnly():
        x = torch.ones(2, 1, 4)
        assert (x + torch.ones(3, 1)).shape == (2, 3, 4)
        assert (x + torch.ones(5, 2, 1, 4)).shape == (5, 2, 1, 4)
        assert (x * torch.ones(1, dtype=torch.float64)).shape == (2, 1, 4)
        assert (x + torch.ones(1, 1, 4, dtype=torch.float64)).dtype == torch.float64
        assert (torch.ones(3, dtype=torch.int64) / 2).dtype == torch.float32
        assert x.mean().shape == ()
        assert x.mean((0, -1)).shape == (1,)
        assert x.mean((0, -1), keepdim=True).shape == (1, 1, 1)
        assert x.mean(1, dtype=torch.float64).dtype == torch.float64
        assert torch.gt(x, torch.ones(3, 1)).shape == (2, 3, 4)
        with pytest.raises(RuntimeError):
            x + torch.ones(3)
        with pytest.raises(RuntimeError):
            x.add_(torch.ones(3, 1))
