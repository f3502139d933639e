"""The `onebit` command: parse, dispatch, and turn errors into one line and an exit code.

Nothing heavy is imported here or at the top of a verb's file: `--help` has to answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import onebit
from onebit.commons.errors import OnebitError
from onebit.leaderboards import terminal
from onebit.leaderboards.commands import (
    backbones,
    bench,
    cell,
    cells_table,
    compare,
    cost,
    data,
    demo,
    doctor,
    export,
    features,
    import_,
    latency,
    mock_run,
    plot,
    predict,
    search,
    sign,
    site,
    submit_check,
    table,
    train,
    verify,
)
from onebit.leaderboards.commands.options import request_imports

#: In the order of their use: look around, count, search, train, fill and read boards, deploy, contribute.
VERBS = (
    doctor,
    demo,
    data,
    backbones,
    cell,
    cost,
    search,
    cells_table,
    train,
    predict,
    features,
    import_,
    bench,
    table,
    compare,
    plot,
    site,
    verify,
    sign,
    export,
    latency,
    mock_run,
    submit_check,
)

_DESCRIPTION = """\
Benchmarks of 1-bit convolutional networks on classification, object detection and person
re-identification, beside their real-valued twins."""

#: Characters of the longest line that is said of an error.
_LONGEST = 2000
_EPILOG = """\
examples:
  onebit doctor
  onebit data mini data                            the mini datasets, drawn in seconds
  onebit bench mini-cifar10 --data data            train the rows of a board that are missing
  onebit table mini-cifar10 --format markdown
  onebit cost dcp_nas_s --convention dcp-nas --classes 1000

exit codes: 0 done, 1 the work failed, 2 wrong usage or input
environment: ONEBIT_DATA  the data root;  ONEBIT_DEBUG=1  tracebacks and library warnings
             ONEBIT_IMPORT  packages to import, as --import does (a,b)"""


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, without the usage block."""

    def error(self, message: str) -> NoReturn:
        sys.exit(_fail(f"{message}; see `{self.prog} --help`", 2))


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = OneLineParser(
        prog="onebit", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action="version", version=f"onebit-bench {onebit.__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS:
        verb.configure(verbs)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    if terminal.closed_streams():
        return _fail("standard output is closed: send it to a file or to /dev/null", 2)
    # A batch system's SIGTERM ends a run the way Ctrl-C does.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.redirect_stdout(terminal.Output(sys.stdout)):
            code = _run(arguments)
    except SystemExit as ended:  # after --help, or by the parser
        _written(0)
        raise ended from None
    finally:
        # None: a handler that was not set from Python, which cannot be put back.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
    return _written(code)


def _run(arguments: Sequence[str] | None) -> int:
    debug = bool(os.environ.get("ONEBIT_DEBUG"))
    args = parser().parse_args(arguments)
    request_imports(args)
    if not debug:
        _silence_libraries()
    try:
        code = args.run(args)
        if code == 0 and (folder := getattr(args, "read", None)):  # an error is one line, without this one
            print(f"records: {folder}", file=sys.stderr)
        return code
    except BrokenPipeError:  # `onebit backbones | head`
        terminal.flushed()
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        return _fail(*_said(error))


def _said(error: BaseException) -> tuple[str, int]:
    """The line and the exit code for what ended a command."""
    if isinstance(error, OnebitError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command (train: with --resume) goes on from here", 1
    if isinstance(error, OSError) and error.strerror:
        where = f" {error.filename}" if error.filename else ""
        return f"could not read or write{where}: {error.strerror}", 2 if error.errno == errno.ENAMETOOLONG else 1
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return f"out of memory: {text or 'it is limited here'}", 1
    return f"{type(error).__name__}: {text} (ONEBIT_DEBUG=1 shows the traceback)", 1


def _written(code: int) -> int:
    """Write what is held back of standard output; ``code``, or 1 after a line on why it cannot be written."""
    error = terminal.flushed()
    if error is None or isinstance(error, BrokenPipeError) or code:
        return code
    return _fail(f"could not write to standard output: {error.strerror}", 1)


def _fail(message: str, code: int) -> int:
    rank = os.environ.get("RANK", "0") if "TORCHELASTIC_RUN_ID" in os.environ else "0"
    process = "" if rank == "0" else f" (process {rank} of torchrun)"
    # A path of 4,000 characters is no clear line.
    text = terminal.shown(" ".join(message.split()))
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    with contextlib.suppress(OSError):
        print(f"onebit{process}: {text}", file=sys.stderr, flush=True)
    return code


def _silence_libraries() -> None:
    """Deprecation notes of libraries are not the user's business, nor what their destructors raise after an error."""
    import warnings

    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _: None


if __name__ == "__main__":
    sys.exit(main())
