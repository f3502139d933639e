"""Training step of every binarizer against the same network real-valued: time and memory.

    python tests/benchmarks/bench_binarizers.py [--backbone resnet18_w32] [--threads 1]
    python tests/benchmarks/bench_binarizers.py --backbone resnet18 --batch 64 \
        --binarizers xnor,bireal,reactnet,mcn

A step is forward, the losses of the method, backward and update. The networks take turns within
one process, so that a busy machine slows all of them alike; what is compared is the median of the
ratios to the real-valued step of the same turn. Memory: `peak` is what three steps add to the
resident memory of a process of their own, in which the C allocator gives large blocks back; `kept`
is what one forward pass keeps for backward, counted exactly; `inputs` the part of it that belongs
to the inputs of 1-bit convolutions, in bytes per value (the straightforward version keeps the
float input and its float sign: 8). `+pack` is a network after `onebit.backbones.pack_activations`.
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
from onebit.backbones.binarization import BINARIZERS

REAL, PACK = "real-valued", "+pack"
#: What most rows of the papers use; their aim is 1.10, that of the others 1.25.
COMMON = ("xnor", "bireal", "reactnet", "mcn")


class Classifier(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        channels = backbone.feature_channels[-1]
        self.fc = nn.Linear(channels, 10)
        self.feature_losses = backbones.losses.feature_losses(backbone, channels, 10)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        features = self.backbone(images)[-1].mean((2, 3))
        for feature_loss in self.feature_losses:
            feature_loss(features, labels)
        loss = nn.functional.cross_entropy(self.fc(features), labels)
        return loss + sum(backbones.method_losses(self).values())


class Trainer:
    """A network, its optimizer and one batch."""

    def __init__(self, variant: str, args: argparse.Namespace) -> None:
        torch.manual_seed(0)
        binarizer = None if variant == REAL else variant.removesuffix(PACK)
        network = backbones.create_backbone(args.backbone, stem=args.stem, out_indices=(3,), binarizer=binarizer)
        self.model = Classifier(network).train()
        if variant.endswith(PACK):
            backbones.pack_activations(network)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        self.images = torch.randn(args.batch, 3, args.size, args.size)
        self.labels = torch.randint(10, (args.batch,))

    def step(self) -> tuple[float, float]:
        """One step; returns seconds by the clock and of the processor."""
        start, cpu_start = time.perf_counter(), time.process_time()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.loss(self.images, self.labels).backward()
        self.optimizer.step()
        return time.perf_counter() - start, time.process_time() - cpu_start

    def kept(self) -> tuple[int, float]:
        """Bytes that one forward pass keeps for backward, and those of 1-bit convolutions' inputs.

        A tensor that several operations keep counts once; parameters and buffers do not count. The
        second number is per value of these inputs.
        """
        held = {t.untyped_storage().data_ptr() for t in (*self.model.parameters(), *self.model.buffers())}
        storages: dict[int, Tensor] = {}  # keeping the tensors keeps their addresses apart
        inputs: dict[int, Tensor] = {}
        state = dict(inside=False, values=0)

        def save(t: Tensor) -> Tensor:
            key = t.untyped_storage().data_ptr()
            if key not in held:
                storages[key] = t
                if state["inside"]:
                    inputs[key] = t
            return t

        def enter(conv, arguments):
            state["inside"] = conv.quantize_input is not None
            if state["inside"]:
                state["values"] += arguments[0].numel()
                state["weight"] = conv.weight.shape

        def leave(conv, arguments, output):
            state["inside"] = False

        hooks = []
        for conv in self.model.modules():
            if isinstance(conv, backbones.OneBitConv2d):
                hooks.append(conv.register_forward_pre_hook(enter))
                hooks.append(conv.register_forward_hook(leave))
                # What the quantizer of weights keeps is no input.
                hooks.append(conv.quantize_weight.register_forward_pre_hook(lambda *_: state.update(inside=False)))
                hooks.append(
                    conv.quantize_weight.register_forward_hook(
                        lambda *_, conv=conv: state.update(inside=conv.quantize_input is not None)
                    )
                )
        shapes = {m.weight.shape for m in self.model.modules() if isinstance(m, backbones.OneBitConv2d)}
        with torch.autograd.graph.saved_tensors_hooks(save, lambda t: t):
            loss = self.model.loss(self.images, self.labels)
        for hook in hooks:
            hook.remove()
        del loss
        bytes_of_inputs = sum(t.untyped_storage().nbytes() for t in inputs.values() if t.shape not in shapes)
        total = sum(t.untyped_storage().nbytes() for t in storages.values())
        return total, bytes_of_inputs / state["values"] if state["values"] else float("nan")


def peak_rss_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_of(variant: str, args: argparse.Namespace) -> dict:
    before = peak_rss_mib()
    trainer = Trainer(variant, args)
    for _ in range(3):
        trainer.step()
    peak = peak_rss_mib() - before
    kept, per_value = trainer.kept()
    return dict(peak_mib=peak, kept_mib=kept / 2**20, bytes_per_input=per_value)


def measure_memory(variant: str, argv: list[str]) -> dict:
    command = [sys.executable, __file__, *argv, "--memory-of", variant]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)


def measure_time(variants: list[str], args: argparse.Namespace) -> dict[str, dict]:
    trainers = {variant: Trainer(variant, args) for variant in variants}
    for trainer in trainers.values():
        trainer.step()
    steps = {variant: [] for variant in variants}
    for _ in range(args.repeat):
        for variant, trainer in trainers.items():
            steps[variant].append(trainer.step())
    result = {}
    for variant in variants:
        pairs = list(zip(steps[variant], steps[REAL], strict=True))
        result[variant] = {
            f"{clock}_ms": 1000 * statistics.median(step[i] for step in steps[variant])
            for i, clock in enumerate(("wall", "cpu"))
        } | {
            f"{clock}_ratio": statistics.median(ours[i] / real[i] for ours, real in pairs)
            for i, clock in enumerate(("wall", "cpu"))
        }
    return result


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--backbone", default="resnet18_w32", help="a real-valued backbone")
    parser.add_argument("--binarizers", default=",".join(BINARIZERS), help="comma-separated names")
    parser.add_argument("--stem", default="cifar", choices=("cifar", "imagenet"))
    parser.add_argument("--size", type=int, default=32, help="image height and width")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=7, help="steps of each network")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-memory", action="store_true", help="time only")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(json.dumps(memory_of(args.memory_of, args)))
        return
    variants = [REAL]
    for name in args.binarizers.split(","):
        variants.append(name)
        if backbones.get_binarizer(name).input is not None:
            variants.append(name + PACK)
    # First, while this process is small: a child's peak starts from its parent's size.
    memory = {} if args.no_memory else {v: measure_memory(v, argv) for v in variants}
    result = measure_time(variants, args)
    for variant, values in memory.items():
        result[variant].update(values)
        result[variant]["peak_ratio"] = values["peak_mib"] / memory[REAL]["peak_mib"]
    if args.json:
        print(json.dumps(dict(arguments=vars(args), torch=torch.__version__, result=result), indent=2))
        return
    print(f"{args.backbone}, {args.stem} stem, batch {args.batch}, {args.size}x{args.size}")
    print(
        f"torch {torch.__version__}, threads {args.threads}, load {os.getloadavg()[0]:.1f}, "
        f"{args.repeat} steps of each in turns"
    )
    print("| network | wall ms | CPU ms | wall ratio | CPU ratio | peak MiB | ratio | kept MiB | inputs B | aim |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---|")
    for variant in variants:
        print(table_row(variant, result[variant]))


def table_row(variant: str, values: dict) -> str:
    cells = [f"{values[k]:.{d}f}" for k, d in (("wall_ms", 0), ("cpu_ms", 0), ("wall_ratio", 2), ("cpu_ratio", 2))]
    memory = (("peak_mib", 0), ("peak_ratio", 2), ("kept_mib", 0), ("bytes_per_input", 2))
    cells += [f"{values[k]:.{d}f}" if k in values else "" for k, d in memory]
    aim = 1.10 if variant in COMMON else 1.25
    verdict = ""
    if variant != REAL and not variant.endswith(PACK):
        missed = [k for k in ("cpu_ratio", "peak_ratio") if values.get(k, 0) > aim]
        names = dict(cpu_ratio="time", peak_ratio="memory")
        verdict = f"{aim:.2f} " + (f"missed: {', '.join(names[k] for k in missed)}" if missed else "met")
    return f"| {variant} | " + " | ".join(cells) + f" | {verdict} |"


if __name__ == "__main__":
    main()
