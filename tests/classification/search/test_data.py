"""The images of a search: who sees which."""

import pytest
import torch

from onebit.classification.search.config import build_config
from onebit.classification.search.data import PARTS, SearchData
from onebit.commons.datasets import get_dataset
from onebit.commons.errors import InputError


def arguments(job, **changes):
    dataset = get_dataset(job.dataset)
    cfg = build_config(job, dataset, dataset.find(job.data_root))
    return {**cfg.train_dataloader.to_dict(), **changes}


def members(data):
    return {name: set(getattr(data, name).loader.dataset.indices) for name in PARTS}


def test_parts_are_disjoint_and_of_their_size(search_job):
    data = SearchData(**arguments(search_job()))
    found = members(data)
    assert [len(found[name]) for name in PARTS] == [40, 24, 16]
    assert len(set.union(*found.values())) == 80
    assert [getattr(data, name).images for name in PARTS] == [40, 24, 16]


def test_division_follows_from_the_seed_alone(search_job):
    torch.manual_seed(1)
    first = members(SearchData(**arguments(search_job())))
    torch.manual_seed(2)
    assert members(SearchData(**arguments(search_job()))) == first
    assert members(SearchData(**arguments(search_job(), seed=1))) != first


def test_fewer_images_are_a_part_of_all(search_job):
    few = SearchData(**arguments(search_job(), images=20))
    assert [getattr(few, name).images for name in PARTS] == [10, 6, 4]
    with pytest.raises(InputError, match=r"data\.images 81: .* from 1 to 80, which mini-cifar10"):
        SearchData(**arguments(search_job(), images=81))


def test_batches_are_normalized_and_shuffled_by_the_global_generator(search_job):
    data = SearchData(**arguments(search_job(), augmentation={}))

    def labels():
        return torch.cat([labels for _, labels in data.train])

    torch.manual_seed(0)
    first, second = labels(), labels()
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, second.sort().values)
    torch.manual_seed(0)
    assert torch.equal(labels(), first)
    images, _ = next(iter(data.train))
    assert images.shape == (20, 3, 8, 8)
    assert images.dtype == torch.float32
    assert -1 <= images.min() < images.max() <= 1
    assert torch.equal(*(next(iter(data.evaluation))[0] for _ in range(2)))


def test_what_is_evaluated_at_once_is_a_sample_of_all_classes(search_job):
    """Folders list their images class by class; supernets use each batch's own statistics."""
    job = search_job(dataset="mini-imagenet", cfg_options={"data.images": None})
    shares = dict(train=0.2, valid=0.0, evaluation=0.8, evaluation_batch_size=16)
    data = SearchData(**arguments(job, images=None, image_size=16, **shares))
    batches = [labels for _, labels in data.evaluation]
    classes = len(torch.cat(batches).unique())
    assert classes > 1
    assert all(len(labels.unique()) > classes / 2 for labels in batches if len(labels) == 16)


def test_a_part_too_small_for_a_batch_says_so(search_job):
    data = SearchData(**arguments(search_job(), evaluation=0.0))
    message = "evaluation part of the data has 0 images"
    with pytest.raises(InputError, match=message):
        next(iter(data.evaluation))
    data.require(("train", "valid"))
    with pytest.raises(InputError, match=message):
        data.require(PARTS)


def test_streamed_images_are_searched_too(search_job):
    job = search_job(dataset="mini-imagenet", cfg_options={"data.images": None})
    data = SearchData(**arguments(job, images=None, image_size=32, batch_size=4))
    images, labels = next(iter(data.train))
    assert images.shape[1:] == (3, 32, 32)
    assert len(images) == len(labels)


@pytest.mark.parametrize("shares", [{"train": 0.9}, {"valid": -0.1}, {"evaluation": "x"}, {"train": 0, "valid": 0.5}])
def test_shares_that_are_none(search_job, shares):
    changes = {f"data.{part}": value for part, value in shares.items()}
    with pytest.raises(InputError, match=r"share"):
        arguments(search_job(cfg_options=changes))
