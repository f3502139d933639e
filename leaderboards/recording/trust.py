"""How far a record can be believed, in levels; ``docs/records.md`` says how each is reached.

A record's own text says nothing of it. A level is what can be established when it is asked for (the record is
whole, a signature beside it holds), or what a verification on this machine reached before: that is kept in
the user's cache folder under the record's digest, so that no file that comes with a record, and no change
of one, can raise it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from onebit.commons.errors import InputError, OnebitError, WorkError
from onebit.commons.files import cache_folder, read_small, write_atomic
from onebit.leaderboards.recording.run_file import RunFile, now
from onebit.leaderboards.recording.signatures import signer

SIGNED = "signed"
#: Each level, weakest first, with what it proves and what it does not. A record may be signed at any of them.
LEVELS = {
    "consistent": "the file is whole, at its place, and says what a record may say; not that anything was measured",
    "files match": "the kept checkpoint and predictions are those that the record names; not that they give its metrics",
    "re-scored": "the checkpoint gives the predictions, and they the metrics; not how it was trained, nor on which images",
    "re-trained": "the recipe, data and seed gave the row again here; not that its data or protocol are beyond doubt",
    SIGNED: "a maintainer whose key is listed here stands for this very content; not that anybody measured it again",
}
_LADDER = tuple(level for level in LEVELS if level != SIGNED)


@dataclass(frozen=True)
class Trust:
    """What is established of a record.

    Attributes:
        level: the strongest of :data:`LEVELS` but ``signed``.
        signer: the name of who signed it, or None.
    """

    level: str = _LADDER[0]
    signer: str | None = None

    def __str__(self) -> str:
        return f"{self.level}, {SIGNED}" if self.signer else self.level

    def reaches(self, level: str) -> bool:
        """Whether ``level``, one of :data:`LEVELS`, is reached."""
        if level == SIGNED:
            return self.signer is not None
        return _LADDER.index(self.level) >= _LADDER.index(level)

    def covers(self, claim: str) -> bool:
        """Whether ``claim``, a cell of a column ``trust``, is no more than this."""
        return all(level in LEVELS and self.reaches(level) for level in claim.split(", "))


def parse(text: str) -> Trust:
    """The inverse of ``str(trust)``, but for the signer's name."""
    level, _, signed = text.partition(", ")
    return Trust(level, signed or None)


def established(record: RunFile, remembered: bool = True) -> Trust:
    """What is known of ``record`` without work.

    Args:
        remembered: what was verified on this machine counts. Tables that are kept leave it out, so that they
            follow from the files of records alone.
    """
    try:
        name = signer(record)
    except OnebitError:  # `onebit verify` says why
        name = None
    return Trust(recall(record) if remembered else _LADDER[0], name)


def weakest(records: Iterable[RunFile], remembered: bool = True) -> Trust:
    """What holds for all of several records, of which there is at least one."""
    found = [established(record, remembered) for record in records]
    names = [trust.signer for trust in found]
    level = min((trust.level for trust in found), key=_LADDER.index)
    return Trust(level, None if None in names else ", ".join(sorted({str(n) for n in names})))


def remember(record: RunFile, level: str) -> None:
    """Keep that ``level`` was reached here; a stronger one that was reached before stays."""
    if _LADDER.index(level) <= _LADDER.index(recall(record)):
        return
    with contextlib.suppress(WorkError):  # where nothing can be kept, a verification counts while it runs
        write_atomic(_memory(record), json.dumps({"level": level, "when": now()}))


def forget(record: RunFile) -> None:
    """A verification found that ``record`` does not hold."""
    with contextlib.suppress(OSError):
        _memory(record).unlink()


def recall(record: RunFile) -> str:
    """The strongest level below ``signed`` that ``record`` reached here before."""
    if record.sealed is None:
        return _LADDER[0]
    try:
        level = json.loads(read_small(_memory(record), 1000))["level"]
    except (OSError, InputError, ValueError, KeyError, TypeError):
        return _LADDER[0]
    return level if level in _LADDER else _LADDER[0]


def _memory(record: RunFile) -> Path:
    return cache_folder() / "verified" / f"{record.sealed}.json"
