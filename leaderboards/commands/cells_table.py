"""`onebit cells-table`: train the cells of the table, merge tables, show one, simulate searches on it."""

from __future__ import annotations

from pathlib import Path

from onebit.leaderboards.commands.options import add_data, add_verb, data_root, number, whole_number


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "cells-table",
        run,
        "the table of trained 1-bit cells, and searches simulated on it",
        """\
onebit cells-table show
onebit cells-table simulate --budget 3600 --runs 100
onebit cells-table train --data data --workers 2 --budget 3600
onebit cells-table train --dataset mini-cifar10 --data data --budget 60
onebit cells-table merge one.csv other.csv --out both.csv
onebit verify both.csv""",
    )
    parser.add_argument("action", choices=("show", "simulate", "train", "merge"))
    parser.add_argument(
        "tables",
        nargs="*",
        type=Path,
        metavar="TABLE.csv",
        help="show and simulate: one table, by default the one that ships; merge: those to join",
    )
    parser.add_argument("--dataset", metavar="D", help="train: whose setting; default: cifar10-jpeg")
    parser.add_argument(
        "--work-dir",
        type=Path,
        metavar="W",
        help="train: the table grows there (default: work_dirs/cells-table); several machines may share it",
    )
    parser.add_argument(
        "--workers", type=whole_number(), metavar="N", help="train: processes of one thread each (default: 1)"
    )
    parser.add_argument(
        "--budget",
        type=number(0),
        metavar="SECONDS",
        help="train: begin no training that would end later; the same command goes on from there. simulate: seconds of a "
        "search, as the table states them (default: those of 50 trainings)",
    )
    parser.add_argument("--runs", type=whole_number(), metavar="N", help="simulate: of every strategy (default: 100)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="merge: the file to write")
    add_data(parser)


#: Which options belong to which actions.
_OWN = {
    "dataset": ("train",),
    "work_dir": ("train",),
    "workers": ("train",),
    "data": ("train",),
    "budget": ("train", "simulate"),
    "runs": ("simulate",),
    "out": ("merge",),
}


def run(args) -> int:
    from onebit.commons.errors import InputError

    for option, actions in _OWN.items():
        if args.action not in actions and getattr(args, option) is not None:
            raise InputError(f"--{option.replace('_', '-')} is an option of onebit cells-table {' and '.join(actions)}")
    return {"show": _show, "simulate": _simulate, "train": _train, "merge": _merge}[args.action](args)


def _train(args) -> int:
    from onebit.commons.errors import InputError
    from onebit.leaderboards.running.cells_table import fill

    if args.tables:
        raise InputError(f"onebit cells-table train takes no {str(args.tables[0])!r}: its table is in --work-dir")
    work_dir = args.work_dir or Path("work_dirs") / "cells-table"
    dataset = args.dataset or "cifar10-jpeg"
    path, done, planned = fill(dataset, data_root(args), work_dir, args.workers or 1, args.budget)
    print(f"{done} of {planned} trainings are done, {path}")
    return 0


def _merge(args) -> int:
    from onebit.classification.cells_table import table
    from onebit.commons.errors import InputError

    if not args.tables or args.out is None:
        raise InputError("onebit cells-table merge: expected tables, and --out FILE for all of them together")
    read = [(path, line) for path in args.tables for line in table.read(path)]
    for path, line in read:
        if line["config"] != read[0][1]["config"]:
            raise InputError(f"{path} is of another setting ({line['config']}) than {read[0][0]}")
    lines = {(line["genotype_hash"], line["seed"]): line for _, line in reversed(read)}
    epochs = max((sum(key.startswith("valid_") for key in line) for line in lines.values()), default=1)
    table.write(args.out, lines.values(), epochs)
    print(f"{len(lines)} trainings, {args.out}")
    return 0


def _show(args) -> int:
    from onebit.leaderboards.showing.cells_table import summary

    print(summary(_one(args)))
    return 0


def _simulate(args) -> int:
    from onebit.leaderboards.showing.cells_table import regrets

    print(regrets(_one(args), args.budget, args.runs or 100))
    return 0


def _one(args):
    """The table that was named, or the one that ships."""
    from onebit.classification.cells_table import CellsTable
    from onebit.commons.errors import InputError

    if len(args.tables) > 1:
        raise InputError(
            f"onebit cells-table {args.action} takes one table; `onebit cells-table merge` makes one of several"
        )
    return CellsTable(*args.tables)
