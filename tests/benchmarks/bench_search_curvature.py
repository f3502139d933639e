"""What the curvature of DCP-NAS costs, and whether the cheap ones are like the exact one.

    python tests/benchmarks/bench_search_curvature.py step      # one architecture step of each kind
    python tests/benchmarks/bench_search_curvature.py memory    # peak of each, in its own process
    python tests/benchmarks/bench_search_curvature.py round     # a whole round against DARTS
    python tests/benchmarks/bench_search_curvature.py agreement --images /data/cifar10-jpeg

``step``: the Child's architecture step under each curvature against a first-order step on the same
two supernets: the gradients of Parent and Child to their architecture parameters and the Child's
step, with nothing of second order. The kinds take turns in one process; what is compared is the
median of paired ratios of processor time. Of the explicit matrix only ``--rows`` rows are made,
since each costs as much as a Hessian-vector product; the time of all of them is the time of these
rows times all rows over these rows, added to that of the gradient.

``round``: steps of weights and architecture of Parent and Child, against as many of first-order
DARTS on a real-valued and a 1-bit supernet of the same size.

``agreement``: along a search by DCP-NAS, cosine and relative length of F(v) under ``fisher`` and
``ggn`` against ``hessian``, v = gC - gP of that moment. ``--images`` is a folder of
``train/<class>/*`` images of 32x32; without it images are noise, good for times only.
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
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from onebit.classification.search.architecture import operation_weights
from onebit.classification.search.curvature import CURVATURES, Curvature
from onebit.classification.search.space import SearchSpace
from onebit.classification.search.strategies import Report, Schedule, SearchData, get_strategy
from onebit.classification.search.strategies.darts import descend
from onebit.classification.search.strategies.dcp_nas import DCPNAS

FIRST_ORDER = "first-order"
Batch = tuple[Tensor, Tensor]


class FirstFewRows(Curvature):
    """The explicit matrix, of which only the first rows are made; notes how long they took."""

    rows = 4

    def product(self, v: Tensor) -> Tensor:
        start, cpu_start = time.perf_counter(), time.process_time()
        for number in range(min(self.rows, v.numel())):
            unit = torch.zeros_like(v)
            unit.view(-1)[number] = 1
            self._row(unit)
        self.seconds = (time.perf_counter() - start, time.process_time() - cpu_start)
        return torch.zeros_like(v)


def batches(args: argparse.Namespace) -> Iterator[Batch]:
    """Batches without end, of ``--images`` or of noise."""
    if args.images:
        from onebit.classification.datasets import InMemoryImages

        source = InMemoryImages(args.images, "folder", "train")
        images, labels = source.images, source.labels
    while True:
        if not args.images:
            shape = (args.batch, 3, args.size, args.size)
            yield torch.randn(shape), torch.randint(args.classes, (args.batch,))
            continue
        for chosen in torch.randperm(len(images)).split(args.batch):
            x = images[chosen].float().sub_(127.5).div_(127.5)
            if args.size != x.shape[-1]:
                x = F.interpolate(x, (args.size, args.size), mode="area")
            yield x, labels[chosen]


def space_of(args: argparse.Namespace) -> SearchSpace:
    return SearchSpace(args.classes, args.cells, args.channels)


def dcp_nas(args: argparse.Namespace, curvature: str) -> DCPNAS:
    torch.manual_seed(0)
    options = dict(curvature=curvature, binarizer=args.binarizer, arch_lr=args.arch_lr)
    return get_strategy("dcp-nas")(space_of(args), options, Schedule())


def curvature_at(strategy: DCPNAS, kind: str, batch: Batch, parent_logits: Tensor) -> Curvature:
    make = FirstFewRows if kind == "hessian-explicit" else Curvature
    return make(
        kind,
        strategy.child,
        lambda alpha: strategy.child(batch[0], operation_weights(alpha)),
        strategy.child_alpha,
        parent_logits,
    )


def architecture_step(strategy: DCPNAS, kind: str, batch: Batch) -> tuple[float, float]:
    """One step; returns seconds by the clock and of the processor, of all rows of the matrix."""
    start, cpu_start = time.perf_counter(), time.process_time()
    _, tangent, logits = strategy._tangent_direction(batch, Report())
    first = kind == FIRST_ORDER
    curvature = curvature_at(strategy, "fisher" if first else kind, batch, logits)
    step = curvature.gradient
    if not first:
        step = step + 2 * strategy.options.lambda_ * curvature.product(step - tangent)
    optimizer = strategy.optimizers()["child_alpha"]
    descend(optimizer, [strategy.child_alpha], (step,), strategy.child_decoupling, strategy.child)
    seconds = time.perf_counter() - start, time.process_time() - cpu_start
    if isinstance(curvature, FirstFewRows):
        rows = step.numel()
        more = rows / min(curvature.rows, rows) - 1
        return tuple(s + more * r for s, r in zip(seconds, curvature.seconds, strict=True))
    return seconds


def measure_steps(args: argparse.Namespace) -> dict:
    strategy, source = dcp_nas(args, "ggn"), batches(args)
    kinds = (FIRST_ORDER, *args.kinds)
    batch = next(source)
    for kind in kinds[:2]:
        architecture_step(strategy, kind, batch)
    seconds = {kind: [] for kind in kinds}
    for _ in range(args.repeat):
        for kind in kinds:
            seconds[kind].append(architecture_step(strategy, kind, batch))
    return {
        kind: {
            "seconds": statistics.median(s[0] for s in seconds[kind]),
            "cpu_seconds": statistics.median(s[1] for s in seconds[kind]),
            "cpu_over_first_order": statistics.median(
                s[1] / f[1] for s, f in zip(seconds[kind], seconds[FIRST_ORDER], strict=True)
            ),
        }
        for kind in kinds
    }


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_of(kind: str, args: argparse.Namespace) -> dict:
    strategy, batch = dcp_nas(args, "ggn"), next(batches(args))
    before = peak_mib()
    architecture_step(strategy, kind, batch)
    return {"peak_mib": peak_mib(), "added_mib": peak_mib() - before}


def measure_memory(args: argparse.Namespace, argv: list[str]) -> dict:
    found = {}
    for kind in (FIRST_ORDER, *args.kinds):
        command = [sys.executable, __file__, *argv, "--memory-of", kind]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[kind] = json.loads(done.stdout)
    return found


def measure_rounds(args: argparse.Namespace) -> dict:
    source = batches(args)
    first = [next(source) for _ in range(args.steps)]
    data = SearchData(first, first, first)
    darts = [
        get_strategy("darts")(space_of(args), dict(binarizer=binarizer), Schedule())
        for binarizer in (None, args.binarizer)
    ]
    strategies = {"darts": darts}
    strategies |= {kind: [dcp_nas(args, kind)] for kind in args.kinds if "explicit" not in kind}
    seconds = {name: [] for name in strategies}
    for repeat in range(args.repeat + 1):
        for name, each in strategies.items():
            start = time.process_time()
            for strategy in each:
                strategy.epoch(0, data, Report())
            if repeat:  # the first one warms up
                seconds[name].append(time.process_time() - start)
    return {
        name: {
            "cpu_seconds": statistics.median(each),
            "cpu_over_first_order": statistics.median(s / f for s, f in zip(each, seconds["darts"], strict=True)),
        }
        for name, each in seconds.items()
    }


def measure_agreement(args: argparse.Namespace) -> list[dict]:
    strategy, source, found = dcp_nas(args, "ggn"), batches(args), []
    probe = next(source)
    for position in range(args.points):
        _, tangent, logits = strategy._tangent_direction(probe, Report())
        products, v = {}, None
        for kind in ("fisher", "ggn", "hessian"):
            curvature = curvature_at(strategy, kind, probe, logits)
            v = curvature.gradient - tangent if v is None else v
            products[kind] = curvature.product(v).flatten()
        exact = products["hessian"]
        row = {
            "steps": position * args.steps,
            "kl": curvature.loss.item(),
            "v": v.norm().item(),
            "hessian": exact.norm().item(),
            # How much of Eq. 15's step is tangent propagation, at the default lambda.
            "tangent_share": (2 * strategy.options.lambda_ * exact.norm() / curvature.gradient.norm()).item(),
        }
        for kind in ("fisher", "ggn"):
            row[f"{kind}_cosine"] = F.cosine_similarity(products[kind], exact, dim=0).item()
            row[f"{kind}_length"] = (products[kind].norm() / exact.norm()).item()
        found.append(row)
        if position + 1 < args.points:
            parts = [[next(source) for _ in range(args.steps)] for _ in range(2)]
            strategy.epoch(0, SearchData(*parts, parts[1]), Report())
    return found


def report(args: argparse.Namespace, result) -> None:
    print(
        f"{args.what}: {args.cells} cells, {args.channels} channels, 14x8, batch {args.batch}, "
        f"{args.size}x{args.size}, Child {args.binarizer}; torch {torch.__version__}, "
        f"threads {args.threads}, load {os.getloadavg()[0]:.1f}"
    )
    rows = result if isinstance(result, list) else [{"": k, **v} for k, v in result.items()]
    names = list(rows[0])
    print("".join(f"{name:>22}" for name in names))
    for row in rows:
        cells = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()]
        print("".join(f"{cell:>22}" for cell in cells))
    if "hessian-explicit" in args.kinds and args.what == "step":
        print(f"hessian-explicit: from {args.rows} of its {2 * 14 * 8} rows")


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=("step", "memory", "round", "agreement"))
    parser.add_argument("--cells", type=int, default=6)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--size", type=int, default=32, help="image height and width")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--binarizer", default="mcn", help="of the Child")
    parser.add_argument("--kinds", default=",".join(CURVATURES), help="separated by commas")
    parser.add_argument("--rows", type=int, default=4, help="of the explicit matrix, to be timed")
    parser.add_argument("--repeat", type=int, default=3, help="of each kind, or rounds")
    parser.add_argument("--steps", type=int, default=2, help="of a round; between two points")
    parser.add_argument("--points", type=int, default=5, help="of the search to compare at")
    parser.add_argument("--arch-lr", type=float, default=1e-4, help="of DCP-NAS")
    parser.add_argument("--images", help="a folder with train/<class>/* images of 32x32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.kinds = tuple(args.kinds.split(","))
    if unknown := set(args.kinds) - set(CURVATURES):
        parser.error(f"--kinds {', '.join(unknown)}: expected some of {', '.join(CURVATURES)}")
    FirstFewRows.rows = args.rows
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.memory_of:
        print(json.dumps(memory_of(args.memory_of, args)))
        return
    if args.what == "memory":
        result = measure_memory(args, argv)
    else:
        measure = dict(step=measure_steps, round=measure_rounds, agreement=measure_agreement)
        result = measure[args.what](args)
    if args.json:
        print(json.dumps(dict(arguments=vars(args), torch=torch.__version__, result=result)))
    else:
        report(args, result)


if __name__ == "__main__":
    main()
