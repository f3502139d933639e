"""`onebit demo`: the whole suite on mini data, in minutes."""

from __future__ import annotations

from pathlib import Path

from onebit.leaderboards.commands.options import add_verb


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "demo",
        run,
        "train three backbones on three mini datasets, print tables",
        """\
onebit demo --out demo""",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo"),
        metavar="DIR",
        help="data, checkpoints, records and tables go here (default: ./demo)",
    )


def run(args) -> int:
    from onebit.leaderboards.running.demo import demo

    return demo(args.out)
