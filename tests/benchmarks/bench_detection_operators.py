"""What NMS and RoIAlign in plain torch cost inside a detector, and beside the compiled ones.

    python tests/benchmarks/bench_detection_operators.py [--size 256 256] [--threads 1]
    python tests/benchmarks/bench_detection_operators.py --compiled FOLDER

The detector is the VOC board's Faster R-CNN (recipe ``paper``) with drawn weights, images and
boxes: a training step (forward, backward, SGD update) and a prediction. Each operator is timed where
the detector calls it.

FOLDER holds a compiled mmcv 2.1.0 (``pip install --no-deps --target FOLDER mmcv==2.1.0``, built for
this torch). The comparison runs in a process of its own with that mmcv first on its path; its
operators and ours then take turns within that process, so that a busy machine slows both alike, and
what is compared is the median of the paired ratios. With ``--threads 1`` the ratios of processor time
hold even where other processes take most of the machine.
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

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch

OPERATORS = ("nms", "roi_align_forward", "roi_align_backward")
PARTS = ("training step", "prediction")


class Clock:
    """Seconds by the clock and of the processor, since it was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.start[0], time.process_time() - self.start[1]


class Operators:
    """Puts operators into ``mmcv._ext``, each with a clock of its own."""

    def __init__(self, extension, functions: dict) -> None:
        self.extension, self.functions = extension, functions
        self.spent = dict.fromkeys(functions, (0.0, 0.0))

    def install(self) -> None:
        for name, function in self.functions.items():
            setattr(self.extension, name, self._timed(name, function))
        self.spent = dict.fromkeys(self.functions, (0.0, 0.0))

    def _timed(self, name: str, function):
        def operator(*args, **kwargs):
            clock = Clock()
            result = function(*args, **kwargs)
            self.spent[name] = tuple(map(sum, zip(self.spent[name], clock.read(), strict=True)))
            return result

        return operator


class Detector:
    """The detector, its optimizer and one batch."""

    def __init__(self, args: argparse.Namespace) -> None:
        from onebit import detection  # noqa: F401  first: MMDetection cannot be imported without its operators

        # ruff: isort: split
        from mmdet.registry import MODELS
        from mmdet.structures import DetDataSample
        from mmdet.utils import register_all_modules
        from mmengine.structures import InstanceData

        from onebit.commons.task import Job
        from onebit.detection.config import build_config

        register_all_modules(init_default_scope=True)
        job = Job("voc", args.backbone, "paper", seed=0, data_root=Path(), work_dir=Path())
        torch.manual_seed(0)
        self.model = MODELS.build(build_config(job, Path()).model)
        self.model.init_weights()
        # Drawn weights say 1/21 for every class of every box, below the threshold of a detection.
        head = self.model.roi_head.bbox_head.fc_cls
        torch.nn.init.normal_(head.weight, std=0.3)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4)
        height, width = args.size
        self.images = torch.randn(args.batch, 3, height, width)
        self.samples = []
        for _ in range(args.batch):
            corner = torch.rand(args.boxes, 2) * torch.tensor([width, height]) * 0.6
            extent = (0.1 + 0.3 * torch.rand(args.boxes, 2)) * torch.tensor([width, height])
            truth = InstanceData(
                bboxes=torch.cat([corner, corner + extent], 1), labels=torch.randint(20, (args.boxes,))
            )
            sample = DetDataSample(gt_instances=truth)
            shape = dict(img_shape=(height, width), ori_shape=(height, width))
            sample.set_metainfo(dict(shape, pad_shape=(height, width), scale_factor=(1.0, 1.0)))
            self.samples.append(sample)

    def run(self, part: str) -> None:
        torch.manual_seed(1)  # the same boxes are sampled for either set of operators
        if part == "prediction":
            with torch.no_grad():
                self.model.eval().predict(self.images, self.samples)
            return
        self.optimizer.zero_grad(set_to_none=True)
        losses, _ = self.model.parse_losses(self.model.train().loss(self.images, self.samples))
        losses.backward()
        self.optimizer.step()


def measure(args: argparse.Namespace) -> dict:
    """Time the operators of this process's mmcv, and where those are compiled, ours as well."""
    torch.set_num_threads(args.threads)
    detector = Detector(args)
    from mmcv import _ext as extension

    from onebit.detection import operators, plain_operators

    sets = {"fallback": {name: getattr(plain_operators, name) for name in OPERATORS}}
    if operators.operator_status()["nms"] == "native":
        sets["compiled"] = {name: getattr(extension, name) for name in OPERATORS}
    elif args.compiled:
        sys.exit(f"{args.compiled} has no mmcv with compiled operators for this Python and torch")
    installed = {name: Operators(extension, functions) for name, functions in sets.items()}
    times: dict = {part: {name: [] for name in sets} for part in PARTS}
    for repetition in range(args.repeat + 1):
        for part in PARTS:
            for name, operator_set in installed.items():
                operator_set.install()
                clock = Clock()
                detector.run(part)
                spent = {"whole": clock.read(), **operator_set.spent}
                if repetition:  # the first one warms up
                    times[part][name].append(spent)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return dict(times=times, torch=torch.__version__, peak_mib=peak, load=os.getloadavg()[0])


def in_a_process_of_its_own(args: argparse.Namespace, argv: list[str]) -> dict:
    environment = dict(os.environ)
    if args.compiled:
        folder = str(Path(args.compiled).resolve())
        environment["PYTHONPATH"] = os.pathsep.join([folder, environment.get("PYTHONPATH", "")])
    command = [sys.executable, __file__, *argv, "--measure"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip() or f"{' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def median(rows: list[dict], key: str, clock: int) -> float:
    return statistics.median(row[key][clock] for row in rows)


def report(result: dict, args: argparse.Namespace) -> str:
    height, width = args.size
    lines = [
        f"Faster R-CNN, {args.backbone}, {args.batch} x {height}x{width}, {args.boxes} boxes an image; "
        f"torch {result['torch']}, threads {args.threads}, load {result['load']:.1f}, "
        f"{args.repeat} of each in turns, peak {result['peak_mib']:.0f} MiB"
    ]
    for part, by_set in result["times"].items():
        lines.append(f"\n{part:22}{'wall ms':>10}{'CPU ms':>10}{'share of CPU':>14}")
        for name, rows in by_set.items():
            whole = median(rows, "whole", 1)
            for key in ("whole", *OPERATORS):
                wall, cpu = (1000 * median(rows, key, clock) for clock in (0, 1))
                if cpu or wall:
                    share = cpu / 1000 / whole
                    label = name if key == "whole" else f"  {key}"
                    lines.append(f"{label:22}{wall:10.1f}{cpu:10.1f}{share:13.1%}")
        if "compiled" in by_set:
            wall, cpu = (
                statistics.median(
                    ours["whole"][clock] / theirs["whole"][clock]
                    for ours, theirs in zip(by_set["fallback"], by_set["compiled"], strict=True)
                )
                for clock in (0, 1)
            )
            lines.append(f"fallback over compiled: wall {wall:.2f}, CPU {cpu:.2f}   aim: at most 1.30")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--boxes", type=int, default=8, help="objects in an image")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compiled", metavar="FOLDER", help="a folder with a compiled mmcv")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.measure:
        print(json.dumps(measure(args)))
        return
    result = in_a_process_of_its_own(args, argv)
    print(json.dumps(result, indent=2) if args.json else report(result, args))


if __name__ == "__main__":
    main()
