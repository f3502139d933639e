"""One training step of a 1-bit ResNet against the same network real-valued, and against the
textbook formulation of the same gradient.

    python tests/benchmarks/bench_training_step.py [--backbone resnet18_bireal] [--threads 2]

The variants take turns within one process, so that a busy machine slows all of them alike; what is
compared is the median of the paired ratios. With `--threads 1` the ratios of processor time hold
even where other processes take most of the machine. Peak memory comes from one process per
variant.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from onebit import backbones
from onebit.backbones.binarization import Binarizer

VARIANTS = ("real-valued", "1-bit", "textbook")


def detached_sign(x: Tensor) -> Tensor:
    return torch.where(x > 0, 1.0, -1.0).detach()


class TextbookApproxSign(nn.Module):
    """The quadratic whose derivative is ApproxSign's gradient, piece by piece, left to autograd.

    F(x) = -1 | 2x + x^2 | 2x - x^2 | 1 on the four pieces cut at -1, 0 and 1. Its value is
    subtracted again, so that only its gradient stays; what rounding leaves of it makes the result
    not exactly -1 or +1, hence the precision.
    """

    precision = 32

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        below, negative, inside = ((x < bound).to(x.dtype) for bound in (-1, 0, 1))
        left = -1 * below + (x * x + 2 * x) * (1 - below)
        middle = left * negative + (2 * x - x * x) * (1 - negative)
        surrogate = middle * inside + (1 - inside)
        return detached_sign(x) - surrogate.detach() + surrogate


class TextbookScaledSign(nn.Module):
    """Scaled sign of the weights in the value, clipped weights in the gradient."""

    precision = 32

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, weight: Tensor) -> Tensor:
        scale = weight.abs().mean(3, keepdim=True).mean(2, keepdim=True).mean(1, keepdim=True)
        clipped = weight.clamp(-1, 1)
        return scale.detach() * detached_sign(weight) - clipped.detach() + clipped


TEXTBOOK = Binarizer("textbook", "expressions left to autograd", TextbookApproxSign, TextbookScaledSign)


class Classifier(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(backbone.feature_channels[-1], 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.backbone(images)[-1].mean((2, 3)))


class Trainer:
    """A network, its optimizer and one batch."""

    def __init__(self, variant: str, args: argparse.Namespace) -> None:
        torch.manual_seed(0)
        overrides = dict(stem=args.stem, out_indices=(3,))
        if variant == "real-valued":
            overrides["binarizer"] = None
        elif variant == "textbook":
            overrides["binarizer"] = TEXTBOOK
        self.model = Classifier(backbones.create_backbone(args.backbone, **overrides)).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        self.images = torch.randn(args.batch, 3, args.size, args.size)
        self.labels = torch.randint(10, (args.batch,))
        if args.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
            self.images = self.images.contiguous(memory_format=torch.channels_last)

    def step(self) -> tuple[float, float]:
        """Forward, backward and update; returns seconds by the clock and of the processor."""
        start, cpu_start = time.perf_counter(), time.process_time()
        self.optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(self.model(self.images), self.labels).backward()
        self.optimizer.step()
        return time.perf_counter() - start, time.process_time() - cpu_start

    def gradients(self) -> Tensor:
        """All gradients of the first step, as one vector."""
        self.optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(self.model(self.images), self.labels).backward()
        return torch.cat([p.grad.flatten() for p in self.model.parameters()])


def peak_rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_memory(variant: str, argv: list[str]) -> dict:
    command = [sys.executable, __file__, *argv, "--memory-of", variant]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def memory_of(variant: str, args: argparse.Namespace) -> dict:
    """Peak resident memory in MiB of three steps, with and without what imports took."""
    before = peak_rss_mb()
    trainer = Trainer(variant, args)
    for _ in range(3):
        trainer.step()
    return {"peak_mib": peak_rss_mb(), "added_mib": peak_rss_mb() - before}


def measure_time(args: argparse.Namespace) -> dict:
    trainers = {variant: Trainer(variant, args) for variant in VARIANTS}
    ours, theirs = trainers["1-bit"].gradients(), trainers["textbook"].gradients()
    error = ((ours - theirs).norm() / theirs.norm()).item()
    for _ in range(2):
        for trainer in trainers.values():
            trainer.step()
    steps = {variant: [] for variant in VARIANTS}
    for _ in range(args.repeat):
        for variant, trainer in trainers.items():
            steps[variant].append(trainer.step())

    def summary(clock: int) -> dict:
        seconds = {variant: [step[clock] for step in steps[variant]] for variant in VARIANTS}

        def paired(a: str, b: str) -> float:
            return statistics.median(x / y for x, y in zip(seconds[a], seconds[b], strict=True))

        return {
            "milliseconds": {v: 1000 * statistics.median(s) for v, s in seconds.items()},
            "over_real_valued": paired("1-bit", "real-valued"),
            "textbook_over_ours": paired("textbook", "1-bit"),
        }

    return {"wall": summary(0), "cpu": summary(1), "relative_gradient_difference_to_textbook": error}


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--backbone", default="resnet18_bireal", help="a Bi-Real backbone")
    parser.add_argument("--stem", default="cifar", choices=("cifar", "imagenet"))
    parser.add_argument("--size", type=int, default=32, help="image height and width")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=10, help="steps of each variant")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--memory-of", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(json.dumps(memory_of(args.memory_of, args)))
        return
    # First, while this process is small: a child's peak starts from its parent's size.
    memory = {variant: measure_memory(variant, argv) for variant in VARIANTS}
    result = measure_time(args)
    result.update(memory=memory, arguments=vars(args), torch=torch.__version__)
    result["load_average"] = os.getloadavg()[0]
    if args.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{args.backbone}, {args.stem} stem, batch {args.batch}, {args.size}x{args.size}")
    print(
        f"torch {result['torch']}, threads {args.threads}, load {result['load_average']:.1f}, "
        f"{args.repeat} steps of each in turns"
    )
    print(f"{'':14}{'wall ms':>10}{'CPU ms':>10}{'peak MiB':>10}{'added MiB':>11}")
    for variant in VARIANTS:
        print(
            f"{variant:14}{result['wall']['milliseconds'][variant]:10.0f}"
            f"{result['cpu']['milliseconds'][variant]:10.0f}"
            f"{memory[variant]['peak_mib']:10.0f}{memory[variant]['added_mib']:11.0f}"
        )
    print(f"{'':26}{'wall':>8}{'CPU':>8}")
    for label, key, aim in (
        ("1-bit over real-valued", "over_real_valued", "at most 1.10"),
        ("textbook over 1-bit", "textbook_over_ours", "at least 1.80"),
    ):
        print(f"{label:26}{result['wall'][key]:8.2f}{result['cpu'][key]:8.2f}   aim: {aim}")
    print(
        "relative difference of the first gradient to the textbook's "
        f"{result['relative_gradient_difference_to_textbook']:.1e}"
    )


if __name__ == "__main__":
    main()
