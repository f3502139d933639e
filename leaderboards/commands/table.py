"""`onebit table`: a table from the records."""

from __future__ import annotations

import argparse

from onebit.leaderboards.commands.options import add_detector, add_import, add_records, add_verb, records_of


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
onebit table mini-coco --detector retinanet      only rows of this detector
onebit table ablation-tangent                    an ablation of the DCP-NAS paper
onebit table overall                             one number per method, over all boards""",
    )
    parser.add_argument(
        "board",
        metavar="BOARD",
        help="a board, a dataset of one (mini-voc, coco128), latency, search, overall, or an ablation as `onebit bench` "
        "runs it",
    )
    parser.add_argument("--format", choices=("text", "csv", "markdown", "latex", "html"), default="text")
    parser.add_argument("--recipe", metavar="R", help="only rows of this recipe, and nothing printed")
    add_detector(parser, "only rows of this detector")
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
    from onebit.leaderboards.showing.tables import get_table

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    table = get_table(args.board)
    if args.recipe and not table.of_recipes:
        raise InputError(f"--recipe is for boards of trained networks, not for {args.board}")
    if args.recipe and args.reported:
        raise InputError("--recipe: printed lines have none; leave out --reported")
    if args.detector and not table.of_detectors:
        raise InputError(f"--detector is for boards of detection, not for {args.board}")
    folder = records_of(args)
    records = table.load(folder)
    if args.recipe:
        records = [record for record in records if record.recipe == args.recipe]
    reported = args.reported
    if reported is None:
        reported = table.whole and not args.recipe and (args.format != "csv" or not records)
    lines = table.lines(records, reported)
    if args.detector:
        lines = [line for line in lines if line.detector == args.detector]
    if not lines:
        asked = "".join(f" --{name} {vars(args)[name]}" for name in ("recipe", "detector") if vars(args)[name])
        raise InputError(
            f"no records of {args.board}{asked} in {table.place(folder)}; `{table.made_by}{asked}` makes them"
        )
    sys.stdout.write(table.render(lines, args.format, width))
    return 0
