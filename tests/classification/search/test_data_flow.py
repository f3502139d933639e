"""Which images each kind of step sees, of every method: a search that chose its cell by training images
would look as well as any other.

The images of the data set are of one color each, which is their number: whatever a network is given
says which images it holds, and whether they were augmented. Recorded are the forward passes of all
supernets and the steps of all optimizers, in their order, in a whole search by mmengine's Runner.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from onebit.classification.search.loop import SearchLoop
from onebit.classification.search.runner import search
from onebit.classification.search.strategies import METHODS
from onebit.classification.search.supernet import Supernet
from tests.classification.search.conftest import FEW_OPERATIONS

CLASSES, PER_CLASS, SIDE = 2, 20, 8
BATCH = 10
#: Of 40 images: what `data.train`, `data.valid` and `data.evaluation` of the search below ask for.
SHARES = {"train": 0.5, "valid": 0.25, "evaluation": 0.25}


def color(number: int) -> tuple[int, int, int]:
    """Far from the gray that padding and cutout leave (0 and the mean)."""
    return 40 + number % 8 * 8, 40 + number // 8 * 8, 200


def numbers(images: torch.Tensor) -> list[int]:
    """Of images [N, 3, H, W] in [-1, 1], by their middle, which neither crop nor padding reaches."""
    middle = (images.detach()[:, :, images.shape[2] // 2, images.shape[3] // 2] * 127.5 + 127.5).round().int()
    return [(red - 40) // 8 + (green - 40) // 8 * 8 for red, green, _ in middle.tolist()]


@pytest.fixture(scope="module")
def colored(tmp_path_factory):
    """The data root of `folder-colored`."""
    root = tmp_path_factory.mktemp("data")
    for split in ("train", "test"):
        for label in range(CLASSES):
            folder = root / "colored" / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(PER_CLASS):
                # Test images have no number: blue 0.
                shade = color(label * PER_CLASS + i) if split == "train" else (9, 9, 0)
                Image.new("RGB", (SIDE, SIDE), shade).save(folder / f"{i:02}.png")
    return root


@dataclass
class Forward:
    images: list[int]
    learns: bool  # whether gradients are kept
    augmented: bool
    epoch: int


@dataclass
class Step:
    architecture: bool  # of alpha and beta, not of weights
    epoch: int


@dataclass
class Recorder:
    """What networks saw and when optimizers stepped."""

    events: list[Forward | Step] = field(default_factory=list)
    epoch: int = -1
    parts: dict[str, set[int]] = field(default_factory=dict)

    def forward(self, module, args) -> None:
        if isinstance(module, Supernet):
            images = args[0]
            assert (images[:, 2] > -1).any(), "an image of the test set"
            plain = (images.flatten(2).amax(2) - images.flatten(2).amin(2)).abs().max().item() < 1e-6
            self.events.append(Forward(numbers(images), torch.is_grad_enabled(), not plain, self.epoch))

    def step(self, optimizer, *_) -> None:
        shapes = {tuple(p.shape[:2]) for group in optimizer.param_groups for p in group["params"]}
        self.events.append(Step(shapes == {(2, 14)}, self.epoch))

    def start_epoch(self, loop: SearchLoop) -> None:
        self.epoch += 1
        for name in SHARES:
            subset = getattr(loop.data, name).loader.dataset
            self.parts[name] = set(subset.indices)


#: Every method, and versions of it that take their data another way.
VERSIONS = [
    *((name, {}) for name in METHODS),
    ("dcp-nas", dict(tangent="off")),
    ("dcp-nas", dict(curvature="fisher")),
    ("darts", dict(keep="best")),
    ("bnas", dict(version="w1a32", L=2, freeze=1, T=1)),
]


@pytest.fixture(params=VERSIONS, ids=lambda v: "-".join([v[0], *map(str, v[1].values())]), scope="module")
def record(request, colored, tmp_path_factory):
    """A search of a few epochs, as recorded."""
    from onebit.classification.search.job import SearchJob
    from onebit.classification.search.strategies import Strategy, get_strategy

    method, options = request.param
    changes = {
        "space.cells": 3,
        "space.channels": 4,
        "default_hooks.checkpoint.interval": 1000,
        "data.image_size": SIDE,
        "data.images": CLASSES * PER_CLASS,
        "data.batch_size": BATCH,
        "data.augmentation.padding": 1,
        **{f"data.{name}": share for name, share in SHARES.items()},
    }
    if get_strategy(method).epochs is Strategy.epochs:
        changes["schedule.epochs"] = 2
    work = tmp_path_factory.mktemp("work")
    job = SearchJob(method, "folder-colored", "mini", 0, colored, work, options=options, cfg_options=changes)
    recorder = Recorder()
    run_epoch = SearchLoop.run_epoch

    def recorded(loop):
        recorder.start_epoch(loop)
        run_epoch(loop)

    hooks = [register_module_forward_pre_hook(recorder.forward), register_optimizer_step_pre_hook(recorder.step)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SearchLoop, "run_epoch", recorded)
        patch.setattr("onebit.classification.search.config.search_space", lambda *_: FEW_OPERATIONS)
        search(job)
    for hook in hooks:
        hook.remove()
    return recorder


def steps(record: Recorder):
    """Every step with the forward passes whose gradients it may have taken: those since the last step."""
    since: list[Forward] = []
    for event in record.events:
        if isinstance(event, Forward):
            since.append(event)
        else:
            yield event, since
            since = []


def test_the_parts_are_disjoint_and_as_large_as_asked(record):
    assert {name: len(images) for name, images in record.parts.items()} == {
        name: round(share * CLASSES * PER_CLASS) for name, share in SHARES.items()
    }
    assert len(set().union(*record.parts.values())) == CLASSES * PER_CLASS


def test_weights_learn_on_training_images_and_architectures_on_validation_images(record):
    for step, passes in steps(record):
        part = record.parts["valid" if step.architecture else "train"]
        learned_on = [p for p in passes if p.learns]
        assert learned_on
        for each in learned_on:
            assert set(each.images) <= part


def test_what_keeps_no_gradient_is_an_evaluation_or_a_teacher_on_the_same_images(record):
    for i, event in enumerate(record.events):
        if isinstance(event, Forward) and not event.learns and not set(event.images) <= record.parts["evaluation"]:
            after = record.events[i + 1]
            assert isinstance(after, Forward)
            assert after.learns
            assert after.images == event.images


def test_evaluation_is_not_augmented_and_training_is(record):
    plain = [e for e in record.events if isinstance(e, Forward) and set(e.images) <= record.parts["evaluation"]]
    others = [e for e in record.events if isinstance(e, Forward) and not set(e.images) <= record.parts["evaluation"]]
    assert not any(e.augmented for e in plain)
    assert all(e.augmented for e in others)


def passes_over(record: Recorder, part: str, epoch: int, learns: bool) -> list[int]:
    """Images of one epoch's forward passes over a part, in their order; equal neighbors once.

    Child and Parent, or a network and its curvature, are given the same batch one after the other.
    """
    seen: list[list[int]] = []
    for event in record.events:
        if isinstance(event, Forward) and event.epoch == epoch and event.learns == learns:
            own = set(event.images) <= record.parts[part]
            if own and event.images not in seen[-2:]:
                seen.append(event.images)
    return [number for batch in seen for number in batch]


def test_an_epoch_takes_every_training_image_once_a_pass_and_others_in_another_order(record):
    orders = []
    for epoch in range(record.epoch + 1):
        order = passes_over(record, "train", epoch, learns=True)
        size = len(record.parts["train"])
        assert len(order) % size == 0
        assert order
        for start in range(0, len(order), size):
            assert set(order[start : start + size]) == record.parts["train"]
            orders.append(tuple(order[start : start + size]))
    assert len(set(orders)) == len(orders)


def test_every_architecture_is_judged_by_all_evaluation_images(record):
    for epoch in range(record.epoch + 1):
        order = passes_over(record, "evaluation", epoch, learns=False)
        if order:
            assert sorted(order) == sorted(record.parts["evaluation"])
