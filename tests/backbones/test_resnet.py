"""ResNets: the real one is torchvision's, the 1-bit ones keep their real-valued shortcuts."""

import pytest
import torch
from torch import nn

from onebit import backbones
from onebit.backbones import OneBitConv2d
from onebit.backbones.binarization import BINARIZERS
from onebit.commons.compat import ensure_torchvision
from onebit.commons.errors import InputError

PARAMETERS = {18: 11_176_512, 34: 21_284_672, 50: 23_508_032}


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_real_valued_network_is_torchvisions(depth):
    ensure_torchvision()
    import torchvision

    torch.manual_seed(0)
    theirs = getattr(torchvision.models, f"resnet{depth}")(weights=None).eval()
    ours = backbones.create_backbone(f"resnet{depth}").eval()
    for norm in (m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1)
        nn.init.normal_(norm.running_mean)
    assert sum(p.numel() for p in ours.parameters()) == PARAMETERS[depth]
    missing = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert missing.missing_keys == []
    assert missing.unexpected_keys == ["fc.weight", "fc.bias"]
    with torch.no_grad():
        images = torch.randn(2, 3, 75, 64)
        features = ours(images)[-1].mean((2, 3))
        torch.testing.assert_close(theirs.fc(features), theirs(images))


@pytest.mark.parametrize("binarizer", BINARIZERS)
@pytest.mark.parametrize("depth", [18, 34, 50])
def test_which_convolutions_are_one_bit(depth, binarizer):
    real = backbones.create_backbone(f"resnet{depth}_w8")
    network = backbones.create_backbone(f"resnet{depth}_w8_{binarizer}")
    convs = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and not isinstance(module, OneBitConv2d)
    }
    assert convs.pop("conv1").in_channels == 3
    assert all("shortcut" in name and conv.kernel_size == (1, 1) for name, conv in convs.items())
    assert len(convs) == (4 if depth == 50 else 3)

    def weights(net):
        return sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d))

    assert weights(network) == weights(real)
    assert not any(isinstance(m, nn.ReLU) for m in network.modules())


def real_path_survives(network, images):
    """Whether the network still sees its images when every 1-bit convolution puts out 0."""
    for conv in (m for m in network.modules() if isinstance(m, OneBitConv2d)):
        conv.register_forward_hook(lambda module, args, out: torch.zeros_like(out))
    with torch.no_grad():
        return [(out[0] - out[1]).abs().max().item() > 0 for out in network(images)]


@pytest.mark.parametrize("binarizer", BINARIZERS)
@pytest.mark.parametrize("depth", [18, 34, 50])
def test_real_values_flow_past_every_one_bit_convolution(depth, binarizer):
    network = backbones.create_backbone(f"resnet{depth}_w8_{binarizer}").eval()
    assert real_path_survives(network, torch.randn(2, 3, 64, 64)) == [True] * 4


@pytest.mark.parametrize("binarizer", [name for name, of in BINARIZERS.items() if of.shortcut_per_conv])
@pytest.mark.parametrize("depth", [18, 34])
def test_every_convolution_has_its_own_shortcut(depth, binarizer):
    """In each unit alone, silencing the convolution leaves the unit's input visible."""
    network = backbones.create_backbone(f"resnet{depth}_w8_{binarizer}").eval()
    units = [m for m in network.modules() if hasattr(m, "norm_first")]
    assert len(units) == depth - 2
    for unit in units:
        x = torch.randn(2, unit.conv.in_channels, 8, 8)
        handle = unit.conv.register_forward_hook(lambda module, args, out: torch.zeros_like(out))
        out = unit(x)
        handle.remove()
        assert (out[0] - out[1]).abs().max() > 0


def test_bottleneck_has_shortcuts_where_channels_stay():
    network = backbones.create_backbone("resnet50_w8_bireal")
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in stage:
            assert block.unit2.shortcut is not None
            assert block.unit3.shortcut is None
            assert block.shortcut is not None
    assert network.layer1[0].unit1.shortcut is not None
    assert network.layer1[1].unit1.shortcut is None


def test_downsampling_shortcut_pools_in_bireal_and_strides_in_xnor():
    kinds = {}
    for binarizer in ("bireal", "xnor"):
        block = backbones.create_backbone(f"resnet18_w8_{binarizer}").layer2[0]
        shortcut = block.unit1.shortcut if binarizer == "bireal" else block.shortcut
        kinds[binarizer] = [type(layer).__name__ for layer in shortcut]
    assert kinds == {"bireal": ["AvgPool2d", "Conv2d", "BatchNorm2d"], "xnor": ["Conv2d", "BatchNorm2d"]}


def test_xnor_unit_norms_before_it_binarizes():
    unit = backbones.create_backbone("resnet18_w8_xnor").layer2[0].unit1
    seen = []
    unit.conv.quantize_input.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    unit.train()(torch.randn(8, 8, 6, 6) * 3 + 5)
    assert seen[0].mean().abs() < 1e-5
    assert seen[0].std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", ["resnet18_w8", "resnet34_w8_bireal", "resnet50_w8_xnor"])
@pytest.mark.parametrize(("stem", "strides"), [("imagenet", (4, 8, 16, 32)), ("cifar", (1, 2, 4, 8))])
def test_strides_and_odd_sizes(name, stem, strides):
    network = backbones.create_backbone(name, stem=stem).eval()
    assert network.feature_strides == strides
    size = (67, 45)
    with torch.no_grad():
        for out, stride in zip(network(torch.randn(1, 3, *size)), strides, strict=True):
            assert out.shape[2:] == tuple(-(-s // stride) for s in size)


@pytest.mark.parametrize("width", [0, -4, 1.5, "16"])
def test_width_out_of_range(width):
    with pytest.raises(InputError, match="width"):
        backbones.ResNet(width=width)


def test_depth_out_of_range():
    with pytest.raises(InputError, match="depth 20: expected one of 18, 34, 50"):
        backbones.ResNet(depth=20)


def test_pad_value_reaches_every_one_bit_convolution():
    torch.manual_seed(0)
    images, outputs = torch.randn(1, 3, 32, 32), []
    for pad_value in (0, -1):
        torch.manual_seed(0)
        network = backbones.create_backbone("resnet18_w8_bireal", stem="cifar", pad_value=pad_value).eval()
        convs = [m for m in network.modules() if isinstance(m, OneBitConv2d)]
        assert {conv.pad_value for conv in convs} == {pad_value}
        with torch.no_grad():
            outputs.append(network(images)[0])
    assert not torch.equal(*outputs)
    # The first stage has four 3x3 convolutions: the border reaches four pixels far.
    inner = (..., slice(4, -4), slice(4, -4))
    assert outputs[0][inner].shape[2:] == (24, 24)
    torch.testing.assert_close(outputs[0][inner], outputs[1][inner])
