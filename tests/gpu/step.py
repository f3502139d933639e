"""Time and memory of one training step: real-valued against 1-bit, eager against a CUDA graph and compiled.

    python tests/gpu/step.py --out step.json --seconds 90
    python tests/gpu/step.py --out step.json --smoke            small, on any machine

Each case is a network with a linear classifier, cross-entropy, SGD with momentum. Times are medians of
repeated steps, by CUDA events on a GPU. A case that fails is kept with its error. Compiling is tried
last, as far as the time allows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from onebit import backbones
from onebit.backbones.classifier import Classifier

NETWORKS = ("resnet18", "resnet18_reactnet", "dcp_nas_s")


class Step:
    """One training step of a network on images that stay where they are."""

    def __init__(self, name: str, size: int, batch: int, precision: str, device: str) -> None:
        torch.manual_seed(0)
        stem = "cifar" if size < 100 else "imagenet"
        backbone = backbones.create_backbone(name, out_indices=(3,), stem=stem)
        self.network = Classifier(backbone, 10).to(device, memory_format=torch.channels_last).train()
        # Gradients that stay allocated can be captured; one fused kernel updates all parameters.
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-3, momentum=0.9, foreach=True)
        images = torch.randn(batch, 3, size, size, device=device)
        self.images = images.to(memory_format=torch.channels_last)
        self.labels = torch.randint(10, (batch,), device=device)
        self.precision, self.device = precision, device

    def __call__(self) -> None:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"):
            loss = nn.functional.cross_entropy(self.network(self.images), self.labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def captured(self):
        """The same step as one CUDA graph."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self()
        return graph.replay

    def compiled(self, mode: str):
        self.network.compile(mode=mode)
        return self


def milliseconds(step, device: str, repeats: int) -> float:
    """Median over single steps."""
    times = []
    for _ in range(3):
        step()
    for _ in range(repeats):
        if device == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            step()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        else:
            begin = time.perf_counter()
            step()
            times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times)


def kernels_of(step, repeats: int = 3) -> dict:
    """What the kernels of one step take on a GPU, without the gaps in which it waits for the host; the heaviest ten."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(repeats):
            step()
        torch.cuda.synchronize()
    on_gpu = [e for e in profile.key_averages() if e.device_type == torch.autograd.DeviceType.CUDA]
    milliseconds = {e.key: e.self_device_time_total / repeats / 1e3 for e in on_gpu}
    heaviest = sorted(on_gpu, key=lambda e: -milliseconds[e.key])[:10]
    return dict(
        kernels_ms=round(sum(milliseconds.values()), 3),
        launches=round(sum(e.count for e in on_gpu) / repeats),
        heaviest=[
            dict(kernel=e.key[:120], ms=round(milliseconds[e.key], 3), times=e.count // repeats) for e in heaviest
        ],
    )


def measure(case: dict, device: str, repeats: int) -> dict:
    """The case with its time and peak memory, or with the error it ended in."""
    found = dict(case)
    try:
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        step = Step(case["network"], case["size"], case["batch"], case["precision"], device)
        run = step
        began = time.perf_counter()
        if case["mode"] == "graph":
            run = step.captured()
        elif case["mode"] != "eager":
            torch._dynamo.reset()
            run = step.compiled(case["mode"])
            run()
            found["compile_s"] = round(time.perf_counter() - began, 1)
        found["ms"] = round(milliseconds(run, device, repeats), 3)
        found["images_per_s"] = round(1e3 * case["batch"] / found["ms"])
        if device == "cuda":
            found["peak_MiB"] = round(torch.cuda.max_memory_allocated() / 2**20)
            found |= kernels_of(run)
    except Exception as error:  # what fails is a result, too
        found["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return found


def cases(smoke: bool, cuda: bool):
    if smoke:
        names, shapes, modes = ("resnet18_w8", "resnet18_w8_reactnet", "dcp_nas_c4_l3"), [(32, 8)], ("eager",)
        yield from (
            dict(network=n, size=s, batch=b, precision=p, mode=m)
            for (s, b), m, p, n in itertools.product(shapes, modes, ("float32", "bf16"), names)
        )
        return
    modes = ("eager", "graph") if cuda else ("eager",)
    for (size, batch), precision in itertools.product([(32, 128), (32, 1024), (224, 128)], ("float32", "bf16")):
        for mode, name in itertools.product(modes, NETWORKS):
            yield dict(network=name, size=size, batch=batch, precision=precision, mode=mode)
        if (size, batch) == (32, 128):  # a network takes a minute to compile
            for mode, name in itertools.product(("default", "reduce-overhead"), NETWORKS[:2]):
                yield dict(network=name, size=size, batch=batch, precision=precision, mode=mode)
    yield dict(network=NETWORKS[2], size=32, batch=128, precision="float32", mode="default")


def markdown(results: list[dict]) -> str:
    """One line per network and shape, modes side by side, ratios to the real-valued network."""
    key = lambda r: (r["size"], r["batch"], r["precision"], r["mode"])  # noqa: E731
    real = {key(r): r.get("ms") for r in results if "_" not in r["network"] or r["network"] == "resnet18_w8"}
    lines = [
        "| network | input | batch | precision | mode | ms | of it kernels | images/s | peak MiB | over real-valued |",
        "|---|---|---:|---|---|---:|---:|---:|---:|---:|",
    ]
    for r in results:
        ratio = r["ms"] / real[key(r)] if r.get("ms") and real.get(key(r)) else None
        lines.append(
            f"| {r['network']} | {r['size']} | {r['batch']} | {r['precision']} | {r['mode']} | {r.get('ms', r.get('error'))} "
            f"| {r.get('kernels_ms', '-')} | {r.get('images_per_s', '-')} | {r.get('peak_MiB', '-')} | {f'{ratio:.2f}' if ratio else '-'} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("step.json"))
    parser.add_argument("--seconds", type=float, default=90, help="no case begins after this time")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    cuda = torch.cuda.is_available()
    device, begin, results = "cuda" if cuda else "cpu", time.monotonic(), []
    torch.backends.cudnn.benchmark = True
    for case in cases(args.smoke, cuda):
        if time.monotonic() - begin > args.seconds:
            print("out of time", flush=True)
            break
        results.append(measure(case, device, 3 if args.smoke else 20))
        print(json.dumps(results[-1]), flush=True)
        about = dict(device=torch.cuda.get_device_name() if cuda else "cpu", torch=torch.__version__, results=results)
        args.out.write_text(json.dumps(about, indent=1))
        args.out.with_suffix(".md").write_text(markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
