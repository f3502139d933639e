"""The table of an ablation, from the ordinary records of the boards."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from onebit.commons.datasets import get_dataset
from onebit.leaderboards.ablations import Ablation, variant_of
from onebit.leaderboards.boards import ALL, Board
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.showing import lines as board_lines
from onebit.leaderboards.showing.line import Line
from onebit.leaderboards.showing.sheet import Sheet
from onebit.leaderboards.showing.table import BoardTable, Table


class AblationTable(Table[Line]):
    """The table of an ablation: one for each board, ours before the paper's lines."""

    def __init__(self, ablation: Ablation):
        self.ablation = ablation
        self.name = ablation.name
        self.made_by = f"onebit bench {ablation.name}"

    def place(self, records: Path) -> Path:
        return records

    def load(self, records: Path) -> list[Record]:
        of_boards = (Record.load_all(records, board) for board in _boards())
        return [record for own in of_boards for record in own if variant_of(self.ablation, record)]

    def lines(self, records: Iterable[Record], reported: bool = False) -> list[Line]:
        ours = measured(self.ablation, records)
        made = []
        for board in _boards():
            made += [line for line in ours if _board_of(line) == board]
            made += printed(self.ablation, board) if reported else []
        return made

    def sheets(self, lines: Sequence[Line]) -> list[Sheet]:
        numbers = dict.fromkeys(table.table for table in self.ablation.printed.values())
        about = f"{self.ablation.question} (DCP-NAS, {', '.join(f'Table {number}' for number in numbers)})"
        shown = []
        for table, own in self._by_board(lines):
            for made in table.sheets(own):
                made.title = made.heading = f"{self.name}: {made.title.split(': ')[-1]}"
                made.remarks.insert(0, about)
                shown.append(made)
        return shown

    def csv(self, lines: Sequence[Line], remembered: bool = True) -> str:
        """The columns of ``docs/tables.md`` after ``ablation`` and ``variant``."""
        parts = []
        for table, own in self._by_board(lines) or [(BoardTable(_board(self.ablation, _boards()[0])), [])]:
            part = table.frame(own, remembered)
            part.insert(0, "ablation", self.name)
            part.insert(1, "variant", [line.variant for line in own])
            parts.append(part)
        return pd.concat(parts, ignore_index=True).to_csv(index=False)

    def render(self, lines: Sequence[Line], form: str, width: int | None = None) -> str:
        text = super().render(lines, form, width)
        sheets = self.sheets(lines) if form == "text" else []
        return f"{sheets[0].title}\n{text}" if len(sheets) == 1 else text

    def _by_board(self, lines: Sequence[Line]) -> list[tuple[BoardTable, list[Line]]]:
        by_board = {board: [line for line in lines if _board_of(line) == board] for board in _boards()}
        return [(BoardTable(_board(self.ablation, board)), own) for board, own in by_board.items() if own]


def _boards() -> list[str]:
    """Boards whose rows an ablation may have."""
    return [name for name, board in ALL.items() if board.task == "classification"]


def measured(ablation: Ablation, records: Iterable[Record]) -> list[Line]:
    """The measured lines: by dataset and network, variants in the paper's order.

    Seeds of a variant are one line although each searched a cell of its own. Variants of one
    network, trained and searched alike, are compared with each other over their seeds.
    """
    by_variant: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        found = variant_of(ablation, record)
        if found is not None:
            variant, rest = found
            plain = record.model_copy(update=dict(cfg_options=rest))
            by_variant.setdefault((record.board, variant.name), []).append(plain)
    made: list[Line] = []
    for board in _boards():
        for variant in ablation.variants_on(board):
            for line in board_lines.measured(_board(ablation, board), by_variant.get((board, variant.name), ())):
                line.variant = variant.name
                made.append(line)
    alike: dict[tuple, list[Line]] = {}
    for line in made:
        alike.setdefault((_board_of(line), line.backbone), []).append(line)
    for (board, _), group in alike.items():
        board_lines.judge(ALL[board], group)
    groups = {key: number for number, key in enumerate(alike)}
    return sorted(made, key=lambda line: (line.dataset, groups[_board_of(line), line.backbone]))


def _board_of(line: Line) -> str:
    return get_dataset(line.dataset).board


def _board(ablation: Ablation, name: str) -> Board:
    """A board with the ablation's columns and the paper's table of it."""
    board = ALL[name]
    scores = [column for column in board.layout if column in (*board.metrics, "error")]
    kept = (
        "memory_strict",
        "memory_paper",
        "ops_strict",
        "ops_paper",
        "wa",
        "search_cost",
        "recipe",
        "epochs",
        "seeds",
        "source",
    )
    return replace(board, printed=ablation.printed.get(name), layout=("backbone", "variant", *scores, *kept))


def printed(ablation: Ablation, board: str) -> list[Line]:
    """The paper's lines, each with its variant, in the paper's order."""
    from onebit.leaderboards import reported

    own = _board(ablation, board)
    if own.printed is None:
        return []
    if ablation.by_group:
        numbers = reported.load(own.printed.paper, own.printed.table)
        made = []
        for group in dict.fromkeys(numbers["group"]):
            table = replace(own, printed=replace(own.printed, group=group))
            made += [replace(line, variant=group) for line in board_lines.printed(table)]
        return made
    plain = ablation.variants_on(board)[-1].name
    made = board_lines.printed(own)
    for line in made:
        row, name = re.fullmatch(r"(.*?)(?: \((.*)\))?", line.backbone).groups()
        line.backbone, line.variant = row, name or plain
    return made
