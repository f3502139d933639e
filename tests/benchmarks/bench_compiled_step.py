"""Time of a training step, compiled by torch.compile against eager, on the CPU.

    python tests/benchmarks/bench_compiled_step.py [--networks resnet18_reactnet,dcp_nas_c16] [--repeat 7]

The step is forward, cross-entropy, backward and SGD update at 32x32. Both forms take turns in one process, on one
thread; medians of wall and of processor time, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn

from onebit import backbones
from onebit.backbones.classifier import Classifier


def build(name: str, batch: int):
    torch.manual_seed(0)
    network = Classifier(backbones.create_backbone(name, out_indices=(3,), stem="cifar"), 10)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    images, labels = torch.randn(batch, 3, 32, 32), torch.arange(batch) % 10

    def step() -> float:
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return network, step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="resnet18_reactnet,dcp_nas_c16")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| network | eager, wall ms | compiled, wall ms | eager, CPU ms | compiled, CPU ms | ratio of CPU | compiling, s |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in options.networks.split(","):
        _, eager = build(name, options.batch)
        network, compiled = build(name, options.batch)
        network.backbone.compile(fullgraph=True)
        begin = time.perf_counter()
        losses = [step() for step in (eager, compiled)]
        seconds = time.perf_counter() - begin
        assert abs(losses[0] - losses[1]) < 1e-2 * losses[0], losses
        times: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        for _ in range(options.repeat):
            for is_compiled, step in ((False, eager), (True, compiled)):
                begin = time.perf_counter(), time.process_time()
                step()
                times[is_compiled].append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
        wall, cpu = ([1e3 * statistics.median(t[k] for t in times[c]) for c in (False, True)] for k in (0, 1))
        ratio = statistics.median(c[1] / e[1] for e, c in zip(times[False], times[True], strict=True))
        numbers = " | ".join(f"{value:.0f}" for value in (*wall, *cpu))
        print(f"| `{name}` | {numbers} | {ratio:.2f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
