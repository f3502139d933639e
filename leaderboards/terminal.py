"""What the command prints: text that commands nobody's terminal, and one line where it cannot be written."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from onebit.commons.errors import WorkError

#: Characters that a terminal obeys or that turn text around: C0 but tab and newline, DEL, C1, and Unicode's line
#: separators and marks of direction.
_OBEYED = (
    *range(9),
    *range(11, 32),
    *range(127, 160),
    0x61C,
    0x200E,
    0x200F,
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
)
_SHOWN = {code: repr(chr(code))[1:-1] for code in _OBEYED}


def shown(text: str) -> str:
    """``text`` with the characters that a terminal obeys as escapes of Python (``\\x1b``)."""
    return text.translate(_SHOWN)


class Output:
    """Standard output through :func:`shown`: what records, datasets and files are called is their author's word."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        plain = shown(text).encode(encoding, "backslashreplace").decode(encoding)  # a locale may have ASCII only
        try:
            self._stream.write(plain)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise WorkError(f"could not write to standard output: {error.strerror}") from error
        return len(text)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def closed_streams() -> bool:
    """Whether standard output is closed, so that the next file that is opened would take its place.

    A closed standard error is opened again, to nowhere.
    """
    if sys.stderr is None:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        if descriptor != 2:
            os.dup2(descriptor, 2)
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    return sys.stdout is None


def flushed() -> OSError | None:
    """Write what is held back of standard output; the error if it cannot be, after which nothing more is tried."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None
