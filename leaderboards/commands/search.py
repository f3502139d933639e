"""`onebit search`: find a cell."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from onebit.leaderboards.commands.options import (
    add_cfg_options,
    add_data,
    add_import,
    add_verb,
    cfg_options,
    data_root,
    number,
    seed,
)


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "search",
        run,
        "search for a cell of a 1-bit network",
        """\
onebit search dcp-nas --dataset mini-cifar10 --preset mini --out cell.json
onebit search cp-nas --dataset cifar10-jpeg --preset small --seed 1 --out cp_nas.json
onebit search dcp-nas --dataset cifar10 --out cell.json --options curvature=fisher
onebit search dcp-nas --dataset cifar10 --out cell.json --options curvature=fisher --resume
onebit search darts --dataset mini-cifar10 --preset mini --budget 60 --out cell.json
onebit train classification --dataset mini-cifar10 --backbone cell.json_c8_l6""",
    )
    parser.add_argument("method", metavar="METHOD", help="dcp-nas, cp-nas, bnas, abanditnas, darts, pc-darts, random")
    parser.add_argument("--dataset", required=True, metavar="D", help="of classification")
    parser.add_argument("--preset", metavar="P", help="paper, small or mini; default: as the dataset is")
    parser.add_argument(
        "--out",
        required=True,
        type=_json_file,
        metavar="CELL.json",
        help="the cell; its score history and picture go beside it",
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="S")
    parser.add_argument(
        "--work-dir", type=Path, metavar="W", help="default: work_dirs/search/<dataset, method, preset, options, seed>"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in W")
    parser.add_argument(
        "--options", nargs="+", default=[], metavar="KEY=VALUE", help="of the method, e.g. curvature=fisher"
    )
    parser.add_argument(
        "--budget",
        type=number(above=0),
        metavar="SECONDS",
        help="end in time: after as many epochs, of those that preset and method say, as fit into SECONDS",
    )
    add_data(parser)
    add_cfg_options(parser, example="space.channels=12")
    add_import(parser)


def _json_file(text: str) -> Path:
    path = Path(text)
    if path.suffix != ".json" or path.is_dir():
        raise argparse.ArgumentTypeError(f"expected the name of a .json file, got {text!r}")
    return path


def run(args) -> int:
    from onebit.commons.datasets import get_dataset
    from onebit.leaderboards.boards import default_preset

    dataset = get_dataset(args.dataset, "classification")
    preset = args.preset or default_preset(dataset)
    _require_writable(args.out)
    from onebit.classification.search.job import SearchJob, option_names

    options = option_names(cfg_options(args.options, "--options"))
    changes = cfg_options(args.cfg_options)

    from mmengine.dist import is_main_process

    from onebit.classification.search.runner import search
    from onebit.leaderboards.recording.search_record import row_name

    row = row_name(dataset.name, args.method, preset, options, changes, args.seed)
    job = SearchJob(
        method=args.method,
        dataset=dataset.name,
        preset=preset,
        seed=args.seed,
        data_root=data_root(args),
        work_dir=args.work_dir or Path("work_dirs") / "search" / row,
        resume=args.resume,
        options=options,
        cfg_options=changes,
        budget=args.budget,
    )
    outcome = search(job)
    if not is_main_process():
        return 0
    files = outcome.save(args.out)
    print(f"{args.method} on {dataset.name}, preset {preset}, seed {args.seed}")
    most = outcome.genotype.provenance.get("epochs_of_method", len(outcome.history))
    ended = f" of {most}, ended by --budget {args.budget:g}" if most > len(outcome.history) else ""
    print(f"epochs      {len(outcome.history)}{ended}, {outcome.wall_seconds:.0f} s")
    print(f"images      {outcome.images_seen}, {outcome.images_per_second:.0f} per second")
    print(f"memory      {outcome.peak_memory_bytes / 2**20:.0f} MiB at most")
    print(f"cell        {outcome.genotype.hash[:12]}, {outcome.genotype.derivation}")
    for warning in outcome.warnings:
        print(f"warning     {warning}")
    print(f"written     {', '.join(map(str, files))}")
    return 0


def _require_writable(path: Path) -> None:
    """An --out that cannot be written must not show up after hours of search."""
    from onebit.commons.errors import InputError

    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"--out {path}: {folder} is not a folder that can be written")
