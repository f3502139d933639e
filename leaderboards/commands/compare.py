"""`onebit compare`: whether one backbone is better than another beyond seed noise."""

from __future__ import annotations

from leaderboards.commands.options import add_out, add_verb


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "compare",
        run,
        "say whether two backbones differ by more than seed noise",
        """\
onebit compare mini-cifar10 resnet18_w16_reactnet resnet18_w16_bireal
onebit compare voc resnet18_reactnet dcp_nas_s --metric map_11pt""",
    )
    parser.add_argument("board", metavar="BOARD", help="a board, or a dataset of one (mini-voc, coco128)")  # fmt: skip
    parser.add_argument("a", metavar="A", help="a backbone with records on it")
    parser.add_argument("b", metavar="B", help="another; lines of the same dataset, recipe and options are compared")  # fmt: skip
    parser.add_argument("--metric", metavar="M", help="default: all of the board's")
    add_out(parser)


def run(args) -> int:
    from commons.errors import InputError
    from leaderboards import comparison
    from leaderboards.boards import resolve
    from leaderboards.lines import measured
    from leaderboards.record import load_all

    board, dataset = resolve(args.board)
    if args.metric not in (None, *board.metrics):
        raise InputError(f"board {board.name} has no metric {args.metric!r}; it has {', '.join(board.metrics)}")  # fmt: skip
    records = load_all(args.out / "records", board.name, dataset and dataset.name)
    pairs = comparison.pairs(measured(board, records), args.a, args.b, args.board)
    metrics = [args.metric] if args.metric else list(board.metrics)
    print("\n\n".join(comparison.describe(board, a, b, metrics) for a, b in pairs))
    return 0
