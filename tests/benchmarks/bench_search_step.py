"""One step of a supernet against its plain formulation, in which every operation on every edge
always runs by itself and signs are expressions left to autograd.

    python tests/benchmarks/bench_search_step.py [--cells 6] [--channels 16] [--batch 64]

Both have the same parameters and compute the same (tests/classification/search/test_supernet.py).
They take turns in one process; what is compared is the median of paired ratios of processor time.
``mixed`` steps the weights under a mixture of all operations, ``architecture`` only the
architecture parameters, ``half`` the weights with half of the operations of each edge abandoned,
``path`` the weights of a single path. The plain formulation evaluates everything in all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from onebit.classification.search.architecture import frozen, operation_weights
from onebit.classification.search.space import SearchSpace
from onebit.classification.search.supernet import Supernet
from tests.classification.search.plain import TEXTBOOK, PlainSupernet

CASES = ("mixed", "architecture", "half", "path")


def step(case: str, network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Forward and backward; returns seconds of the processor."""
    shape = network.space.shape
    plain = isinstance(network, PlainSupernet)
    active = torch.ones(shape, dtype=torch.bool)
    if case == "half":
        active = (torch.arange(shape[2]) % 2 == 1).expand(shape)
    alpha = torch.zeros(shape, requires_grad=case == "architecture")
    choice = torch.full(shape[:2], shape[2] - 1)
    network.zero_grad(set_to_none=True)
    start = time.process_time()
    if case == "path":
        weights = F.one_hot(choice, shape[2]).float()
    else:
        weights = operation_weights(alpha, None if case == "mixed" else active)

    def loss() -> Tensor:
        if plain:
            logits = network(images, weights)
        elif case == "path":
            logits = network(images, choice=choice)
        else:
            logits = network(images, weights, active=active)
        return F.cross_entropy(logits, labels)

    if case == "architecture" and not plain:
        with frozen(network):
            value = loss()
        torch.autograd.grad(value, alpha)
    else:
        loss().backward()
    return time.process_time() - start


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cells", type=int, default=6)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--size", type=int, default=32, help="image height and width")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cases", default=",".join(CASES), help="separated by commas")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(argv)
    cases = tuple(args.cases.split(","))
    if unknown := set(cases) - set(CASES):
        parser.error(f"--cases {', '.join(unknown)}: expected some of {', '.join(CASES)}")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    space = SearchSpace(10, args.cells, args.channels)
    images = torch.randn(args.batch, 3, args.size, args.size)
    labels = torch.randint(10, (args.batch,))
    # Plain code does not mind its memory layout; it is given the faster one here, as is ours.
    images = images.contiguous(memory_format=torch.channels_last)
    result = {}
    for name, binarizer, textbook in (("Parent", None, None), ("Child", "mcn", TEXTBOOK)):
        ours, plain = Supernet(space, binarizer), PlainSupernet(space, textbook)
        for case in cases:
            for network in (ours, plain):
                step(case, network, images, labels)
            pairs = [[step(case, network, images, labels) for network in (ours, plain)] for _ in range(args.repeat)]
            result[f"{name}, {case}"] = {
                "cpu_seconds": statistics.median(a for a, _ in pairs),
                "plain_cpu_seconds": statistics.median(b for _, b in pairs),
                "plain_over_ours": statistics.median(b / a for a, b in pairs),
            }
    if args.json:
        print(json.dumps(dict(arguments=vars(args), torch=torch.__version__, result=result)))
        return
    print(
        f"{args.cells} cells, {args.channels} channels, 14x8, batch {args.batch}, "
        f"{args.size}x{args.size}; torch {torch.__version__}, threads {args.threads}, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'':24}{'CPU s':>10}{'plain':>10}{'ratio':>10}{'images/s':>10}{'plain':>10}")
    for name, row in result.items():
        own, plain_seconds = row["cpu_seconds"], row["plain_cpu_seconds"]
        print(
            f"{name:24}{own:10.2f}{plain_seconds:10.2f}{row['plain_over_ours']:10.2f}"
            f"{args.batch / own:10.1f}{args.batch / plain_seconds:10.1f}"
        )


if __name__ == "__main__":
    main()
