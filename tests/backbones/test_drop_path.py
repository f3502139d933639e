"""Drop path, and the map for an auxiliary head."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from onebit import backbones
from onebit.backbones.auxiliary import AuxiliaryHead
from onebit.backbones.cells.net import Cell, drop_path
from onebit.backbones.cells.operations import CellStyle
from onebit.commons.errors import InputError


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    out = drop_path(torch.ones(4000, 2, 3, 3), 0.25)
    per_image = out.flatten(1)
    assert (per_image == per_image[:, :1]).all()
    torch.testing.assert_close(per_image[:, 0].unique(), torch.tensor([0, 4 / 3]))
    assert (per_image[:, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert out.mean().item() == pytest.approx(1, abs=0.04)


def cell_of(operation):
    nodes = [[(operation, 0), ("skip_connect", 1)]] * 4
    return Cell(nodes, 4, 4, 4, reduction=False, halve_older=False, style=CellStyle(None))


def test_identities_stay_and_evaluation_is_whole():
    torch.manual_seed(0)
    x = torch.randn(64, 4, 6, 6), torch.randn(64, 4, 6, 6)
    cell = cell_of("max_pool_3x3")
    newer = cell.preprocess_newer(x[1])
    out = cell(*x, drop_path_prob=0.5)[:, :4]  # the first node: pooling + identity
    only_identity = torch.isclose(out, newer).flatten(1).all(1)
    assert 10 < only_identity.sum() < 54
    cell.eval()
    assert torch.equal(cell(*x, drop_path_prob=0.5), cell(*x))
    identities = cell_of("skip_connect").train()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    identities(*x, drop_path_prob=0.9)
    assert torch.equal(torch.get_rng_state(), before)  # nothing was drawn


def test_probability_can_change_during_training():
    network = backbones.create_backbone("dcp_nas_c8_l3", stem="cifar", norm_eval=True)
    images = torch.randn(2, 3, 16, 16)
    assert network.drop_path_prob == 0
    assert torch.equal(network(images)[3], network(images)[3])
    network.drop_path_prob = 0.5
    assert not torch.equal(network(images)[3], network(images)[3])
    network.eval()
    assert torch.equal(network(images)[3], network(images)[3])


@pytest.mark.parametrize(
    ("name", "stem", "size"),
    [("dcp_nas_c8_l6", "cifar", 32), ("bnas_imagenet_c8_l6", "imagenet", 224), ("darts_v2_c8_l3", "imagenet", 64)],
)
def test_auxiliary_map_is_that_of_the_second_reduction_cell(name, stem, size):
    torch.manual_seed(0)
    network = backbones.create_backbone(name, stem=stem, out_indices=(3,)).eval()
    seen = []
    position = 2 * len(network.cells) // 3
    network.cells[position].register_forward_hook(lambda m, args, out: seen.append(out))
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        maps, auxiliary = network.forward_auxiliary(images)
        assert torch.equal(maps[0], network(images)[0])
    assert auxiliary is seen[0]
    assert auxiliary.shape[1] == network.auxiliary_channels == network.feature_channels[0]
    assert AuxiliaryHead(network.auxiliary_channels, 7).eval()(auxiliary).shape == (1, 7)


def test_auxiliary_map_of_a_network_that_ends_before_it():
    network = backbones.create_backbone("dcp_nas_c8_l6", out_indices=(2,))
    assert network.auxiliary_channels == 0
    with pytest.raises(InputError, match="an auxiliary head needs cell 4, which out_indices"):
        network.forward_auxiliary(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize(("size", "stride"), [(8, 3), (7, 2)])
def test_auxiliary_head_step_by_step(size, stride):
    """At the sizes that DARTS has."""
    torch.manual_seed(0)
    head = AuxiliaryHead(6, 5).eval()
    for norm in (m for m in head.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1)
        nn.init.normal_(norm.running_mean, std=0.1)
    x = torch.randn(2, 6, size, size)
    conv1, norm1, _, conv2, norm2, _ = head.features
    out = F.avg_pool2d(x.relu(), 5, stride)
    out = norm2(F.conv2d(norm1(F.conv2d(out, conv1.weight)).relu(), conv2.weight)).relu()
    assert out.shape == (2, 768, 1, 1)
    torch.testing.assert_close(head(x), out.flatten(1) @ head.classifier.weight.T + head.classifier.bias)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (14, 14), (8, 4), (16, 8)])
def test_auxiliary_head_takes_any_map(size):
    assert AuxiliaryHead(6, 5).eval()(torch.randn(2, 6, *size)).shape == (2, 5)
