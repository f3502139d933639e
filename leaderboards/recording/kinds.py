"""Which kind of record the files of a board are."""

from __future__ import annotations

from onebit.leaderboards.recording.latency_record import LatencyRun
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.recording.run_file import RunFile
from onebit.leaderboards.recording.search_record import SearchRun

_OTHERS: dict[str, type[RunFile]] = {"latency": LatencyRun, "search": SearchRun}


def record_class(board: str) -> type[RunFile]:
    """The class of the records in the folder ``board``: rows of a leaderboard, unless it is one of the others."""
    return _OTHERS.get(board, Record)
