import pytest
import torch
from onebit_method_template.binarizer import TanhSign

from onebit import backbones


def test_sign_and_its_gradient():
    x = torch.tensor([[[[-2.0, 0.0, 0.5]]]], requires_grad=True)
    y = TanhSign(1)(x)
    assert y.tolist() == [[[[-1.0, -1.0, 1.0]]]]
    y.sum().backward()
    torch.testing.assert_close(x.grad, 1 - x.detach().tanh() ** 2)


@pytest.mark.parametrize("name", ["tinynet_w8_tanhsign", "tinynet_w8_reactnet", "resnet18_w8_tanhsign"])
def test_names_are_known(name):
    network = backbones.create_backbone(name)
    maps = network(torch.randn(2, 3, 64, 64))
    assert [m.shape[1] for m in maps] == list(network.feature_channels)
    assert [64 // m.shape[2] for m in maps] == list(network.feature_strides)
    assert backbones.cost(name).params_1bit > 0


def test_the_record_will_name_this_package():
    packages = backbones.foreign_packages("tinynet_w8_tanhsign")
    assert packages == {"onebit-method-template": "0.1.0"}
    assert backbones.foreign_packages("resnet18_w8") == {}
