"""`onebit mock-run`: a new backbone from end to end, before hours are spent on it."""

from __future__ import annotations

from pathlib import Path

from onebit.leaderboards.commands.options import TASKS, add_import, add_verb, comma_list


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "mock-run",
        run,
        "check a backbone by itself and in every task, on drawn data",
        """\
onebit mock-run resnet18_w16_reactnet
onebit mock-run tinynet_w8_tanhsign --import onebit_method_template
onebit mock-run dcp_nas_c8 --tasks classification,reid""",
    )
    parser.add_argument("backbone", metavar="NAME", help="`onebit backbones` lists names")
    parser.add_argument(
        "--tasks", type=comma_list, default=list(TASKS), metavar="A,B", help=f"default: {','.join(TASKS)}"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="where to keep the mini datasets (default: they are drawn anew and thrown away)",
    )
    add_import(parser)


def run(args) -> int:
    import tempfile
    import time

    from onebit.commons.errors import InputError
    from onebit.leaderboards.running.mock_run import mock_run

    unknown = [task for task in args.tasks if task not in TASKS]
    if unknown or not args.tasks:
        raise InputError(f"--tasks takes some of {','.join(TASKS)}, got {','.join(args.tasks)!r}")
    start = time.monotonic()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="onebit-mock-run-") as folder:
        data = args.data or Path(folder) / "data"
        for result in mock_run(args.backbone, args.tasks, data, Path(folder) / "work"):
            failed += not result.ok
            mark = "ok    " if result.ok else "FAILED"
            print(f"{mark}  {result.name:<34} {result.text}", flush=True)
    seconds = time.monotonic() - start
    verdict = f"{failed} of the checks FAILED" if failed else "everything holds"
    print(f"{args.backbone}: {verdict} ({seconds:.0f} s)")
    return 1 if failed else 0
