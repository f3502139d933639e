"""`onebit bench`: fill a board."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from onebit.leaderboards.commands.options import (
    add_cfg_options,
    add_common,
    add_data,
    add_import,
    add_out,
    add_verb,
    cfg_options,
    comma_list,
    data_root,
    key_values,
    seed_list,
    training_options,
    whole_number,
)


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "bench",
        run,
        "train and score a board's missing rows, and write its table",
        """\
onebit bench mini-cifar10
onebit bench mini-voc --backbones resnet18_w16,dcp_nas_c8 --seeds 0,1,2
onebit bench mini-coco --detector fcos --backbones resnet18_w16,resnet18_w16_reactnet
onebit bench coco --dataset coco128 --backbones resnet18_w16_reactnet
onebit bench market1501 --recipe paper --overwrite never
onebit bench mini-voc --seeds 0,1,2 --workers 2
onebit bench imagenet --workers 8 --slurm partition=gpu time=2880 gpus=1
onebit bench search --dataset mini-cifar10 --methods dcp-nas,random --seeds 0,1,2
onebit bench ablation-training --dataset mini-cifar10 --seeds 0,1,2
onebit bench ablation-tangent --dataset mini-cifar10""",
    )
    parser.add_argument(
        "board",
        metavar="BOARD",
        help="a board, a dataset of one (mini-voc, coco128), search, or ablation-tangent, -space, -binarization or -training",
    )
    parser.add_argument("--dataset", metavar="D", help="default: the dataset the board is named after")
    parser.add_argument(
        "--backbones", type=comma_list, metavar="A,B", help="default: real-valued, XNOR, Bi-Real, ReActNet, DCP-NAS"
    )
    parser.add_argument("--recipe", metavar="R", help="default: mini, small or paper, as the dataset is")
    parser.add_argument("--seeds", type=seed_list, default=[0], metavar="0,1,2")
    parser.add_argument(
        "--overwrite",
        choices=("only-missing", "always", "never"),
        default="only-missing",
        help="only-missing: skip finished rows; always: run all again; never: refuse if one exists",
    )
    parser.add_argument("--retry-failed", action="store_true", help="run rows again that are recorded as failed")
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=Path("work_dirs"),
        metavar="W",
        help="checkpoints and logs (default: ./work_dirs)",
    )
    parser.add_argument(
        "--workers",
        type=whole_number(),
        default=1,
        metavar="N",
        help="rows to run at the same time, each with its share of the processors (default: 1)",
    )
    parser.add_argument(
        "--slurm",
        nargs="*",
        metavar="KEY=VALUE",
        help="run rows as Slurm jobs, at most --workers of them at once if that is above 1; takes "
        "partition, time (minutes), gpus, cpus, mem (GB), cluster=local (try it without Slurm)",
    )
    parser.add_argument(
        "--search-options",
        nargs="+",
        metavar="KEY=VALUE",
        help="override the preset of an ablation's searches, e.g. schedule.epochs=2",
    )
    add_data(parser)
    add_out(parser)
    add_common(parser)
    add_cfg_options(parser)
    add_import(parser)
    search = parser.add_argument_group("the board of searches: a row searches and trains its cell")
    search.add_argument("--methods", type=comma_list, metavar="M,M", help="default: all that `onebit search` knows")
    search.add_argument("--preset", metavar="P", help="default: mini, small or paper, as the dataset is")
    search.add_argument("--options", nargs="+", default=[], metavar="KEY=VALUE", help="of the methods")


def run(args) -> int:
    from onebit.commons.errors import InputError
    from onebit.leaderboards.ablations import PREFIX, get_ablation
    from onebit.leaderboards.boards import default_preset
    from onebit.leaderboards.running.ablation_bench import AblationSweep, bench_ablation
    from onebit.leaderboards.running.pools import slurm_parameters
    from onebit.leaderboards.running.sweep import bench
    from onebit.leaderboards.showing.tables import get_table

    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise InputError(
            "`onebit bench` runs in one process, which writes the records; `torchrun` is for `onebit train`"
        )
    if args.slurm is not None:
        args.slurm = key_values("--slurm", args.slurm)
        slurm_parameters(args.slurm)  # a wrong one is refused before anything is looked for
    if args.board == "search":
        sweep = _search_sweep(args)
        return report(sweep, bench(sweep), get_table("search"))
    ablation = get_ablation(args.board) if args.board.startswith(PREFIX) else None
    searches = bool(ablation) and ablation.searches
    _refuse(
        args,
        ("methods", "options", *(() if searches else ("preset", "search_options"))),
        f"is for benches that search, not for {args.board}",
    )
    if searches and args.slurm is not None:
        raise InputError(f"{ablation.name} searches in this process: leave out --slurm")
    rows = _board_sweep(args, ablation)
    if ablation is None:
        return report(rows, bench(rows), get_table(args.board))
    changes = cfg_options(args.search_options or [], "--search-options")
    of_ablation = AblationSweep(ablation, rows, args.preset or default_preset(rows.dataset), changes)
    return report(of_ablation, bench_ablation(of_ablation), get_table(args.board))


def _refuse(args, options, why: str) -> None:
    from onebit.commons.errors import InputError

    for option in options:
        if getattr(args, option):
            raise InputError(f"--{option.replace('_', '-')} {why}")


def _board_sweep(args, ablation):
    from onebit.commons.errors import InputError
    from onebit.leaderboards.ablations import default_backbones as ablation_backbones
    from onebit.leaderboards.boards import default_backbones, resolve
    from onebit.leaderboards.running.bench import BoardSweep

    if ablation:
        board, dataset = resolve(args.dataset or ablation.default_board)
        if board.task != "classification":
            raise InputError(f"{ablation.name} is of classification, not of {board.task}: name another --dataset")
    else:
        board, dataset = resolve(args.board, args.dataset)
    options = training_options(args, board.task)
    if dataset is None:
        dataset = _default_dataset(board, data_root(args))
    return BoardSweep(
        board=board,
        backbones=args.backbones or (ablation_backbones(ablation, dataset) if ablation else default_backbones(dataset)),
        recipe=args.recipe or dataset.recipe,
        retry_failed=args.retry_failed,
        **_common(args, dataset, options),
    )


def _search_sweep(args):
    from onebit.classification.search.job import option_names
    from onebit.classification.search.strategies import METHODS
    from onebit.commons.datasets import get_dataset
    from onebit.commons.errors import InputError
    from onebit.leaderboards.boards import default_preset
    from onebit.leaderboards.running.search_bench import SearchSweep

    _refuse(args, ("backbones", "recipe", "retry_failed", "search_options"), "is not for `onebit bench search`")
    if not args.dataset:
        raise InputError("`onebit bench search` needs --dataset, e.g. mini-cifar10")
    dataset = get_dataset(args.dataset, "classification")
    return SearchSweep(
        methods=args.methods or METHODS,
        preset=args.preset or default_preset(dataset),
        options=option_names(cfg_options(args.options, "--options")),
        **_common(args, dataset, training_options(args, "classification")),
    )


def _common(args, dataset, options) -> dict[str, Any]:
    """What sweeps of every kind are told."""
    return dict(
        dataset=dataset,
        seeds=args.seeds,
        data_root=data_root(args),
        out=args.out,
        work_root=args.work_dir,
        overwrite=args.overwrite,
        workers=args.workers,
        cfg_options=options,
        slurm=args.slurm,
    )


def _default_dataset(board, root: Path):
    """The board's own dataset; when it is missing, the message says which others are there."""
    from onebit.commons.datasets import DATASETS, OWN
    from onebit.commons.errors import InputError

    if board.name in OWN:
        raise InputError(
            f"which data? name it, e.g. `onebit bench folder-NAME` for NAME below {root}, or `onebit bench "
            "coco:LABELS.json` and the like (docs/own-data.md)"
        )
    try:
        DATASETS[board.name].find(root)
    except InputError as error:
        there = []
        for other in DATASETS.values():
            if other.board == board.name and other.is_there(root):
                there.append(f"`--dataset {other.name}`")
        if there:
            raise InputError(f"{error} Present for this board: {', '.join(there)}.") from error
        raise
    return DATASETS[board.name]


