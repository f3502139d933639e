"""Packed networks against the ones they were made from."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from onebit import backbones
from onebit.backbones.conv import OneBitConv2d
from onebit.backbones.packed.deploy import deploy
from onebit.backbones.packed.layers import PackedConv
from onebit.commons.errors import InputError
from tests.backbones.covering import ONE_BIT, REAL, covering, split

#: One network per family, and every binarizer in one of them, are for the fast tests.
QUICK = {"wrn22_w16_reactnet", "reactnet_a_w8", "dcp_nas_c8", "bnas_c8_l6", "bnas_imagenet_c8_l6"}
CASES = [
    name if name in QUICK or name.startswith("resnet18_w16") else pytest.param(name, marks=pytest.mark.slow)
    for name in covering()
    if re.search(r"_(w16|w8|c8)(_|$)", name)
    and not name.startswith(("resnet34", "resnet50"))
    and name not in REAL
    and split(name)[1] in (None, *ONE_BIT)
]


def trained_looking(network: nn.Module, *shape: int) -> nn.Module:
    """Norms, thresholds and slopes as different from their start as training makes them."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            size = module.running_mean.shape
            module.running_mean.copy_(torch.randn(size, generator=generator) * 0.2)
            module.running_var.copy_(torch.rand(size, generator=generator) + 0.5)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
        elif isinstance(module, nn.PReLU) or type(module).__name__ in ("RSign", "RPReLU"):
            for parameter in module.parameters(recurse=False):
                parameter.data.normal_(0.1, 0.2, generator=generator)
    # Batch norms of real activations keep the maps in scale.
    network.train()
    with torch.no_grad():
        network(torch.randn(8, *shape, generator=generator))
    return network.eval()


@pytest.mark.parametrize("name", CASES)
def test_output_is_that_of_the_network(name: str) -> None:
    torch.manual_seed(0)
    network = trained_looking(backbones.create_backbone(name), 3, 64, 64)
    packed = deploy(network)
    assert packed.feature_channels == network.feature_channels
    assert packed.feature_strides == network.feature_strides
    assert not any(isinstance(m, OneBitConv2d) for m in packed.modules())
    for size in ((64, 64), (61, 47)):
        x = torch.randn(1, 3, *size)
        with torch.no_grad():
            expected, found = network(x), packed(x)
        for a, b in zip(expected, found, strict=True):
            assert a.shape == b.shape
            # A value within rounding of a threshold may take the other sign: rare, and local.
            wrong = (a - b).abs() > 1e-3 * a.abs().max()
            assert wrong.float().mean() < 0.05
            assert (a - b).norm() < 0.05 * a.norm()


@pytest.mark.parametrize("name", ["resnet18_w16_reactnet", "dcp_nas_c8"])
def test_every_layer_equals_its_original_on_the_same_input(name: str) -> None:
    """No sign can flip here by the rounding of earlier layers."""
    network = trained_looking(backbones.create_backbone(name), 3, 64, 64)
    packed = deploy(network)
    seen = {}
    pairs = [(name, m) for name, m in network.named_modules() if type(m).__name__ in ("OneBitUnit", "Cell")]
    for key, module in pairs:
        module.register_forward_hook(lambda m, inputs, output, key=key: seen.__setitem__(key, (inputs, output)))
    with torch.no_grad():
        network(torch.randn(2, 3, 64, 64))
        assert len(pairs) >= 4
        for key, _ in pairs:
            inputs, output = seen[key]
            found = packed.get_submodule(key)(*inputs)
            wrong = (found - output).abs() > 1e-3 * output.abs().max()
            assert wrong.float().mean() < 1e-3, key


def test_packing_leaves_the_network_alone() -> None:
    network = backbones.create_backbone("resnet18_w16_reactnet").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    deploy(network)
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_packed_part_of_a_larger_model() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbones.create_backbone("resnet18_w16_bireal")
            self.neck = OneBitConv2d(128, 16, 3, padding=1, binarizer="xnor", pad_value=-1)

        def forward(self, x):
            return self.neck(self.backbone(x)[-1])

    model = Model().eval()
    packed = deploy(model)
    assert isinstance(packed.neck, PackedConv)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(packed(x), model(x), rtol=1e-3, atol=1e-3)


def test_real_valued_networks_and_odd_devices_are_refused() -> None:
    with pytest.raises(InputError, match="no 1-bit convolution"):
        deploy(backbones.create_backbone("resnet18_w16"))
    packed = deploy(backbones.create_backbone("resnet18_w16_bireal"))
    with pytest.raises(InputError, match="on the CPU"):
        packed.layer1[0].unit1.conv(torch.zeros(1, 16, 8, 8, device="meta"))


class _OtherSign(nn.Module):
    """+1 at 0, unlike this suite's, or around another value than 0."""

    precision = 1

    def __init__(self, at: float, closed: bool) -> None:
        super().__init__()
        self.at, self.closed = at, closed

    def forward(self, x):
        return torch.where(x >= self.at if self.closed else x > self.at, 1.0, -1.0)


@pytest.mark.parametrize(("at", "closed"), [(0.0, True), (0.2, False)])
def test_another_sign_is_refused_unless_it_says_its_threshold(at: float, closed: bool) -> None:
    conv = OneBitConv2d(8, 8, 3, binarizer="bireal").eval()
    conv.quantize_input = _OtherSign(at, closed)
    with pytest.raises(InputError, match="_OtherSign is not \\+1 above its threshold"):
        deploy(conv)
    conv.quantize_input.threshold = lambda: torch.full((8,), at)
    if closed:
        with pytest.raises(InputError, match="_OtherSign is not"):
            deploy(conv)
    else:
        x = torch.randn(1, 8, 9, 9)
        with torch.no_grad():
            torch.testing.assert_close(deploy(conv)(x), conv(x))


def test_without_kernels_the_networks_still_agree(monkeypatch) -> None:
    from onebit.packed import engine

    for name in ("resnet18_w16_reactnet", "dcp_nas_c8"):
        network = trained_looking(backbones.create_backbone(name), 3, 64, 64)
        x = torch.randn(1, 3, 64, 64)
        with torch.no_grad(), monkeypatch.context() as patch:
            patch.setattr(engine, "kernels", lambda: None)
            found = deploy(network)(x)[-1]
            expected = network(x)[-1]
        assert (found - expected).norm() < 0.05 * expected.norm()


def test_images_so_small_that_maps_have_one_pixel() -> None:
    network = trained_looking(backbones.create_backbone("dcp_nas_c8"), 3, 64, 64)
    packed = deploy(network)
    for size in ((1, 1), (8, 8), (17, 40)):
        x = torch.randn(1, 3, *size)
        with torch.no_grad():
            for a, b in zip(network(x), packed(x), strict=True):
                assert (a - b).norm() < 0.1 * a.norm()
