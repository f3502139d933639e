"""`onebit plot`: accuracy against cost, as a picture."""

from __future__ import annotations

from pathlib import Path

from onebit.leaderboards.commands.options import add_import, add_records, add_verb, records_of
from onebit.leaderboards.commands.table import add_reported


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "plot",
        run,
        "draw accuracy against cost, with the Pareto front",
        """\
onebit plot mini-cifar10 --out mini-cifar10.svg
onebit plot imagenet --convention paper --out imagenet.png
onebit plot cifar10-jpeg --recipe small --out small.svg
onebit plot voc --x memory --metric map_11pt --out voc.svg
onebit plot overall --out overall.png            what each method keeps of its real-valued twins""",
    )
    parser.add_argument(
        "board", metavar="BOARD", help="a board (its own dataset), a dataset of one (mini-voc, coco128), or overall"
    )
    parser.add_argument("--x", choices=("ops", "memory"), default="ops")
    parser.add_argument(
        "--convention",
        choices=("strict", "paper"),
        default="strict",
        help="strict (default), or the rule of the board's paper with reported costs as printed",
    )
    parser.add_argument("--metric", metavar="M", help="default: the board's first")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a file that ends in .svg or .png")
    parser.add_argument("--recipe", metavar="R", help="of ours, only rows of this recipe")
    add_reported(parser, "for the board's own dataset")
    add_records(parser)
    add_import(parser)


def run(args) -> int:
    from onebit.commons.errors import InputError
    from onebit.commons.files import write_atomic
    from onebit.leaderboards.boards import resolve
    from onebit.leaderboards.showing import pictures
    from onebit.leaderboards.showing.table import BoardTable

    form = args.out.suffix.lstrip(".").lower()
    if form not in pictures.FORMATS:
        raise InputError(f"--out takes a file that ends in .svg or .png, got {args.out}")
    if args.board == "overall":
        return _overall(args, form)
    board, dataset = resolve(args.board)
    name = dataset.name if dataset else board.name
    if args.metric not in (None, *board.metrics):
        raise InputError(f"board {board.name} has no metric {args.metric!r}; it has {', '.join(board.metrics)}")
    reported = args.reported if args.reported is not None else name == board.name
    folder = records_of(args)
    table = BoardTable(board, name)
    lines = table.lines((r for r in table.load(folder) if args.recipe in (None, r.recipe)), reported)
    if not lines:
        raise InputError(f"no records of {name} in {folder / board.name}; `onebit bench {name}` makes them")
    figure = pictures.draw(board, lines, args.x, args.convention, args.metric)
    print(write_atomic(args.out, pictures.image(figure, form)))
    return 0


def _overall(args, form: str) -> int:
    from onebit.commons.errors import InputError
    from onebit.commons.files import write_atomic
    from onebit.leaderboards.showing import pictures
    from onebit.leaderboards.showing.overall_table import TABLE

    if args.metric or args.recipe or args.reported or (args.x, args.convention) != ("ops", "strict"):
        raise InputError("overall: expected no option but --out and where the records are")
    figure = pictures.draw_overall(TABLE.lines(TABLE.load(records_of(args))))
    print(write_atomic(args.out, pictures.image(figure, form)))
    return 0
