"""Names of backbones: listing, parsing, near matches, and adding one's own."""

import pytest
import torch
from torch import nn

from onebit import backbones
from onebit.backbones import registry
from onebit.backbones.binarization import BINARIZERS, ApproxSign, Binarizer, ScaledSign
from onebit.commons.errors import InputError


def test_list_has_every_depth_in_every_binarization():
    names = backbones.list_backbones()
    assert len(names) == len(set(names))
    for depth in (18, 34, 50):
        for suffix in ("", "_xnor", "_bireal", "_reactnet"):
            assert f"resnet{depth}{suffix}" in names
    assert backbones.list_backbones("resnet34*_bireal") == ["resnet34_bireal", "resnet34_w16_bireal"]
    assert backbones.list_backbones("nothing*") == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", dict(depth=18, width=64, binarizer=None)),
        ("resnet50_xnor", dict(depth=50, width=64, binarizer="xnor")),
        ("resnet34_w24", dict(depth=34, width=24, binarizer=None)),
        ("resnet18_w16_reactnet", dict(depth=18, width=16, binarizer="reactnet")),
    ],
)
def test_config_of_a_name(name, expected):
    assert backbones.backbone_config(name) == {"type": "onebit.ResNet", **expected}
    assert backbones.backbone_config(name, stem="cifar")["stem"] == "cifar"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet81", "resnet18"),
        ("resnet18_reacnet", "resnet18_reactnet"),
        ("resnet18_reactnet_w16", "resnet18_w16_reactnet"),
        ("ResNet18", "resnet18"),
        ("resnet18_w0", "resnet18"),
        ("resnet18_", "resnet18"),
    ],
)
def test_unknown_name_lists_near_matches(name, near):
    with pytest.raises(InputError, match=f"{name!r}.*{near}"):
        backbones.create_backbone(name)


def test_name_like_no_other_lists_all():
    with pytest.raises(InputError, match="onebit backbones"):
        backbones.backbone_config("qqq")


@pytest.fixture
def own_binarizer():
    binarizer = Binarizer("mine", "nowhere", input=ApproxSign, weight=ScaledSign)
    backbones.register_binarizer(binarizer)
    yield binarizer
    del BINARIZERS["mine"]


def test_own_binarizer_gets_its_backbones(own_binarizer):
    assert "resnet18_mine" in backbones.list_backbones()
    network = backbones.create_backbone("resnet18_w8_mine", out_indices=(0,))
    assert network(torch.randn(1, 3, 32, 32))[0].shape == (1, 8, 8, 8)
    assert {m.binarizer for m in network.modules() if isinstance(m, backbones.OneBitConv2d)} == {own_binarizer}


@pytest.mark.parametrize("name", ["w16", "c20", "Mine", "my_own", "", "16"])
def test_binarizer_name_that_would_be_ambiguous(name):
    with pytest.raises(InputError, match="binarizer name"):
        backbones.register_binarizer(Binarizer(name, "nowhere", ApproxSign, ScaledSign))


def test_binarizer_name_that_is_taken():
    with pytest.raises(InputError, match="'bireal' is registered already"):
        backbones.register_binarizer(Binarizer("bireal", "nowhere", ApproxSign, ScaledSign))
    backbones.register_binarizer(BINARIZERS["bireal"])  # again, as a reloaded module would


def test_unknown_binarizer():
    with pytest.raises(InputError, match="'bireel'; did you mean bireal"):
        backbones.get_binarizer("bireel")
    with pytest.raises(InputError, match="there are xnor, bireal, reactnet"):
        backbones.OneBitConv2d(1, 1, 1, binarizer="qqq")


def test_own_family_gets_its_names(monkeypatch):
    class Tiny(nn.Module):
        def __init__(self, width, out_indices):
            super().__init__()
            self.feature_channels = (width,)

    monkeypatch.setattr(registry, "_FAMILIES", list(registry.families()))
    monkeypatch.setitem(registry.MODELS._module_dict, "Tiny", Tiny)
    backbones.register_family(
        backbones.Family(
            type="Tiny", names=lambda: ["tiny"], parse=lambda name: dict(width=7) if name == "tiny" else None
        )
    )
    assert backbones.list_backbones("t*") == ["tiny"]
    assert backbones.create_backbone("tiny", out_indices=(0,)).feature_channels == (7,)
