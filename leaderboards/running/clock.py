"""Wall time that survives a kill: rows are resumed, their records must state the whole time."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

from onebit.commons.errors import WorkError
from onebit.commons.files import write_atomic

_INTERVAL = 5.0


class Clock:
    """Count the seconds spent inside the block, on top of those already in ``path``.

    The file is brought up to date every five seconds, so a kill loses at most that much.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._before = float(path.read_text())
        except (OSError, ValueError):
            self._before = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._start

    def _keep(self) -> None:
        while not self._stop.wait(_INTERVAL):
            try:
                write_atomic(self._path, repr(self.seconds))
            except WorkError:  # the row itself meets the full disk and says so
                return

    def __enter__(self) -> Clock:
        self._start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(WorkError):  # must not hide the error that ended the block
            write_atomic(self._path, repr(self.seconds))
