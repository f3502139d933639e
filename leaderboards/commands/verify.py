"""`onebit verify`: re-check records and the tables made from them."""

from __future__ import annotations

from pathlib import Path

from onebit.leaderboards.commands.options import (
    add_data,
    add_import,
    add_records,
    add_verb,
    data_root,
    number,
    records_of,
)


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
onebit verify --data data --rescore              predictions and checkpoints give the metrics, too
onebit verify --data data --retrain mini-cifar10--resnet18_w16--mini--seed0
onebit verify --data data --retrain 281ffc98e925--seed0      a line of the table of trained cells
onebit verify --require signed""",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="records, folders of them, or tables (CSV); default: all records, and the tables beside their folder",
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
        "--retrain",
        metavar="NAME",
        help="train the row again whose record has this name, or the line HASH--seedN of the table of trained cells, and "
        "compare all that comes out",
    )
    parser.add_argument(
        "--require",
        choices=("consistent", "files match", "re-scored", "re-trained", "signed"),
        metavar="LEVEL",
        help="records below this level of trust are bad: consistent, 'files match', re-scored, re-trained or signed "
        "(keys in $ONEBIT_SIGNERS, else in leaderboards/allowed_signers of this installation)",
    )
    parser.add_argument(
        "--tolerance",
        type=number(0, below=1),
        metavar="T",
        help="how far such a metric may be off, as a fraction (default: 1e-9 from predictions, 0.002 from a checkpoint or a "
        "training); a level of trust is reached at the default only",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="read every byte of the datasets, whatever is known of them by size and time, and count the costs of every "
        "trained cell again instead of those of five",
    )
    add_data(parser)
    add_records(parser)
    add_import(parser)


def run(args) -> int:
    from onebit.leaderboards.recording.trust import LEVELS

    args.records = records_of(args)
    paths = _paths(args)
    sound = {"records": [], "tables": []}
    for path in paths:
        table = path.suffix == ".csv"
        wrong, done, said = (*_table(path, args), "") if table else _record(path, args)
        sound["tables" if table else "records"].append(not wrong)
        print(f"{'BAD' if wrong else 'ok '}  {path}{said}" + "".join(f"\n     {w}" for w in wrong + done), flush=True)
    if sound["records"]:
        print("levels of trust: what each proves, and what not")
        print("\n".join(f"  {level:<11}  {meaning}" for level, meaning in LEVELS.items()))
    print(" and ".join(f"{sum(s)} of {len(s)} {what}" for what, s in sound.items() if s) + " are sound")
    return 0 if all(map(all, sound.values())) else 1


def _paths(args) -> list[Path]:
    """The records and tables that were named, or all."""
    from onebit.commons.errors import InputError

    if args.retrain:
        if args.paths:
            raise InputError("--retrain names the record itself: leave out PATH")
        name = args.retrain.removesuffix(".json")
        given = [p for p in (args.records).glob("*/*.json") if p.stem == Path(name).name]
        if not given and _cells_line(args) is not None:
            return [_cells_file()]
        if len(given) != 1:
            raise InputError(f"expected one record {name}.json below {args.records}, found {len(given)}")
        return given
    given = args.paths or [args.records]
    found = []
    for path in given:
        if not path.exists():
            raise InputError(f"cannot verify {path}: there is no such file or folder")
        found += sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not found:
        raise InputError("no records to verify below " + ", ".join(map(str, given)))
    if args.paths:
        return found
    cells = _cells_file()
    # It belongs to the records that it stands beside in a checkout, and not to those of a user.
    beside = cells.exists() and cells.is_relative_to(args.records.resolve().parents[1])
    return found + sorted((args.records.parent / "tables").glob("*.csv")) + [cells] * beside


def _cells_file() -> Path:
    from onebit.classification.cells_table.table import FILE

    return FILE


def _cells_line(args):
    """The line of the table of trained cells that --retrain names; None where there is none."""
    from onebit.leaderboards.recording.cells_check import find_line

    return find_line(_cells_file(), args.retrain)


def _record(path: Path, args) -> tuple[list[str], list[str], str]:
    """What is wrong with a record, what else was found out, and how far it can be trusted."""
    from onebit.commons.errors import InputError
    from onebit.leaderboards.recording import trust
    from onebit.leaderboards.recording.kinds import record_class
    from onebit.leaderboards.recording.record import Record
    from onebit.leaderboards.recording.signatures import signer
    from onebit.leaderboards.recording.verification import form_problems, missing_files

    done: list[str] = []
    missing: list[str] = []
    try:
        record = record_class(path.parent.name).load(path)
        if isinstance(record, Record):
            wrong, done = _row(record, args)
            missing = missing_files(record, args.work_dir) if record.status == "done" else []
        else:
            wrong, done = form_problems(path), [record.AGAIN]
        signer(record)  # one that does not hold is said
    except InputError as error:
        return [str(error)], done, ""
    found = trust.established(record)
    if args.require and not found.reaches(args.require):
        wrong.append(f"{args.require} is required, {found} is reached")
    if wrong:
        return wrong, done, ""
    notes = [str(found), *([f"signature of {found.signer}"] if found.signer else [])]
    notes += [f"no {' and no '.join(missing)} below {args.work_dir}"] if missing else []
    return wrong, done, f"  ({'; '.join(notes)})"


def _row(record, args) -> tuple[list[str], list[str]]:
    """What is wrong with a board's row, and what was computed."""
    from onebit.commons.errors import InputError
    from onebit.leaderboards.recording import trust
    from onebit.leaderboards.recording.verification import (
        data_problems,
        form_problems,
        missing_files,
        problems,
        rescore,
        retrain,
    )

    done: list[str] = []
    wrong = form_problems(record.path)
    try:
        wrong += problems(record, args.work_dir)
        if not wrong and not missing_files(record, args.work_dir):
            trust.remember(record, "files match")
        if not wrong and (args.data or args.full or args.rescore or args.retrain):
            wrong += data_problems(record, data_root(args), args.full)
        if not wrong and args.rescore:
            wrong, done = rescore(record, args.work_dir, data_root(args), args.tolerance)
    except InputError as error:
        wrong = [str(error)]
    if wrong:
        trust.forget(record)
    elif args.retrain:
        wrong, again = retrain(record, data_root(args), args.tolerance)
        done += again
    return wrong, done


def _table(path: Path, args) -> tuple[list[str], list[str]]:
    from onebit.classification.cells_table.table import is_cells_table
    from onebit.leaderboards.recording.verification import table_problems

    if is_cells_table(path):
        from onebit.leaderboards.recording.cells_check import problems, retrain

        wrong = problems(path, args.full)
        again = args.retrain and not wrong
        return retrain(_cells_line(args), data_root(args), args.tolerance) if again else (wrong, [])
    return table_problems(path, args.records), []
