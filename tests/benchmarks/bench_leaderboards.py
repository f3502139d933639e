"""How long the commands of a big leaderboard take, each in a process of its own.

    python tests/benchmarks/bench_leaderboards.py --repeat 5

The records are copies of a committed one under other names and seeds with other values, so that every
line is compared by a test of its own. Times are of the whole
command, from the start of the interpreter to its end; the least of the repeats is printed, then the
median, with the processor time beside: on a busy machine the clock on the wall says little.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from onebit.commons.datasets import DATASETS
from onebit.leaderboards.recording.record import Record

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "leaderboards" / "records" / "coco" / "coco128--resnet18_w16_reactnet--small--seed0.json"
SEEDS_PER_ROW = 5


def write_records(out: Path, rows: int) -> list[str]:
    """Write ``rows`` records of some kilobytes each; return the names of their backbones."""
    model = Record.load(MODEL)
    generator = random.Random(0)
    backbones = [f"resnet18_w{4 * i}_reactnet" for i in range(1, rows // SEEDS_PER_ROW + 1)]
    for backbone in backbones:
        for seed in range(SEEDS_PER_ROW):
            metrics = {k: generator.random() for k in model.metrics}
            changes = dict(backbone=backbone, seed=seed, metrics=metrics)
            model.model_copy(update=changes).save(out / "records")
    return backbones


def timed(repeat: int, *arguments: object) -> tuple[list[float], list[float]]:
    """Seconds on the wall and of the processor of `onebit` with these arguments."""
    command = [sys.executable, "-m", "onebit", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    wall, processor = [], []
    for _ in range(repeat):
        before, used = time.perf_counter(), _children()
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        wall.append(time.perf_counter() - before)
        processor.append(_children() - used)
    return wall, processor


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def report(name: str, wall: list[float], processor: list[float]) -> None:
    print(
        f"{name:<44} {min(wall):5.2f} {statistics.median(wall):6.2f} wall"
        f" {min(processor):6.2f} {statistics.median(processor):6.2f} CPU",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--table-records", type=int, default=2000)
    parser.add_argument("--finished-rows", type=int, default=500)
    args = parser.parse_args()
    print(f"{'seconds, least and median of ' + str(args.repeat):<44}")
    with tempfile.TemporaryDirectory() as folder:
        big, finished = Path(folder) / "big", Path(folder) / "finished"
        write_records(big, args.table_records)
        for form in ("text", "csv", "markdown", "latex", "html"):
            name = f"table of {args.table_records} records, {form}"
            report(name, *timed(args.repeat, "table", "coco", "--format", form, "--records", big / "records"))
        where = "--records", big / "records"
        report(
            f"plot of {args.table_records} records",
            *timed(args.repeat, "plot", "coco128", "--out", Path(folder) / "plot.svg", *where),
        )
        report(f"site of {args.table_records} records", *timed(args.repeat, "site", Path(folder) / "site", *where))
        backbones = write_records(finished, args.finished_rows)
        dataset = DATASETS["coco128"]
        for required in dataset.required:
            (Path(folder) / "data" / dataset.folders[0] / required).mkdir(parents=True)
        arguments = (
            "bench",
            "coco128",
            "--backbones",
            ",".join(backbones),
            "--recipe",
            "small",
            "--seeds",
            ",".join(map(str, range(SEEDS_PER_ROW))),
            "--data",
            Path(folder) / "data",
            "--out",
            finished,
            "--work-dir",
            Path(folder) / "work",
        )
        name = f"bench, only-missing, {args.finished_rows} finished rows"
        report(name, *timed(args.repeat, *arguments))


if __name__ == "__main__":
    main()
