"""`onebit data`: write the mini datasets."""

from __future__ import annotations

from pathlib import Path

from leaderboards.commands.options import add_verb, comma_list


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "data",
        run,
        "write the mini datasets, each in its real dataset's format",
        """\
onebit data mini data
onebit data mini data --only mini-voc,mini-cifar10""",
    )
    parser.add_argument("what", choices=("mini",), help="mini: procedural, seeded, checksummed")
    parser.add_argument("folder", type=Path, metavar="DIR", help="becomes a data root")
    parser.add_argument("--only", type=comma_list, metavar="A,B", help="these datasets only")


def run(args) -> int:
    from commons.mini import write

    for name, written in write(args.folder, args.only):
        print(f"{name:<20} {'written to' if written else 'complete in'} {args.folder / name}")
    print(f"use them with --data {args.folder} or ONEBIT_DATA={args.folder}")
    return 0
