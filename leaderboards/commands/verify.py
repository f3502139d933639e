"""`onebit verify`: re-check records."""

from __future__ import annotations

from pathlib import Path

from leaderboards.commands.options import add_import, add_out, add_verb


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "verify",
        run,
        "re-check records: schema, digest, path, and the checkpoint's hash where it is at hand",
        """\
onebit verify
onebit verify leaderboards/records/coco --work-dir work_dirs""",
    )
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="records or folders; default: all")  # fmt: skip
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs"), metavar="W", help="where checkpoints were written")  # fmt: skip
    add_out(parser)
    add_import(parser)


def run(args) -> int:
    from commons.errors import InputError
    from leaderboards.record import Record
    from leaderboards.verification import problems

    paths = []
    for given in args.paths or [args.out / "records"]:
        if not given.exists():
            raise InputError(f"cannot verify {given}: there is no such file or folder")
        paths += sorted(given.rglob("*.json")) if given.is_dir() else [given]
    if not paths:
        raise InputError("no records to verify below " + ", ".join(map(str, args.paths or [args.out / "records"])))  # fmt: skip
    bad = 0
    for path in paths:
        try:
            found = problems(Record.load(path), args.work_dir)
        except InputError as error:
            found = [str(error)]
        bad += bool(found)
        print(f"{'BAD' if found else 'ok '}  {path}" + "".join(f"\n     {f}" for f in found))
    print(f"{len(paths) - bad} of {len(paths)} records are sound")
    return 1 if bad else 0
