"""A table for people: columns, cells, marks, numbered notes; no format yet, and nothing about what it shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

NOTHING = "-"


@dataclass(frozen=True)
class Column:
    """A column: its header, and whether its cells are aligned as numbers."""

    key: str
    header: str
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        mark: a verdict of :mod:`onebit.leaderboards.showing.statistics` that is shown (``best`` or ``tie``), or "".
        notes: numbers of the sheet's notes that belong to it.
        value: what it is sorted by; None where it holds text or nothing.
    """

    text: str
    mark: str = ""
    notes: tuple[int, ...] = ()
    value: float | None = None


@dataclass(frozen=True)
class Row:
    """The cells of a row, and the line that they show; it knows whether it is ``reported``."""

    cells: list[Cell]
    line: Any


@dataclass
class Sheet:
    """A whole table.

    Attributes:
        sections: rows that belong together: one dataset, ours or a paper's.
        notes: numbered from 1.
        remarks: about the whole table.
        heading: what tells it from other sheets of one board.
        kind: of the data, see :data:`onebit.commons.datasets.dataset.KINDS`; empty where there are none.
    """

    title: str
    columns: list[Column]
    sections: list[list[Row]]
    notes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    heading: str = ""
    kind: str = ""

    @property
    def rows(self) -> Iterable[Row]:
        return (row for section in self.sections for row in section)
