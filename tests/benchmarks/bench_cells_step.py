"""A training step of a cell network, plain and quick, on one thread.

    python tests/benchmarks/bench_cells_step.py --size 8 --batch 64 --repeat 5

Both take turns in one process; processor milliseconds of forward, backward and AdamW, medians.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from onebit.backbones import CellNet, Genotype, method_losses
from onebit.backbones.classifier import Classifier
from onebit.classification.cells_table.quick import QuickNetwork


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--cells", type=int, nargs="+", default=[1000, 1001], help="seeds of random cells")
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for seed in args.cells:
        plain, quick = (_step(seed, args, fast) for fast in (False, True))
        times: dict = {plain: [], quick: []}
        for step in (plain, quick):
            step()
        for _ in range(args.repeat):
            for step, own in times.items():
                began = time.process_time()
                step()
                own.append(1000 * (time.process_time() - began))
        before, after = (statistics.median(times[step]) for step in (plain, quick))
        ratios = statistics.median(a / b for a, b in zip(times[plain], times[quick], strict=True))
        print(f"random_{seed}  plain {before:.0f} ms  quick {after:.0f} ms  ratio {ratios:.1f}", flush=True)


def _step(seed: int, args: argparse.Namespace, fast: bool):
    torch.manual_seed(0)
    backbone = CellNet(cell=Genotype.random(seed), channels=args.channels, layers=6, stem="cifar", out_indices=(3,))
    network = Classifier(backbone, 10)
    quick = QuickNetwork(network) if fast else None
    parameters = [quick.parameters] if quick else list(network.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=0.003, weight_decay=0.01)
    images, labels = torch.randn(args.batch, 3, args.size, args.size), torch.randint(0, 10, (args.batch,))

    def step() -> None:
        if quick:
            quick.step_gradients(images, labels)
        else:
            optimizer.zero_grad()
            (F.cross_entropy(network(images), labels) + sum(method_losses(network).values())).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
