"""`onebit bench`: fill a board."""

from __future__ import annotations

from pathlib import Path

from leaderboards.commands.options import (
    add_cfg_options,
    add_data,
    add_import,
    add_out,
    add_verb,
    cfg_options,
    comma_list,
    data_root,
    key_values,
    seed_list,
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
onebit bench coco --dataset coco128 --backbones resnet18_w32_reactnet
onebit bench market1501 --recipe paper --overwrite never
onebit bench mini-voc --seeds 0,1,2 --workers 2
onebit bench imagenet --workers 8 --slurm partition=gpu time=2880 gpus=1""",
    )
    parser.add_argument("board", metavar="BOARD", help="a board, or a dataset of one (mini-voc, coco128)")  # fmt: skip
    parser.add_argument(
        "--dataset", metavar="D", help="default: the dataset the board is named after"
    )
    parser.add_argument("--backbones", type=comma_list, metavar="A,B", help="default: real-valued, XNOR, Bi-Real, ReActNet, DCP-NAS")  # fmt: skip
    parser.add_argument(
        "--recipe", metavar="R", help="default: mini, small or paper, as the dataset is"
    )
    parser.add_argument("--seeds", type=seed_list, default=[0], metavar="0,1,2")
    parser.add_argument(
        "--overwrite",
        choices=("only-missing", "always", "never"),
        default="only-missing",
        help="only-missing: skip finished rows; always: run all again; never: refuse if one exists",
    )
    parser.add_argument("--retry-failed", action="store_true", help="run rows again that are recorded as failed")  # fmt: skip
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs"), metavar="W", help="checkpoints and logs (default: ./work_dirs)")  # fmt: skip
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="rows to run at the same time, each with its share of the processors (default: 1)")  # fmt: skip
    parser.add_argument(
        "--slurm",
        nargs="*",
        metavar="KEY=VALUE",
        help="run rows as Slurm jobs, at most --workers of them at once if that is above 1; takes "
        "partition, time (minutes), gpus, cpus, mem (GB), cluster=local (try it without Slurm)",
    )
    add_data(parser)
    add_out(parser)
    add_cfg_options(parser)
    add_import(parser)


def run(args) -> int:
    from commons.errors import InputError
    from leaderboards.bench import Sweep
    from leaderboards.boards import default_backbones, default_recipe, resolve

    if args.workers < 1:
        raise InputError(f"--workers takes a number from 1 up, got {args.workers}")
    board, dataset = resolve(args.board, args.dataset)
    slurm = None
    if args.slurm is not None:
        from leaderboards.pools import slurm_parameters

        slurm = key_values("--slurm", args.slurm)
        slurm_parameters(slurm)  # a wrong one is refused before anything is looked for
    options = cfg_options(args.cfg_options)
    if dataset is None:
        dataset = _default_dataset(board, data_root(args))
    sweep = Sweep(
        board=board,
        dataset=dataset,
        backbones=args.backbones or default_backbones(dataset),
        recipe=args.recipe or default_recipe(dataset),
        seeds=args.seeds,
        data_root=data_root(args),
        out=args.out,
        work_root=args.work_dir,
        overwrite=args.overwrite,
        retry_failed=args.retry_failed,
        workers=args.workers,
        cfg_options=options,
        slurm=slurm,
    )
    return report(sweep, args.board)


def _default_dataset(board, root: Path):
    """The board's own dataset; when it is missing, the message says which others are there."""
    from commons.datasets import DATASETS, FOLDER
    from commons.errors import InputError

    if board.name == FOLDER:
        raise InputError(f"which folder? name it, e.g. `onebit bench {FOLDER}-NAME` for NAME below {root}")  # fmt: skip
    try:
        DATASETS[board.name].find(root)
    except InputError as error:
        there = []
        for other in DATASETS.values():
            if other.board == board.name and (root / other.folders[0] / other.required[0]).exists():
                there.append(f"`--dataset {other.name}`")
        if there:
            raise InputError(f"{error} Present for this board: {', '.join(there)}.") from error
        raise
    return DATASETS[board.name]


def report(sweep, table_name: str) -> int:
    """Run the sweep, say what becomes of each row, write and print the table."""
    from commons.files import remove_stale
    from leaderboards import table as tables
    from leaderboards.bench import bench
    from leaderboards.locks import holding
    from leaderboards.record import load_all

    failed = 0
    total = len(sweep.rows())
    for done, (record, run_now) in enumerate(bench(sweep), start=1):
        name = f"[{done}/{total}] {record.backbone} seed {record.seed}"
        if record.status == "failed":
            failed += 1
            hint = "" if run_now else " (--retry-failed runs it again)"
            print(f"{name}: FAILED: {record.error}{hint}", flush=True)
        else:
            value = record.metrics[record.main_metric]
            how = f"{record.wall_seconds:.0f} s" if run_now else "already done"
            print(f"{name}: {record.main_metric} {100 * value:.1f} %, {how}", flush=True)
    scope = None if table_name == sweep.board.name else sweep.dataset.name
    folder = sweep.out / "tables"
    with holding(folder / f"{table_name}.csv"):  # or a slower sweep could write an older table
        remove_stale(folder, f"{table_name}.csv")
        lines = tables.lines(sweep.board, load_all(sweep.records, sweep.board.name, scope))
        path = tables.write(sweep.board, table_name, lines, folder)
    print(f"\n{table_name}\n{tables.render(sweep.board, lines, 'text')}")
    print(f"records  {sweep.records / sweep.board.name}\nCSV      {path}", flush=True)
    return 1 if failed else 0
