"""`onebit site`: all boards as one static page."""

from __future__ import annotations

import argparse
from pathlib import Path

from onebit.leaderboards.commands.options import add_import, add_records, add_verb, records_of


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "site",
        run,
        "write one static page with all boards, to be opened as a file",
        """\
onebit site build/site                           then open build/site/index.html
onebit site build/site --no-reported             only what was measured""",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="index.html is written here")
    parser.add_argument(
        "--reported",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show the papers' printed numbers beside ours, marked as such (default: yes)",
    )
    add_records(parser)
    add_import(parser)


def run(args) -> int:
    from onebit.leaderboards.showing.site import build

    print(build(records_of(args), args.folder, args.reported))
    return 0
