"""`onebit submit-check`: are rows complete enough to be accepted?"""

from __future__ import annotations

from pathlib import Path

from onebit.leaderboards.commands.options import add_import, add_verb, whole_number


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "submit-check",
        run,
        "say what records lack to be accepted",
        """\
onebit submit-check leaderboards/records/voc
onebit submit-check leaderboards/records/voc --files work_dirs --data /datasets
onebit submit-check leaderboards/records/cifar10/mini-*.json --development --seeds 1""",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="RECORD", help="records or folders of records")
    parser.add_argument(
        "--files",
        type=Path,
        metavar="DIR",
        help="checkpoints and predictions are in DIR/<row>/, as `onebit bench` leaves them in its work folder: hash them, and "
        "with --data score them again, which a row needs",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="compare the data's checksums with the datasets in DIR, and score on them",
    )
    parser.add_argument(
        "--development",
        action="store_true",
        help="accept mini and development data, which are not comparable with published numbers",
    )
    parser.add_argument(
        "--seeds",
        type=whole_number(),
        default=3,
        metavar="N",
        help="seeds that a line needs (default: 3; 1 where nothing is claimed)",
    )
    add_import(parser)


def run(args) -> int:
    from onebit.commons.errors import InputError
    from onebit.leaderboards.recording.kinds import record_class
    from onebit.leaderboards.recording.record import Record
    from onebit.leaderboards.recording.submission import Rules, check

    for folder in (args.files, args.data):
        if folder is not None and not folder.is_dir():
            raise InputError(f"expected a folder, found none at {folder}")
    paths: list[Path] = []
    for given in args.paths:
        if not given.exists():
            raise InputError(f"cannot check {given}: there is no such file or folder")
        if given.is_dir():  # what `onebit latency` and `bench search` write are no rows of a board
            paths += [p for p in sorted(given.rglob("*.json")) if record_class(p.parent.name) is Record]
        else:
            paths.append(given)
    if not paths:
        raise InputError("no records in " + ", ".join(map(str, args.paths)))
    rules = Rules(args.seeds, args.development, args.files, args.data)
    verdicts = check(list(dict.fromkeys(paths)), rules)
    for verdict in verdicts:
        print(f"{'LACKS' if verdict.missing else 'ok   '}  {verdict.path}")
        for text in verdict.missing:
            print(f"       - {text}")
        for text in verdict.notes:
            print(f"       note: {text}")
    complete = sum(not verdict.missing for verdict in verdicts)
    print(f"{complete} of {len(verdicts)} rows are complete")
    return 0 if complete == len(verdicts) else 1
