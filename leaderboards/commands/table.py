"""`onebit table`: a table from the records."""

from __future__ import annotations

import argparse
from pathlib import Path

from onebit.leaderboards.commands.options import add_import, add_records, add_verb, records_of


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "table",
        run,
        "print a board's table, derived from its records",
        """\
onebit table mini-voc
onebit table cifar10 --format latex > table.tex
onebit table imagenet --reported                 the paper's lines, and ours where there are any
onebit table cifar10 --format csv --no-reported > cifar10.csv
onebit table cifar10-jpeg --recipe short         only what was trained so
onebit table ablation-tangent                    an ablation of the DCP-NAS paper""",
    )
    parser.add_argument(
        "board",
        metavar="BOARD",
        help="a board, a dataset of one (mini-voc, coco128), latency, search, or an ablation as `onebit bench` runs it",
    )
    parser.add_argument("--format", choices=("text", "csv", "markdown", "latex", "html"), default="text")
    parser.add_argument("--recipe", metavar="R", help="only rows of this recipe, and nothing printed")
    add_reported(parser, "for a whole board in the formats for people, not for CSV")
    add_records(parser)
    add_import(parser)


def add_reported(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--reported",
        action=argparse.BooleanOptionalAction,
        help=f"show the paper's printed numbers beside ours, marked as such (default: {default})",
    )


def run(args) -> int:
    import shutil
    import sys

    from onebit.commons.errors import InputError
    from onebit.leaderboards.ablations import PREFIX
    from onebit.leaderboards.boards import resolve
    from onebit.leaderboards.recording.record import load_all
    from onebit.leaderboards.showing import table as tables

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if args.recipe and (args.board in ("latency", "search") or args.board.startswith(PREFIX)):
        raise InputError(f"--recipe is for boards of trained networks, not for {args.board}")
    if args.recipe and args.reported:
        raise InputError("--recipe: printed lines have none; leave out --reported")
    folder = records_of(args)
    if args.board in ("latency", "search"):
        sys.stdout.write(_latency(args, folder, width) if args.board == "latency" else _search(args, folder, width))
        return 0
    if args.board.startswith(PREFIX):
        sys.stdout.write(_ablation(args, folder, width))
        return 0
    board, dataset = resolve(args.board)
    own = dataset is None or dataset.name == board.name
    records = list(load_all(folder, board.name, dataset and dataset.name))
    of_recipe = ""
    if args.recipe:
        records = [record for record in records if record.recipe == args.recipe]
        of_recipe = f" --recipe {args.recipe}"
    reported = args.reported if args.reported is not None else own and (args.format != "csv" or not records)
    reported &= not args.recipe
    lines = tables.lines(board, records, reported)
    if not lines:
        raise InputError(
            f"no records of {args.board}{of_recipe} in {folder / board.name}; `onebit bench {args.board}{of_recipe}` makes them"
        )
    sys.stdout.write(tables.render(board, lines, args.format, width))
    return 0


def _ablation(args, folder: Path, width: int | None) -> str:
    from onebit.leaderboards.ablations import get_ablation
    from onebit.leaderboards.showing import ablation_table

    ablation = get_ablation(args.board)
    reported = args.reported if args.reported is not None else args.format != "csv"
    records = ablation_table.load(folder)
    return ablation_table.render(ablation, records, args.format, reported, width)


def _latency(args, folder: Path, width: int | None) -> str:
    from onebit.commons.errors import InputError
    from onebit.leaderboards.recording.latency_record import load_runs
    from onebit.leaderboards.showing import latency_table

    runs = list(load_runs(folder))
    reported = args.reported if args.reported is not None else args.format != "csv"
    if not runs and not args.reported:
        raise InputError(f"no records of latency in {folder / 'latency'}; `onebit latency BACKBONE...` makes them")
    return latency_table.render(latency_table.frame(runs, reported), args.format, width)


def _search(args, folder: Path, width: int | None) -> str:
    from onebit.commons.errors import InputError
    from onebit.leaderboards.recording.search_record import load_runs
    from onebit.leaderboards.showing import search_table

    runs = list(load_runs(folder))
    reported = args.reported if args.reported is not None else args.format != "csv"
    if not runs and not args.reported:
        raise InputError(f"no records of searches in {folder / 'search'}; `onebit bench search` makes them")
    return search_table.render(search_table.frame(runs, reported), args.format, width)
