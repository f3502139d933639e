"""Every table by its name."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from onebit.leaderboards.ablations import PREFIX, get_ablation
from onebit.leaderboards.boards import ALL, resolve
from onebit.leaderboards.showing.table import BoardTable, Table

_OTHERS = ("search", "latency", "overall")


def get_table(name: str) -> Table[Any]:
    """The table of a board, a dataset of one, the searches, the latencies, an ablation, or of all boards together.

    Raises:
        InputError: there is none of this name.
    """
    if name.startswith(PREFIX):
        from onebit.leaderboards.showing.ablation_table import AblationTable

        return AblationTable(get_ablation(name))
    if name in _OTHERS:
        module = importlib.import_module(f"onebit.leaderboards.showing.{name}_table")
        return module.TABLE
    board, dataset = resolve(name)
    return BoardTable(board, dataset and dataset.name)


def all_tables() -> Iterator[Table[Any]]:
    """Those of everything that is measured, each record in one of them."""
    yield from map(get_table, (*ALL, "search", "latency"))
