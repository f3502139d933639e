"""Do two stages matter, and does a teacher help? A 1-bit network on mini-cifar10, four ways.

    python tests/benchmarks/bench_two_stages.py --data DATA [--epochs 6] [--seeds 0,1,2]

One stage; two stages (activations 1-bit first, then weights too) of half the epochs each; one stage
taught by the real-valued network of the same seed, trained with the same recipe; two stages taught
likewise. Recipe `mini` and as many epochs in all for every way. Prints top-1 of every seed, the
means, and the differences to one stage, seed by seed; `--out FILE` keeps them as JSON. What is
finished in the work folder is not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from onebit.classification import runner
from onebit.commons.files import write_atomic
from onebit.commons.task import Job

PLAIN = "one stage"


def main() -> None:
    args = arguments()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    found: dict[str, list[float]] = {}
    for seed in seeds:
        taught = taught_by(args, seed, found)
        for name, options in ways(args.epochs, taught).items():
            top1, _ = train(args, args.backbone, name, seed, options)
            found.setdefault(name, []).append(top1)
    report(found, seeds)
    if args.out:
        content = dict(vars(args), found=found)
        write_atomic(args.out, json.dumps(content, indent=1, default=str) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--backbone", default="resnet18_w16_reactnet")
    parser.add_argument("--teacher", default="resnet18_w16")
    parser.add_argument("--epochs", type=int, default=6, help="of all stages together, even")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/two_stages"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.epochs < 2 or args.epochs % 2:
        parser.error("--epochs: expected an even number from 2 up")
    return args


def taught_by(args: argparse.Namespace, seed: int, found: dict[str, list[float]]) -> dict[str, Any]:
    """Train the teacher; the options that make it one."""
    options = {"train_cfg.max_epochs": args.epochs}
    top1, checkpoint = train(args, args.teacher, "teacher", seed, options)
    found.setdefault("teacher", []).append(top1)
    return {"distillation.teacher": str(checkpoint)}


def ways(epochs: int, taught: dict[str, Any]) -> dict[str, dict[str, Any]]:
    one = {"train_cfg.max_epochs": epochs}
    half = epochs // 2
    two = {"stages": [dict(epochs=half, binarize="activations"), dict(epochs=half)]}
    return {
        PLAIN: one,
        "two stages": two,
        "one stage, taught": {**one, **taught},
        "two stages, taught": {**two, **taught},
    }


def train(args: argparse.Namespace, backbone: str, name: str, seed: int, options: dict[str, Any]) -> tuple[float, Path]:
    """Top-1 and the checkpoint."""
    folder = args.work_dir / f"{name.replace(', ', '-').replace(' ', '-')}-seed{seed}"
    job = Job(
        dataset="mini-cifar10",
        backbone=backbone,
        recipe="mini",
        seed=seed,
        data_root=args.data,
        work_dir=folder.resolve(),
        resume=True,
        cfg_options=options,
    )
    outcome = runner.train(job)
    print(f"{name}, seed {seed}: {100 * outcome.metrics['top1']:.2f} %", flush=True)
    return outcome.metrics["top1"], outcome.checkpoint


def report(found: dict[str, list[float]], seeds: list[int]) -> None:
    print(f"\n{'top-1 in %':20}{''.join(f'seed {s:<5}' for s in seeds)}mean    to one stage")
    for name, values in found.items():
        each = "".join(f"{100 * value:<10.2f}" for value in values)
        line = f"{name:20}{each}{100 * statistics.mean(values):<8.2f}"
        if name not in (PLAIN, "teacher"):
            differences = [100 * (v - p) for v, p in zip(values, found[PLAIN], strict=True)]
            spread = statistics.stdev(differences) if len(differences) > 1 else float("nan")
            line += f"{statistics.mean(differences):+.2f} (deviation over seeds {spread:.2f})"
        print(line)


if __name__ == "__main__":
    main()
