"""`onebit table`: a table from the records."""

from __future__ import annotations

from leaderboards.commands.options import add_out, add_verb


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "table",
        run,
        "print a board's table, derived from its records",
        """\
onebit table mini-voc
onebit table cifar10 --format latex > table.tex""",
    )
    parser.add_argument("board", metavar="BOARD", help="a board, or a dataset of one (mini-voc, coco128)")  # fmt: skip
    parser.add_argument(
        "--format", choices=("text", "csv", "markdown", "latex", "html"), default="text"
    )
    add_out(parser)


def run(args) -> int:
    import sys

    from commons.errors import InputError
    from leaderboards import table as tables
    from leaderboards.boards import resolve
    from leaderboards.record import load_all

    board, dataset = resolve(args.board)
    folder = args.out / "records"
    frame = tables.table(board, load_all(folder, board.name, dataset and dataset.name))
    if frame.empty:
        raise InputError(f"no records of {args.board} in {folder / board.name}; `onebit bench {args.board}` makes them")  # fmt: skip
    sys.stdout.write(tables.render(board, frame, args.format))
    return 0