def report(sweep, results, table) -> int:
    """Run a sweep, say what becomes of each row, write and print its table; 1 where a row failed.

    Args:
        results: records of the sweep, each with whether it was run now.
    """
    from onebit.commons.files import remove_stale
    from onebit.leaderboards.running.locks import holding

    failed = 0
    for done, (record, run_now) in enumerate(results, start=1):
        name = f"[{done}/{sweep.total}] {sweep.label(record)}"
        if error := getattr(record, "error", None):
            failed += 1
            print(f"{name}: FAILED: {error}{'' if run_now else ' (--retry-failed runs it again)'}", flush=True)
        else:
            how = f"{record.wall_seconds:.0f} s" if run_now else "already done"
            value = 100 * record.metrics[record.main_metric]
            print(f"{name}: {record.main_metric} {value:.1f} %, {how}", flush=True)
    folder = sweep.out / "tables"
    with holding(folder / f"{table.name}.csv"):  # or a slower sweep could write an older table
        remove_stale(folder, f"{table.name}.csv")
        lines = table.lines(table.load(sweep.records))
        path = table.write(lines, folder)
    print(f"\n{table.name}\n{table.render(lines, 'text')}")
    print(f"records  {table.place(sweep.records)}\nCSV      {path}", flush=True)
    return 1 if failed else 0
