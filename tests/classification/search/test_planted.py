"""Every method finds the operation that is planted as the best; see :mod:`.planted`."""

import pytest
import torch

from onebit.backbones.cells.operations import CellStyle
from onebit.classification.search.strategies import METHODS, abanditnas, bnas, cp_nas, darts, dcp_nas
from tests.classification.search import planted


@pytest.fixture(autouse=True)
def small_supernets(monkeypatch):
    for module in (abanditnas, bnas, cp_nas, darts, dcp_nas):
        monkeypatch.setattr(module, "Supernet", planted.PlantedNet)


@pytest.mark.parametrize("name", planted.OPERATIONS)
def test_only_the_planted_operation_can_tell_the_classes_apart(name):
    """By what reaches the classifier of the toy's supernet, a mean over the picture."""
    torch.manual_seed(0)
    module = CellStyle(None).operation(name, 4, 1).eval()
    generator = torch.Generator().manual_seed(0)
    pictures = planted.pictures(torch.zeros(16, dtype=torch.long), generator)[:, None]
    first, second = (module(each.expand(-1, 4, -1, -1)).mean((2, 3)) for each in (pictures, pictures.mT))
    assert torch.allclose(first, second, atol=1e-5) == (name != planted.PLANTED)


def test_the_two_classes_are_alike_within_a_window_of_3_by_3():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2).repeat(500)
    pictures = planted.pictures(labels, generator)
    windows = pictures.unfold(1, 3, 1).unfold(2, 3, 1).flatten(3)
    for label in (0, 1):
        of_class = windows[labels == label].flatten(0, 2).T
        correlation = torch.corrcoef(of_class) - torch.eye(9)
        assert correlation.abs().max() < 0.05
    # Pixels 4 apart are equal along one direction and opposite along the other.
    assert torch.equal(pictures[0, :, :4], pictures[0, :, 4:])
    assert torch.equal(pictures[0, :4], -pictures[0, 4:])


def test_every_method_but_random_is_tried():
    tried = {method.removesuffix("-w1a32") for method in planted.METHODS}
    assert tried == set(METHODS) - {"random"}


def test_one_search_finds_it():
    assert planted.finds("bnas", seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("method", planted.METHODS)
def test_at_least_8_of_10_searches_find_it(method):
    assert sum(planted.finds(method, seed) for seed in range(10)) >= 8
