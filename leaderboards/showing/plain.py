"""Tables of runs that no board ranks by the layout of a paper's table: searches and latencies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from onebit.leaderboards.showing import formats
from onebit.leaderboards.showing.line import PlainLine, by_kind
from onebit.leaderboards.showing.sheet import NOTHING, Cell, Column, Row, Sheet
from onebit.leaderboards.showing.table import Table

Values = dict[str, Any]
#: Columns that hold words.
_TEXT = {"backbone", "method", "dataset", "preset", "engine", "source", "trust", "searched_as", "trained_as"}


@dataclass(frozen=True)
class PlainTable(Table[PlainLine]):
    """A table whose lines are values under the names of its columns.

    Attributes:
        columns: of CSV files; ``docs/tables.md`` says what they mean.
        headers: of the table for people; ``bits`` are those of weights and activations.
        measured: the lines of runs, in the table's order.
        printed: those of the papers.
        remarks: below the table.
        shown: how a column is written that is neither a word nor four digits.
    """

    name: str
    title: str
    about: str
    made_by: str
    columns: tuple[str, ...]
    headers: Mapping[str, str]
    measured: Callable[[Iterable[Any]], list[PlainLine]]
    printed: Callable[[], list[PlainLine]]
    remarks: tuple[str, ...]
    shown: Mapping[str, Callable[[Values], str]]
    columns_of: tuple[str, str] | None = None

    def lines(self, records: Iterable[Any], reported: bool = False) -> list[PlainLine]:
        return self.measured(records) + (self.printed() if reported else [])

    def frame(self, lines: Iterable[PlainLine], remembered: bool = True) -> pd.DataFrame:
        rows = [{**line.values, "trust": line.trust(remembered)} for line in lines]
        return pd.DataFrame(rows, columns=self.columns)

    def csv(self, lines: Sequence[PlainLine], remembered: bool = True) -> str:
        return self.frame(lines, remembered).to_csv(index=False)

    def sheets(self, lines: Sequence[PlainLine]) -> list[Sheet]:
        filled = list(zip(lines, self.frame(lines).to_dict("records"), strict=True))
        if "dataset" not in self.columns:
            return [self._sheet(filled)] if filled else []
        made = []
        for kind, own in by_kind(filled, lambda pair: pair[0].dataset).items():
            made.append(self._sheet(own))
            made[-1].kind, made[-1].heading = kind, formats.HEADINGS[kind]
        return made

    def _sheet(self, filled: list[tuple[PlainLine, Values]]) -> Sheet:
        columns = [Column(key, header, key not in _TEXT) for key, header in self.headers.items()]
        sections: dict[tuple[bool, str], list[Row]] = {}
        notes: dict[str, int] = {}
        for line, values in filled:
            name, *others = (self._cell(values, key) for key in self.headers)
            numbers = tuple(notes.setdefault(note, len(notes) + 1) for note in line.notes)
            row = Row([Cell(name.text, notes=numbers), *others], line)
            sections.setdefault((line.reported, line.section), []).append(row)
        return Sheet(self.name, columns, list(sections.values()), list(notes), list(self.remarks))

    def _cell(self, values: Values, key: str) -> Cell:
        if key == "bits":
            bits = values["weight_bits"], values["activation_bits"]
            return Cell(NOTHING if pd.isna(bits[0]) else f"{bits[0]:.0f}/{bits[1]:.0f}")
        value = values.get(key)
        if key in values and pd.isna(value):
            return Cell(NOTHING)
        if key in self.shown:
            text = self.shown[key](values)
        else:
            text = value if isinstance(value, str) else f"{value:.4g}"
        return Cell(text, value=None if isinstance(value, str) else value)
