"""No step of a training waits for the device: on the meta device, where there is no data, it runs through.

There ``nonzero``, ``item``, ``tolist``, a Python branch on a value, and a tensor of another device raise.
"""

import pytest
import torch
import torch.nn.functional as F

from onebit import backbones
from onebit.backbones.auxiliary import AuxiliaryHead
from onebit.backbones.binarization import BINARIZERS
from onebit.backbones.class_centres import ClassCentreLoss
from onebit.backbones.classifier import Classifier
from onebit.backbones.losses import ChildParentLoss, feature_losses, method_losses, reconstruction_error
from tests.backbones.covering import pairs

META = torch.device("meta")
#: One narrow network of each family; those of the first are tried with every binarizer in the fast tests.
FAMILIES = ("resnet18_w4", "resnet50_w4", "resnet20_w4", "vgg_small_w4", "wrn22_w4", "reactnet_a_w4")
FAMILIES += ("dcp_nas_c4_l3", "bnas_c4_l3", "darts_v2_c4_l3")


def build(name, **options):
    with META:
        return backbones.create_backbone(name, **options)


def step(network, *losses):
    """A classifier's training step: forward, every loss, backward, optimizer."""
    network = Classifier(network, 10).to(META)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    of_features = feature_losses(network.backbone, network.classifier.in_features, 10).to(META)
    kept = []
    network.classifier.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    labels = torch.zeros(2, dtype=torch.long, device=META)
    loss = F.cross_entropy(network(torch.zeros(2, 3, 64, 64, device=META)), labels)
    for each in of_features:
        each(kept[0], labels)
    added = {**method_losses(network), **method_losses(of_features)}
    sum(added.values(), loss).backward()
    assert all(p.grad.is_meta for p in network.parameters())
    optimizer.step()
    return added


@pytest.mark.parametrize(
    ("family", "binarizer"), pairs(FAMILIES, quick=FAMILIES[:1], whole=["reactnet_a_w4", "dcp_nas_c4_l3"])
)
def test_training_step(family, binarizer):
    step(build(family, binarizer=binarizer))


@pytest.mark.parametrize("family", [FAMILIES[0], *FAMILIES[4:]])
def test_training_step_of_a_real_valued_network(family):
    assert step(build(family, binarizer=None)) == {}


@pytest.mark.parametrize("pad_value", [-1, 1])
@pytest.mark.parametrize("channels_last", [False, True])
def test_padded_with_a_sign(pad_value, channels_last):
    with META:
        conv = backbones.OneBitConv2d(8, 8, 3, padding=1, binarizer="reactnet", pad_value=pad_value)
    x = torch.zeros(2, 8, 6, 6, device=META)
    conv(x.to(memory_format=torch.channels_last) if channels_last else x).sum().backward()
    assert conv.weight.grad.is_meta


def test_stages_and_auxiliary_head():
    network = build("dcp_nas_c4_l6", drop_path_prob=0.2)
    backbones.binarize_weights(network, False)
    maps, auxiliary = network.forward_auxiliary(torch.zeros(2, 3, 64, 64, device=META))
    with META:
        head = AuxiliaryHead(network.auxiliary_channels, 10)
    (maps[-1].sum() + head(auxiliary).sum()).backward()
    assert all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize("binarizer", BINARIZERS)
def test_losses_between_networks(binarizer):
    """Of a child to its parent, to its class centres, and to its own binarized weights."""
    child, parent = build(FAMILIES[0], binarizer=binarizer), build(FAMILIES[0], binarizer=binarizer)
    child.pair = ChildParentLoss(child, parent)
    with META:
        child.centres = ClassCentreLoss(8, 3)
        child.centres(torch.zeros(2, 8, requires_grad=True), torch.zeros(2, dtype=torch.long))
    losses = method_losses(child)
    assert {"loss_child_parent", "loss_class_centre"} <= losses.keys()
    sum(losses.values(), reconstruction_error(child)).backward()
    assert all(conv.weight.grad.is_meta for conv in child.modules() if isinstance(conv, backbones.OneBitConv2d))
