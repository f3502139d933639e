"""Which setting tells cells apart at the least cost: the pilot of the table of trained cells.

    python tests/benchmarks/bench_cells_pilot.py --data data --work-dir work_dirs/cells-pilot --cells 8 --seeds 2
    python tests/benchmarks/bench_cells_pilot.py --work-dir work_dirs/cells-pilot --show

Each setting trains the same random cells with the same seeds. Printed are the deviation between cells (the variance of
their means less what seeds add to it), that between seeds, the ratio of the variances, the processor seconds of a training,
and the ratio for an hour of one core, by which settings are compared. One setting after the other takes its next cell, so
that an interrupted pilot compares equal numbers; the same command goes on. With ``--table`` the trainings of the first
setting are those of that table, which `onebit cells-table train` fills.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd

from onebit.backbones import Genotype
from onebit.classification.cells_table import table
from onebit.classification.cells_table.training import Images, Setting, get_setting, load_images, train
from onebit.commons.datasets import default_data_root
from onebit.leaderboards.showing.cells_table import variances

BASE = get_setting("cifar10-jpeg")
SETTINGS = {
    "8x8, 10000 images, 5 epochs": BASE,
    "8x8, 5000 images, 4 epochs": replace(BASE, train_images=5_000, epochs=4),
    "16x16, 5000 images, 4 epochs": replace(BASE, image_size=16, padding=2, train_images=5_000, epochs=4),
    "8x8, 16 channels, 10000 images, 3 epochs": replace(BASE, channels=16, epochs=3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=default_data_root())
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/cells-pilot"))
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--table", type=Path, help="a table of trained cells")
    parser.add_argument("--show", action="store_true", help="train nothing")
    args = parser.parse_args()
    args.work_dir.mkdir(parents=True, exist_ok=True)
    found = {name: _read(args, setting) for name, setting in SETTINGS.items()}
    images: dict[str, Images] = {}
    for cell in range(1000, 1000 + args.cells):
        for name, setting in SETTINGS.items():
            for seed in range(args.seeds):
                if args.show or (args.table and setting == BASE):
                    continue
                if any((line["cell"], line["seed"]) == (cell, seed) for line in found[name]):
                    continue
                if name not in images:
                    images[name] = load_images(setting, args.data)
                result = train(Genotype.random(cell), seed, setting, images[name])
                line = dict(cell=cell, seed=seed, **asdict(result))
                with open(_path(args, setting), "a") as stream:
                    stream.write(json.dumps(line) + "\n")
                    stream.flush()
                    os.fsync(stream.fileno())
                found[name].append(line)
                print(
                    f"{name}: random_{cell} seed {seed} valid {result.valid[-1]:.4f} {result.seconds:.0f} s", flush=True
                )
    for name, lines in found.items():
        _show(name, lines)


def _path(args: argparse.Namespace, setting: Setting) -> Path:
    return args.work_dir / f"{setting.hash}.jsonl"


def _read(args: argparse.Namespace, setting: Setting) -> list[dict]:
    path = _path(args, setting)
    lines = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
    if setting == BASE and args.table:
        last = f"valid_{setting.epochs}"
        lines = [
            dict(cell=int(own["name"].split("_")[1]), seed=own["seed"], valid=[own[last]], seconds=own["seconds"])
            for own in table.read(args.table)
            if own["kind"] == "random"
        ]
    wanted = range(1000, 1000 + args.cells), range(args.seeds)
    return [line for line in lines if line["cell"] in wanted[0] and line["seed"] in wanted[1]]


def _show(name: str, lines: list[dict]) -> None:
    frame = pd.DataFrame(
        dict(kind="random", genotype_hash=line["cell"], seed=line["seed"], valid=line["valid"][-1]) for line in lines
    )
    if frame.empty:
        print(f"{name}: nothing yet")
        return
    between, within = variances(frame, "valid")
    seconds = sum(line["seconds"] for line in lines) / len(lines)
    said = f"{name}: {len(frame)} trainings, valid {100 * frame.valid.mean():.2f} %, {seconds:.0f} s each"
    if within:
        said += (
            f", deviation between cells {100 * between**0.5:.2f}, between seeds {100 * within**0.5:.2f} points, ratio of "
            f"variances {between / within:.2f}, for a core hour {between / within * 3600 / seconds:.0f}"
        )
    print(said)


if __name__ == "__main__":
    main()
