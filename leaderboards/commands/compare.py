"""`onebit compare`: whether one backbone is better than another, or than a set, beyond noise."""

from __future__ import annotations

from onebit.leaderboards.commands.options import add_import, add_records, add_verb, records_of


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "compare",
        run,
        "say whether backbones differ by more than noise",
        """\
onebit compare mini-cifar10 resnet18_w16_reactnet resnet18_w16_bireal
onebit compare voc resnet18_reactnet dcp_nas_s --metric map_11pt
onebit compare cifar10-jpeg dcp_nas_c8_l6 'random_[0-9]_c8_l6' --recipe short""",
    )
    parser.add_argument("board", metavar="BOARD", help="a board, or a dataset of one (mini-voc, coco128)")
    parser.add_argument(
        "a", metavar="A", help="a backbone with records on it, or a pattern in quotes: a set of them, each a network"
    )
    parser.add_argument(
        "b", metavar="B", help="another, or a pattern; lines of the same dataset, recipe and options are compared"
    )
    parser.add_argument("--metric", metavar="M", help="default: all of the board's")
    parser.add_argument("--recipe", metavar="R", help="default: every recipe that both have lines of")
    add_records(parser)
    add_import(parser)


def run(args) -> int:
    from onebit.commons.errors import InputError
    from onebit.leaderboards.boards import resolve
    from onebit.leaderboards.recording.record import Record
    from onebit.leaderboards.showing import comparison
    from onebit.leaderboards.showing.lines import measured

    board, dataset = resolve(args.board)
    if args.metric not in (None, *board.metrics):
        raise InputError(f"board {board.name} has no metric {args.metric!r}; it has {', '.join(board.metrics)}")
    records = Record.load_all(records_of(args), board.name, dataset and dataset.name)
    lines = [line for line in measured(board, records) if args.recipe in (None, line.recipe)]
    where = args.board + (f", recipe {args.recipe}" if args.recipe else "")
    metrics = [args.metric] if args.metric else list(board.metrics)
    names = args.a, args.b
    if any(map(comparison.is_pattern, names)):
        found = comparison.sets(lines, *names, where)
        texts = [comparison.describe_sets(board, a, b, names, metrics) for a, b in found]
    else:
        pairs = comparison.pairs(lines, *names, where)
        texts = [comparison.describe(board, a, b, metrics) for a, b in pairs]
    print("\n\n".join(texts))
    return 0
