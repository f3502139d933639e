"""`onebit verify`: re-check records and the tables made from them."""

from __future__ import annotations

from pathlib import Path

from onebit.leaderboards.commands.options import add_data, add_import, add_out, add_verb, data_root, number


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "verify",
        run,
        "check records, kept files, and that tables follow from them",
        """\
onebit verify
onebit verify leaderboards/records/coco --work-dir work_dirs
onebit verify --data data                        the datasets are those of the records, too
onebit verify --data data --rescore              predictions and checkpoints give the metrics, too""",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="records, folders of them, or tables (CSV); default: all below --out",
    )
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=Path("work_dirs"),
        metavar="W",
        help="where checkpoints and predictions were written",
    )
    parser.add_argument(
        "--rescore", action="store_true", help="compute metrics again from the kept predictions and from the checkpoint"
    )
    parser.add_argument(
        "--tolerance",
        type=number(0, below=1),
        metavar="T",
        help="how far such a metric may be off, as a fraction (default: 1e-9 from predictions, 0.002 from a checkpoint)",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="read every byte of the datasets, whatever is known of them by size and time",
    )
    add_data(parser)
    add_out(parser)
    add_import(parser)


def run(args) -> int:
    paths = _paths(args)
    sound = {"records": [], "tables": []}
    for path in paths:
        table = path.suffix == ".csv"
        wrong, done = _table(path, args) if table else _record(path, args)
        sound["tables" if table else "records"].append(not wrong)
        print(f"{'BAD' if wrong else 'ok '}  {path}" + "".join(f"\n     {w}" for w in wrong + done), flush=True)
    print(" and ".join(f"{sum(s)} of {len(s)} {what}" for what, s in sound.items() if s) + " are sound")
    return 0 if all(map(all, sound.values())) else 1


def _paths(args) -> list[Path]:
    """The records and tables that were named, or all."""
    from onebit.commons.errors import InputError

    given = args.paths or [args.out / "records"]
    found = []
    for path in given:
        if not path.exists():
            raise InputError(f"cannot verify {path}: there is no such file or folder")
        found += sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not found:
        raise InputError("no records to verify below " + ", ".join(map(str, given)))
    return found if args.paths else found + sorted((args.out / "tables").glob("*.csv"))


def _record(path: Path, args) -> tuple[list[str], list[str]]:
    """What is wrong with a record, and what else was found out."""
    from onebit.commons.errors import InputError
    from onebit.leaderboards.recording import search_record
    from onebit.leaderboards.recording.latency_record import BOARD, LatencyRun
    from onebit.leaderboards.recording.record import Record
    from onebit.leaderboards.recording.verification import data_problems, form_problems, problems, rescore

    done: list[str] = []
    try:
        if path.parent.name == BOARD:
            LatencyRun.load(path)
            return form_problems(path), ["a latency: what it measured cannot be computed again"]
        if path.parent.name == search_record.BOARD:
            search_record.SearchRun.load(path)
            return form_problems(path), ["a search: `onebit bench search --overwrite always` repeats it"]
        record = Record.load(path)
        wrong = form_problems(path) + problems(record, args.work_dir)
        if not wrong and (args.data or args.full or args.rescore):
            wrong += data_problems(record, data_root(args), args.full)
        if not wrong and args.rescore:
            wrong, done = rescore(record, args.work_dir, data_root(args), args.tolerance)
    except InputError as error:
        return [str(error)], done
    return wrong, done


def _table(path: Path, args) -> tuple[list[str], list[str]]:
    from onebit.leaderboards.recording.verification import table_problems

    return table_problems(path, args.out / "records"), []
