"""The table of an ablation, from the ordinary records of the boards."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onebit.commons.datasets import get_dataset
from onebit.leaderboards.ablations import Ablation, variant_of
from onebit.leaderboards.boards import ALL, Board
from onebit.leaderboards.recording.record import Record, load_all
from onebit.leaderboards.showing import lines as board_lines
from onebit.leaderboards.showing import table as tables
from onebit.leaderboards.showing.line import Line

if TYPE_CHECKING:
    import pandas as pd


def _boards() -> list[str]:
    """Boards whose rows an ablation may have."""
    return [name for name, board in ALL.items() if board.task == "classification"]


def load(folder: Path) -> list[Record]:
    """All records of the classification boards below ``folder``."""
    return [record for board in _boards() for record in load_all(folder, board)]


def lines(ablation: Ablation, records: Iterable[Record]) -> list[Line]:
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


def render(ablation: Ablation, records: Iterable[Record], form: str, reported: bool, width: int | None = None) -> str:
    """The ablation in one of :data:`onebit.leaderboards.showing.table.FORMATS`, a table for each board.

    Args:
        reported: with the paper's lines, for every board that has some.
    """
    ours = lines(ablation, records)
    if form == "csv":
        return frame(ablation, ours, reported).to_csv(index=False)
    from onebit.leaderboards.showing import formats

    shown = []
    for board in _boards():
        found = [line for line in ours if _board_of(line) == board]
        if reported:
            found += printed(ablation, board)
        if not found:
            continue
        for made in tables.sheets(_board(ablation, board), found):
            made.title = made.heading = f"{ablation.name}: {made.title.split(': ')[-1]}"
            made.remarks.insert(0, f"{ablation.question} (DCP-NAS, {_tables(ablation)})")
            shown.append(made)
    if form == "text" and len(shown) == 1:
        return f"{shown[0].title}\n{formats.render(shown, form, width)}"
    return formats.render(shown, form, width)


def frame(ablation: Ablation, ours: list[Line], reported: bool) -> pd.DataFrame:
    """The columns of ``docs/tables.md`` after ``ablation`` and ``variant``."""
    import pandas as pd

    parts = []
    for board in _boards():
        found = [line for line in ours if _board_of(line) == board]
        if reported:
            found += printed(ablation, board)
        part = tables.frame(_board(ablation, board), found)
        part.insert(0, "ablation", ablation.name)
        part.insert(1, "variant", [line.variant for line in found])
        parts.append(part)
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else parts[0]


def _tables(ablation: Ablation) -> str:
    return ", ".join(f"Table {number}" for number in dict.fromkeys(p.table for p in ablation.printed.values()))
