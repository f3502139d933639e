"""The `onebit` command: parse, dispatch, and turn errors into one line and an exit code.

Nothing heavy is imported here or at the top of a verb's file: `--help` has to answer at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from onebit.commons.errors import OnebitError
from onebit.leaderboards.commands import (
    backbones,
    bench,
    cell,
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
    train,
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
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS:
        verb.configure(verbs)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    debug = bool(os.environ.get("ONEBIT_DEBUG"))
    args = parser().parse_args(arguments)
    request_imports(args)
    if not debug:
        _silence_libraries()
    # A batch system's SIGTERM ends a run the way Ctrl-C does.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return args.run(args)
    except OnebitError as error:
        if debug:
            raise
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        if debug:
            raise
        return _fail("interrupted; the same command (train: with --resume) goes on from here", 1)
    except BrokenPipeError:  # `onebit backbones | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split())
        return _fail(f"{type(error).__name__}: {text} (ONEBIT_DEBUG=1 shows the traceback)", 1)
    finally:
        # None: a handler that was not set from Python, which cannot be put back.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _fail(message: str, code: int) -> int:
    rank = os.environ.get("RANK", "0") if "TORCHELASTIC_RUN_ID" in os.environ else "0"
    process = "" if rank == "0" else f" (process {rank} of torchrun)"
    print(f"onebit{process}: {' '.join(message.split())}", file=sys.stderr)
    return code


def _silence_libraries() -> None:
    """Deprecation notes of libraries are not the user's business."""
    import warnings

    warnings.simplefilter("ignore")


if __name__ == "__main__":
    sys.exit(main())
