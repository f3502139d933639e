"""No step of a training has the host wait for the device: the data, the augmentation, the losses, the optimizer."""

import pytest
import torch
from mmengine.optim import OptimWrapper

from onebit.backbones.binarization import BINARIZERS
from onebit.backbones.integer_conv import supported
from onebit.classification.augmentation import BatchAugmentation
from onebit.classification.datasets import InMemoryImages, hold_on_gpu
from onebit.classification.model import ImageClassifier
from onebit.classification.search.space import SearchSpace
from onebit.classification.search.strategies import Report, Schedule, get_strategy
from tests.synchronization import NoSynchronization, Synchronizes

PREPARE = dict(mean=[120.0] * 3, std=[60.0] * 3, padding=2, flip=True, cutout=4)


def images(data):
    return InMemoryImages(str(data / "mini-cifar10"), "cifar10", "train", resize=16)


@pytest.mark.parametrize(
    "name", ["resnet20_w4", *(f"resnet20_w4_{each}" for each in BINARIZERS), "dcp_nas_c4_l3", "reactnet_a_w4"]
)
def test_a_step_of_a_classifier(name, data):
    backbone = dict(type="onebit.create_backbone", name=name, out_indices=(3,), stem="cifar")
    if name.startswith("resnet20"):
        backbone["out_indices"] = (2,)
    model = ImageClassifier(
        backbone, 10, label_smoothing=0.1, data_preprocessor=dict(type="onebit.BatchAugmentation", **PREPARE)
    ).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    wrapper, held = OptimWrapper(optimizer), images(data)
    before = [p.detach().clone() for p in model.parameters()]
    supported()  # tried once in a process, on the CPU
    with NoSynchronization():
        model.train_step(held.__getitems__([5, 2, 7, 1]), wrapper)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("method", ["darts", "dcp-nas"])
def test_steps_of_a_search(method, data, monkeypatch):
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: None)  # it counts its steps on the CPU, always
    space = SearchSpace(10, cells=3, channels=4, operations=("none", "skip_connect", "dil_conv_3x3"))
    search = get_strategy(method)(space, {}, Schedule(epochs=2))
    prepared = BatchAugmentation(**PREPARE)(images(data).__getitems__([0, 1, 2, 3]), training=True)
    batch = prepared["inputs"], prepared["labels"]
    steps = ["architecture_step", "training_step"]
    if method == "dcp-nas":
        steps = ["parent_step", "parent_architecture_step", "child_step", "child_architecture_step"]
    for step in steps:
        with NoSynchronization(allowed=("tolist",)):  # on a CPU a mixture's coefficients are plain numbers
            getattr(search, step)(batch, Report())


def test_the_guard_knows_what_waits():
    x, mask = torch.arange(4.0), torch.tensor([True, False, True, False])
    waiting = [x.sum().item, x.tolist, x.numpy, lambda: bool(x.sum() > 1), lambda: x[mask], mask.nonzero, x.cpu]
    waiting += [lambda: x.masked_select(mask), lambda: torch.equal(x, x), lambda: float(x[0]), x.unique]
    for each in waiting:
        with pytest.raises(Synchronizes), NoSynchronization():
            each()
    with NoSynchronization():
        torch.where(mask, x, 0.0)[torch.tensor([1, 2])].sum()


def test_batches_on_a_device_are_those_of_the_memory(data):
    """The device is asked for its index only; without a GPU the images stay where they are."""
    held = images(data)
    loader = torch.utils.data.DataLoader(held, batch_size=4, collate_fn=lambda batch: batch)
    assert hold_on_gpu(loader) == torch.cuda.is_available()
    batch = next(iter(loader))
    assert batch["inputs"].device == held.labels.device
    assert torch.equal(batch["inputs"].cpu(), images(data).images[:4])
    meta = images(data).to("meta").__getitems__([3, 1])
    assert meta["inputs"].is_meta
    assert meta["inputs"].shape == (2, 3, 16, 16)
    assert meta["labels"].is_meta


@pytest.mark.parametrize("options", [dict(padding=2), dict(flip=True), dict(cutout=4)], ids=str)
def test_augmentation_draws_on_the_device(options):
    prepare = BatchAugmentation([0.0] * 3, [1.0] * 3, **options).to("meta")
    data = dict(inputs=torch.zeros(2, 3, 8, 8, dtype=torch.uint8, device="meta"), labels=torch.zeros(2, device="meta"))
    assert prepare(data, training=True)["inputs"].is_meta
