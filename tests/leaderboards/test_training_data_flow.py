"""Which images each step of a training saw, in every task, and in which mode the networks were.

Red and green of an image are its number, blue is a ramp from left to right: whatever a network is given says which
images it holds and whether they were turned or shifted. Recorded are the forward passes of all backbones and the steps
of all optimizers, in their order, in a whole row. tests/classification/search/test_data_flow.py does it for searches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from onebit.commons.mini import detection as mini_detection
from onebit.commons.mini import draw
from onebit.commons.task import Job
from onebit.leaderboards.boards import runner

EPOCHS = 2
#: torchreid normalizes so, on the scale 0 to 1; others say it themselves.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: The numbers of test images begin here.
FIRST_TEST = 100


def paint(path: Path, number: int, width: int, height: int) -> None:
    picture = np.empty((height, width, 3), np.uint8)
    picture[..., :2] = 40 + 8 * (number % 16), 40 + 8 * (number // 16)
    picture[..., 2] = np.linspace(20, 220, width)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **(dict(quality=100, subsampling=0) if path.suffix == ".jpg" else {}))


def colored_folder(root: Path) -> tuple[int, int]:
    for split, count, first in (("train", 20, 0), ("test", 12, FIRST_TEST)):
        for i in range(count):
            paint(root / "colored" / split / f"class{i % 2}" / f"{i:02}.png", first + i, 8, 8)
    return 20, 12


def colored_voc(root: Path) -> tuple[int, int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            mini_detection, "_COUNTS", {"VOC2007 trainval": 4, "VOC2012 trainval": 4, "VOC2007 test": 6, **_NO_COCO}
        )
        draw("mini-voc", root / "mini-voc")
    (test,) = root.rglob("ImageSets/Main/test.txt")
    tested = set(test.read_text().split())
    images = sorted(root.rglob("*.jpg"))
    for i, path in enumerate([p for p in images if p.stem not in tested]):
        paint(path, i, 96, 96)
    for i, path in enumerate([p for p in images if p.stem in tested]):
        paint(path, FIRST_TEST + i, 96, 96)
    return 8, 6


_NO_COCO = {"train2017": 0, "val2017": 0}


def colored_market(root: Path) -> tuple[int, int]:
    folder = root / "market1501" / "Market-1501-v15.09.15"
    for i in range(16):
        paint(folder / "bounding_box_train" / f"{1 + i // 4:04}_c{1 + i % 2}s1_{i:06}_00.jpg", i, 32, 64)
    for i in range(18):  # of each identity a query by camera 1 and two images by camera 2
        part, camera = ("query", 1) if i % 3 == 0 else ("bounding_box_test", 2)
        paint(folder / part / f"{5 + i // 3:04}_c{camera}s1_{i:06}_00.jpg", FIRST_TEST + i, 32, 64)
    return 16, 18


#: Per kind of training: the data, the job's dataset, backbone and options.
CASES = {
    "classification": (
        colored_folder,
        ("folder-colored", "resnet18_w8"),
        {"train_cfg.max_epochs": EPOCHS, "train_dataloader.batch_size": 10},
    ),
    "detection": (
        colored_voc,
        ("mini-voc", "resnet18_w8_reactnet"),
        {"train_cfg.max_epochs": EPOCHS, "train_dataloader.batch_size": 4},
    ),
    "reid": (
        colored_market,
        ("market1501", "resnet18_w8_bireal"),
        {"epochs": EPOCHS, "height": 64, "width": 32, "data.batch_size_train": 8, "data.batch_size_test": 4},
    ),
}


@dataclass
class Pass:
    """One forward pass of a network with a backbone."""

    parameter: int  # the identity of the backbone's first
    numbers: list[int]
    blue: torch.Tensor  # [N, W], on the scale 0 to 255
    modes: set[bool]  # of all modules of the network: whether they train
    learns: bool  # whether gradients are kept


@dataclass
class Step:
    parameters: set[int]


@dataclass
class Recorder:
    events: list[Pass | Step] = field(default_factory=list)
    calls: list[nn.Module] = field(default_factory=list)
    mean: torch.Tensor = field(default_factory=lambda: 255 * torch.tensor(MEAN).view(3, 1, 1))
    std: torch.Tensor = field(default_factory=lambda: 255 * torch.tensor(STD).view(3, 1, 1))

    def enter(self, module: nn.Module, args) -> None:
        self.calls.append(module)
        if not hasattr(module, "feature_channels"):
            return
        if args[0].is_meta or args[0].amax() == args[0].amin():  # costs are of empty images
            return
        # The network it is a part of; a teacher is called within its student's call, and no part of it.
        network = next(m for m in self.calls if any(part is module for part in m.modules()))
        if hasattr(preparation := getattr(network, "data_preprocessor", None), "mean"):
            self.mean, self.std = (getattr(preparation, name).view(3, 1, 1) for name in ("mean", "std"))
        images = args[0].detach() * self.std + self.mean
        red, green = ((images[:, i, images.shape[2] // 2, images.shape[3] // 2] - 40) / 8 for i in (0, 1))
        self.events.append(
            Pass(
                id(next(module.parameters())),
                (red.round() + 16 * green.round()).int().tolist(),
                images[:, 2, images.shape[2] // 2],
                {m.training for m in network.modules()},
                torch.is_grad_enabled(),
            )
        )

    def leave(self, module: nn.Module, args, output) -> None:
        assert self.calls.pop() is module

    def step(self, optimizer, *_) -> None:
        self.events.append(Step({id(p) for group in optimizer.param_groups for p in group["params"]}))


@dataclass
class Row:
    """A recorded row; test images have other numbers than training images."""

    events: list[Pass | Step]
    train: list[int]
    test: list[int]

    def passes(self, learner: bool, learns: bool) -> list[tuple[int, Pass]]:
        """Of the network that steps change, or of others; with the place among all events."""
        stepped = {p for event in self.events if isinstance(event, Step) for p in event.parameters}
        return [
            (i, event)
            for i, event in enumerate(self.events)
            if isinstance(event, Pass) and (event.parameter in stepped) == learner and event.learns == learns
        ]


def recorded(task: str, job: Job, counts: tuple[int, int]):
    recorder = Recorder()
    hooks = [
        register_module_forward_pre_hook(recorder.enter),
        register_module_forward_hook(recorder.leave),
        register_optimizer_step_pre_hook(recorder.step),
    ]
    try:
        outcome = runner(task).train(job)
    finally:
        for hook in hooks:
            hook.remove()
    return Row(recorder.events, list(range(counts[0])), list(range(FIRST_TEST, FIRST_TEST + counts[1]))), outcome


@pytest.fixture(params=[*CASES, "a student"], scope="module")
def row(request, tmp_path_factory) -> Iterator[Row]:
    task = request.param if request.param in CASES else "classification"
    write, (dataset, backbone), options = CASES[task]
    root = tmp_path_factory.mktemp("data")
    counts = write(root)
    job = Job(dataset, backbone, "mini", 0, root, tmp_path_factory.mktemp("work"), cfg_options=options)
    found, outcome = recorded(task, job, counts)
    if request.param == "a student":
        options = {**options, "distillation.teacher": str(outcome.checkpoint), "distillation.weight": 0.5}
        job = replace(job, work_dir=tmp_path_factory.mktemp("student"), cfg_options=options)
        found, _ = recorded(task, job, counts)
        assert found.passes(learner=False, learns=False)
    return found


def test_an_epoch_takes_every_training_image_once_in_an_order_of_its_own(row):
    seen = [number for _, each in row.passes(learner=True, learns=True) for number in each.numbers]
    size = len(row.train)
    orders = [tuple(seen[start : start + size]) for start in range(0, len(seen), size)]
    assert len(orders) == EPOCHS
    assert all(sorted(order) == row.train for order in orders)
    assert len({*orders, tuple(row.train)}) == EPOCHS + 1


def test_every_step_follows_one_pass_of_a_training_network(row):
    learning = row.passes(learner=True, learns=True)
    assert all(True in each.modes for _, each in learning)
    steps = [i for i, event in enumerate(row.events) if isinstance(event, Step)]
    assert len(steps) == len(learning)
    assert all(i < step for (i, _), step in zip(learning, steps, strict=True))
    assert all(step < i for step, (i, _) in zip(steps, learning[1:], strict=False))


def test_all_test_images_are_scored_before_and_after_by_a_network_at_rest(row):
    scoring = row.passes(learner=True, learns=False)
    steps = [i for i, event in enumerate(row.events) if isinstance(event, Step)]
    for part in ([e for i, e in scoring if i < steps[0]], [e for i, e in scoring if i > steps[-1]]):
        assert sorted(number for each in part for number in each.numbers) == row.test
        assert all(each.modes == {False} for each in part)
    assert not any(steps[0] < i < steps[-1] for i, _ in scoring)


def test_a_teacher_is_at_rest_and_sees_what_its_student_sees(row):
    others = row.passes(learner=False, learns=False)
    assert not row.passes(learner=False, learns=True)
    for i, each in others:
        assert each.modes == {False}
        before = row.events[i - 1]
        assert isinstance(before, Pass)
        assert before.learns
        assert each.numbers == before.numbers
        assert torch.equal(each.blue, before.blue)


def test_what_is_scored_is_not_augmented_and_what_is_learned_is(row):
    plain = torch.cat([each.blue for _, each in row.passes(learner=True, learns=False)])
    reference = plain[0]
    assert reference.max() - reference.min() > 150
    assert (plain - reference).abs().max() < 6  # JPEG's
    learned = torch.cat([each.blue for _, each in row.passes(learner=True, learns=True)])
    assert (learned - reference).abs().amax(1).max() > 10
