"""When a network runs through CUDA graphs and when not; tests/gpu compares results on a GPU."""

import copy

import pytest
import torch
from torch import nn

from onebit.backbones import set_progress
from onebit.classification.cuda_graph import GraphedNetwork
from onebit.classification.model import ImageClassifier


class Capturing:
    """What stands for a graph: it runs the network, as capturing does, and counts its calls."""

    def __init__(self):
        self.captures, self.replays = 0, 0

    def __call__(self, module, arguments, allow_unused_input):
        self.captures += 1
        module(*arguments)

        def replay(x):
            self.replays += 1
            return module(x)

        return replay


@pytest.fixture
def capturing(monkeypatch):
    fake = Capturing()
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", fake)
    return fake


def test_batches_of_the_first_shape_run_through_a_graph(capturing):
    network, graphed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), GraphedNetwork()
    plain = copy.deepcopy(network)
    for images in (8, 8, 5, 8):
        x = torch.randn(images, 3, 6, 6)
        torch.testing.assert_close(graphed(network, x), plain(x), rtol=0, atol=0)
    assert (capturing.captures, capturing.replays) == (1, 3)
    # Capturing left no trace in the statistics.
    torch.testing.assert_close(dict(network.named_buffers()), dict(plain.named_buffers()), rtol=0, atol=0)
    network.eval()
    graphed(network, x)
    assert capturing.replays == 3


def test_an_epoch_captures_anew_and_a_copy_has_graphs_of_its_own(capturing):
    backbone = dict(type="onebit.create_backbone", name="resnet20_w4_reactnet", out_indices=(2,), stem="cifar")
    model = ImageClassifier(backbone, 3, cuda_graph=True).train()
    x, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    model(x, labels, mode="loss")
    model(x, labels, mode="loss")
    assert capturing.captures == 1
    set_progress(model, 0.5)
    model(x, labels, mode="loss")
    assert capturing.captures == 2
    copied = copy.deepcopy(model)
    copied(x, labels, mode="loss")
    assert capturing.captures == 3
    assert model.state_dict().keys() == ImageClassifier(backbone, 3).state_dict().keys()
