"""The common training of the cells of the table: one setting per dataset, short, on one CPU thread."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from onebit.backbones import CellNet, Genotype, costs
from onebit.backbones.classifier import Classifier
from onebit.backbones.shapes import ShapesOnly
from onebit.classification.augmentation import BatchAugmentation
from onebit.classification.cells_table.quick import QuickNetwork
from onebit.classification.datasets import InMemoryImages, layout_of
from onebit.commons import guards
from onebit.commons.datasets import get_dataset

#: Goes up whenever a change of the code changes the digits that a training gives.
PROTOCOL = 1


@dataclass(frozen=True)
class Setting:
    """What all trainings of a table have in common.

    Attributes:
        dataset: of classification, with images that are held in memory.
        image_size: height and width in pixels, by averaging areas.
        classes: of the dataset.
        cells, channels: of the network.
        train_images, valid_images: of the training set, disjoint, the same ones in every training.
        epochs, batch_size, lr, weight_decay, largest_norm: AdamW with a linear warm-up over ``warm_up`` steps and a
            cosine to 0; gradients are clipped at ``largest_norm``.
        padding, flip: see :class:`onebit.classification.augmentation.BatchAugmentation`.
    """

    dataset: str
    image_size: int
    classes: int = 10
    cells: int = 6
    channels: int = 8
    train_images: int = 10_000
    valid_images: int = 5_000
    epochs: int = 5
    batch_size: int = 64
    lr: float = 0.003
    weight_decay: float = 0.01
    largest_norm: float = 5.0
    warm_up: int = 40
    padding: int = 1
    flip: bool = True

    @property
    def hash(self) -> str:
        """12 hex digits that differ wherever trainings could."""
        text = json.dumps({**asdict(self), "protocol": PROTOCOL}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


SETTINGS = {
    setting.dataset: setting
    for setting in (
        Setting("cifar10-jpeg", 8),
        # Drawn images, to try the command in seconds.
        Setting("mini-cifar10", 8, cells=3, channels=4, train_images=320, valid_images=64, epochs=2, warm_up=4),
    )
}


def get_setting(dataset: str) -> Setting:
    """The setting of a dataset's table.

    Raises:
        InputError: there is no table of it.
    """
    return SETTINGS[guards.known("dataset of a table of cells", dataset, SETTINGS)]


@dataclass(frozen=True)
class Images:
    """uint8 [N, 3, side, side] and labels [N] of the three parts, and per-channel statistics for normalization."""

    train: tuple[Tensor, Tensor]
    valid: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    statistics: tuple[tuple[float, ...], tuple[float, ...]]


def load_images(setting: Setting, data_root: Path) -> Images:
    """Which images train and which validate follows from the dataset alone.

    Raises:
        InputError: the dataset is missing or broken, or has too few images.
    """
    dataset = get_dataset(setting.dataset, "classification")
    folder = dataset.find(data_root)
    layout = layout_of(dataset, folder)
    parts = {
        split: InMemoryImages(str(folder), layout, split, resize=setting.image_size) for split in ("train", "test")
    }
    whole, test = parts["train"], parts["test"]
    guards.whole(f"classes of {setting.dataset}", len(whole.metainfo["classes"]), setting.classes, setting.classes)
    guards.whole(f"training images of {setting.dataset}", len(whole), setting.train_images + setting.valid_images)
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
    train, valid = order[: setting.train_images], order[setting.train_images :][: setting.valid_images]
    return Images(
        train=(whole.images[train], whole.labels[train]),
        valid=(whole.images[valid], whole.labels[valid]),
        test=(test.images, test.labels),
        statistics=dataset.statistics,
    )


@dataclass(frozen=True)
class Training:
    """What came of one training.

    Attributes:
        valid: accuracy on the validation images after each epoch.
        test: accuracy on the test images at the end.
        loss: mean cross-entropy of the last epoch's batches.
        seconds: processor time of training and validation.
    """

    valid: tuple[float, ...]
    test: float
    loss: float
    seconds: float


def build(genotype: Genotype, setting: Setting) -> Classifier:
    """The plain network of a cell in this setting."""
    backbone = CellNet(
        cell=genotype, macro="dcp_nas", channels=setting.channels, layers=setting.cells, stem="cifar", out_indices=(3,)
    )
    return Classifier(backbone, setting.classes)


def cost_columns(genotype: Genotype, setting: Setting) -> dict[str, float]:
    """What the network of a cell costs, strictly counted, under the names of the table's columns."""
    with torch.device("meta"), ShapesOnly():
        network = build(genotype, setting)
    shape = (3, setting.image_size, setting.image_size)
    found = costs(network, shape, ["strict"])["strict"].summary()
    return {
        "params": found["params_1bit"] + found["params_real"],
        "memory_bits": found["memory_bits"],
        "ops_strict": found["ops"],
    }


def train(genotype: Genotype, seed: int, setting: Setting, images: Images) -> Training:
    """Train one cell from scratch. The same arguments give the same digits on one machine."""
    began = time.process_time()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            valid, test, loss = _train(genotype, setting, images)
    finally:
        torch.set_num_threads(threads)
    return Training(valid, test, loss, time.process_time() - began)


def warm_up(setting: Setting) -> None:
    """Have all kernels compiled, so that no training is charged with it."""
    with torch.random.fork_rng(devices=[]):
        quick = QuickNetwork(build(Genotype.random(0, "all14"), setting))
        images = torch.rand(2, 3, setting.image_size, setting.image_size)
        quick.step_gradients(images, torch.zeros(2, dtype=torch.long))


def _train(genotype: Genotype, setting: Setting, images: Images) -> tuple[tuple[float, ...], float, float]:
    quick = QuickNetwork(build(genotype, setting))
    prepare = BatchAugmentation(*images.statistics, padding=setting.padding, flip=setting.flip)
    optimizer = torch.optim.AdamW([quick.parameters], lr=setting.lr, weight_decay=setting.weight_decay)
    steps = len(images.train[1]) // setting.batch_size
    total = steps * setting.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / setting.warm_up) * _cosine(step / total)
    )
    valid = []
    losses: list[float] = []
    for _ in range(setting.epochs):
        quick.network.train()
        losses = []
        for chosen in torch.randperm(len(images.train[1]))[: steps * setting.batch_size].split(setting.batch_size):
            batch = prepare(dict(inputs=images.train[0][chosen], labels=images.train[1][chosen]), training=True)
            losses.append(quick.step_gradients(batch["inputs"], batch["labels"]).item())
            torch.nn.utils.clip_grad_norm_([quick.parameters], setting.largest_norm)
            optimizer.step()
            schedule.step()
        valid.append(_accuracy(quick, prepare, *images.valid, setting.batch_size))
    return tuple(valid), _accuracy(quick, prepare, *images.test, setting.batch_size), sum(losses) / len(losses)


def _cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


@torch.no_grad()
def _accuracy(
    quick: QuickNetwork, prepare: BatchAugmentation, images: Tensor, labels: Tensor, batch_size: int
) -> float:
    quick.network.eval()
    right = 0
    for inputs, own in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        inputs = prepare(dict(inputs=inputs, labels=own))["inputs"]
        right += int((quick.logits(inputs).argmax(1) == own).sum())
    return right / len(labels)
