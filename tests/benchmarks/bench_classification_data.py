"""Images per second of loading and of training, against the straightforward loop.

    python tests/benchmarks/bench_classification_data.py [--width 64] [--images 2000] [--threads 2]

Ours: small images in memory as uint8, a batch is one indexing operation, augmented in batches on the
device that trains. Straightforward: torchvision's CIFAR10, whose images are augmented one by one
(random crop, flip, normalization) in the default DataLoader, a plain loop, and for the 1-bit network
the textbook expression of its sign. Both train a ResNet-18 for 32x32 with SGD on the same files.
The loops take turns in one process, so that a busy machine slows all of them alike; with
`--threads 1` ratios of processor time hold even where other processes take most of the machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from bench_training_step import TEXTBOOK, Classifier
from torch import Tensor, nn
from torch.utils.data import DataLoader

from onebit import backbones
from onebit.classification.augmentation import BatchAugmentation
from onebit.classification.config import STATISTICS
from onebit.classification.datasets import InMemoryImages, collate_images
from onebit.classification.model import ImageClassifier
from onebit.commons.compat import ensure_torchvision
from onebit.commons.mini.classification import dump_python2_pickle

ensure_torchvision()
MEAN, STD = STATISTICS["cifar10"]


def write_cifar10(root: Path, images: int) -> None:
    """Random images in CIFAR-10's five training files and its test file."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    part = images // 5
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        content = {
            "data": random.integers(0, 256, (part, 3072), np.uint8),
            "labels": [int(label) for label in random.integers(0, 10, part)],
        }
        (folder / name).write_bytes(dump_python2_pickle(content))
    names = {"label_names": [f"class{i}" for i in range(10)]}
    (folder / "batches.meta").write_bytes(dump_python2_pickle(names))


class Ours:
    """The suite's data, augmentation and classifier."""

    def __init__(self, root: Path, args: argparse.Namespace, binarizer) -> None:
        dataset = InMemoryImages(str(root), "cifar10", "train")
        self.loader = DataLoader(dataset, args.batch, shuffle=True, drop_last=True, collate_fn=collate_images)
        self.augment = BatchAugmentation(MEAN, STD, padding=4, flip=True).to(args.device)
        backbone = dict(
            type="onebit.create_backbone",
            name=f"resnet18_w{args.width}",
            binarizer=binarizer,
            stem="cifar",
            out_indices=(3,),
        )
        torch.manual_seed(0)
        self.model = ImageClassifier(backbone, 10).to(args.device).train()
        self.optimizer = sgd(self.model)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.loader:
            ready = self.augment(batch, training=True)
            yield ready["inputs"], ready["labels"]

    def step(self, images: Tensor, labels: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.model(images, labels, mode="loss")["loss"].backward()
        self.optimizer.step()


class Straightforward:
    """torchvision's dataset, the default loader, the textbook sign, a plain loop."""

    def __init__(self, root: Path, args: argparse.Namespace, binarizer) -> None:
        from torchvision import transforms
        from torchvision.datasets import CIFAR10

        class Unchecked(CIFAR10):  # the images are not the release's
            def _check_integrity(self) -> bool:
                return True

            def _load_meta(self) -> None:
                self.classes = list(range(10))

        prepare = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([v / 255 for v in MEAN], [v / 255 for v in STD]),
            ]
        )
        dataset = Unchecked(str(root), train=True, transform=prepare)
        self.loader = DataLoader(dataset, args.batch, shuffle=True, drop_last=True, num_workers=args.workers)
        torch.manual_seed(0)
        network = backbones.create_backbone(
            f"resnet18_w{args.width}", binarizer=binarizer and TEXTBOOK, stem="cifar", out_indices=(3,)
        )
        self.model = Classifier(network).to(args.device).train()
        self.optimizer = sgd(self.model)
        self.device = args.device

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.loader:
            yield images.to(self.device), labels.to(self.device)

    def step(self, images: Tensor, labels: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(self.model(images), labels).backward()
        self.optimizer.step()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)


Loop = Ours | Straightforward


def loading(loop: Loop, count: int) -> int:
    """Make ``count`` batches, or one epoch's; returns how many images they held."""
    return sum(len(labels) for _, (_, labels) in zip(range(count), loop.batches(), strict=False))


def training(loop: Loop, count: int) -> int:
    seen = 0
    for _, (images, labels) in zip(range(count), loop.batches(), strict=False):
        loop.step(images, labels)
        seen += len(labels)
    return seen


def steps_alone(loop: Loop, count: int) -> int:
    """Training on one batch that is there already: what loading adds is the difference."""
    images, labels = next(loop.batches())
    for _ in range(count):
        loop.step(images, labels)
    return count * len(labels)


def rate(work: Callable[[Loop, int], int], loop: Loop, count: int, device: str) -> tuple[float, float]:
    """Images per second by the clock, and per second of processor time."""
    start, cpu = time.perf_counter(), time.process_time()
    images = work(loop, count)
    if device == "cuda":
        torch.cuda.synchronize()
    return images / (time.perf_counter() - start), images / (time.process_time() - cpu)


def compare(title: str, work, loops: dict[str, Loop], count: int, args: argparse.Namespace) -> None:
    """Let the loops take turns, and print medians and the median of the paired ratios."""
    found = {name: [] for name in loops}
    for _ in range(args.repeat):
        for name, loop in loops.items():
            found[name].append(rate(work, loop, count, args.device))
    medians = {name: [statistics.median(r[i] for r in rates) for i in (0, 1)] for name, rates in found.items()}
    ratios = [statistics.median(a[i] / b[i] for a, b in zip(*found.values(), strict=True)) for i in (0, 1)]
    cells = [f"{value:.0f}" for median in medians.values() for value in median]
    print(f"| {title} | {' | '.join(cells)} | {ratios[0]:.2f} | {ratios[1]:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=64, help="channels of the first stage")
    parser.add_argument("--images", type=int, default=5000, help="in the training files")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4, help="training steps a turn")
    parser.add_argument("--loads", type=int, default=40, help="batches a turn of loading alone")
    parser.add_argument("--repeat", type=int, default=5, help="turns")
    parser.add_argument("--workers", type=int, default=0, help="of the straightforward loader; 0 is torch's default")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if args.images < 5 * args.batch:
        parser.error("--images: expected at least five batches of --batch")
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(prefix="onebit-bench-") as folder:
        write_cifar10(Path(folder), args.images)
        print(
            f"ResNet-18 of width {args.width}, 32x32, batch {args.batch}, {args.device}, {args.threads} threads; torch {torch.__version__}; images per second"
        )
        print("| | ours | ours, per CPU s | straightforward | per CPU s | ratio | CPU ratio |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for kind, binarizer in (("real-valued", None), ("1-bit", "bireal")):
            loops = {
                "ours": Ours(Path(folder), args, binarizer),
                "straightforward": Straightforward(Path(folder), args, binarizer),
            }
            for loop in loops.values():  # the first step of each is not like the others
                training(loop, 1)
            if binarizer is None:
                compare("loading and augmentation alone", loading, loops, args.loads, args)
            compare(f"{kind}, training", training, loops, args.steps, args)
            compare(f"{kind}, steps alone", steps_alone, loops, args.steps, args)


if __name__ == "__main__":
    main()
