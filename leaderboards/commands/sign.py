"""`onebit sign`: a maintainer stands for records."""

from __future__ import annotations

from pathlib import Path

from onebit.leaderboards.commands.options import add_verb


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "sign",
        run,
        "sign records with an SSH key",
        """\
onebit sign leaderboards/records/voc/*.json --key ~/.ssh/id_ed25519
onebit verify --require signed""",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="RECORD", help="files of records")
    parser.add_argument(
        "--key",
        type=Path,
        required=True,
        metavar="KEY",
        help="a private key, or a public one whose private half your SSH agent holds; the signature is "
        "RECORD.sig, and counts where leaderboards/allowed_signers names the key",
    )


def run(args) -> int:
    from onebit.commons.errors import InputError
    from onebit.leaderboards.recording.kinds import record_class
    from onebit.leaderboards.recording.signatures import sign
    from onebit.leaderboards.recording.verification import form_problems

    records = [record_class(path.parent.name).load(path) for path in args.paths]
    for record in records:
        for problem in form_problems(record.path):
            raise InputError(f"{record.path}: {problem}")
    for record in records:
        print(sign(record, args.key.expanduser()))
    return 0
