"""Where records are read from."""

from __future__ import annotations

import os
from pathlib import Path

#: Names a folder of records for every command that reads some.
VARIABLE = "ONEBIT_RECORDS"


def records_folder(given: str | os.PathLike | None = None) -> Path:
    """The folder of records: ``given``, ``$ONEBIT_RECORDS``, ``./leaderboards/records`` or the checkout's.

    The first of these that is named, or of the last two that is there, is taken. An installed package has no
    records: there the last is ``./leaderboards/records`` again.
    """
    if given is not None:
        return Path(given)
    if named := os.environ.get(VARIABLE):
        return Path(named)
    here = Path("leaderboards") / "records"
    of_checkout = Path(__file__).resolve().parents[1] / "records"
    return of_checkout if of_checkout.is_dir() and not here.is_dir() else here
