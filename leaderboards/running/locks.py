"""One process at a time per row, however many sweeps fill the same board.

The locks are the operating system's (`flock`, through the filelock library): when their holder
dies, even by SIGKILL, they are free. Their files stay; a file alone locks nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from onebit.commons.errors import WorkError
from onebit.commons.files import disk_error_message

#: The folder of lock files beside what they protect.
FOLDER = ".locks"
_POLL_SECONDS = 0.2


@contextlib.contextmanager
def holding(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of the file or folder ``path`` inside the block.

    Args:
        wait: until another holder lets go; otherwise the block gets False at once and must leave
            ``path`` alone.

    Raises:
        WorkError: the lock file cannot be written.
    """
    lock_file = path.parent / FOLDER / f"{path.name}.lock"
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_file)
        lock.acquire(blocking=wait, poll_interval=_POLL_SECONDS)
    except Timeout:
        yield False
        return
    except OSError as error:
        raise WorkError(disk_error_message(error, lock_file)) from error
    try:
        yield True
    finally:
        lock.release()
