"""Tables derived from records; they hold nothing that the records do not.

Cells of CSV files are fractions in full precision under stable column names, for pandas; the other
formats print percent and are for people.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from commons.files import write_atomic
from leaderboards.boards import Board
from leaderboards.record import Record

FORMATS = ("text", "csv", "markdown", "latex", "html")
_GROUP = ["dataset", "backbone", "recipe", "cfg_options"]


def table(board: Board, records: Iterable[Record]) -> pd.DataFrame:
    """One line per (dataset, backbone, recipe, options): mean and deviation over its seeds.

    Columns: see ``docs/tables.md``. Failed rows are left out of the means and counted in
    ``failed``. Lines are sorted by dataset, then by the board's first metric, best first.
    """
    rows = [_row(board, r) for r in records]
    if not rows:
        return pd.DataFrame()
    lines = [
        _aggregate(board, group) for _, group in pd.DataFrame(rows).groupby(_GROUP, sort=False)
    ]
    first = next(iter(board.metrics))
    frame = pd.DataFrame(lines)
    return frame.sort_values(
        ["dataset", first, "backbone"], ascending=[True, False, True], ignore_index=True
    )


def _row(board: Board, record: Record) -> dict:
    strict = record.cost.get("strict", {})
    paper = record.cost.get(board.paper_convention, {})
    return dict(
        dataset=record.dataset,
        backbone=record.backbone,
        binarizer=record.binarizer,
        weight_bits=record.weight_bits,
        activation_bits=record.activation_bits,
        recipe=record.recipe,
        cfg_options=" ".join(f"{k}={v}" for k, v in sorted(record.cfg_options.items())),
        epochs=record.epochs,
        done=record.status == "done",
        **{m: record.metrics.get(m) for m in board.metrics},
        untrained=(record.untrained or {}).get(record.main_metric),
        params=_sum(strict, "params_1bit", "params_real"),
        memory_mbit_strict=_scaled(strict, "memory_bits", 1e6),
        ops_m_strict=_scaled(strict, "ops", 1e6),
        paper_convention=board.paper_convention,
        memory_mbit_paper=_scaled(paper, "memory_bits", 1e6),
        ops_m_paper=_scaled(paper, "ops", 1e6),
        wall_seconds=record.wall_seconds,
        source="measured",
    )


def _sum(cost: dict, *keys: str) -> float | None:
    return sum(cost[k] for k in keys) if all(k in cost for k in keys) else None


def _scaled(cost: dict, key: str, unit: float) -> float | None:
    return cost[key] / unit if key in cost else None


def _aggregate(board: Board, group: pd.DataFrame) -> dict:
    done = group[group["done"]]
    line = dict(group.iloc[0] if done.empty else done.iloc[0])
    del line["done"]
    ordered = {}
    for key, value in line.items():
        ordered[key] = value
        if key in board.metrics:
            ordered[key] = done[key].mean()
            ordered[f"{key}_std"] = done[key].std(ddof=1)  # NaN for a single seed: not known
    ordered["untrained"] = done["untrained"].mean() if done["untrained"].notna().any() else None
    ordered["wall_seconds"] = done["wall_seconds"].mean()
    ordered["seeds"] = len(done)
    ordered["failed"] = len(group) - len(done)
    return ordered


def for_people(board: Board, frame: pd.DataFrame) -> pd.DataFrame:
    """The same table with percent, short headers and mean ± deviation, every cell a string."""
    shown = pd.DataFrame(index=frame.index)
    if frame.empty:
        return shown
    shown["dataset"] = frame["dataset"]
    shown["backbone"] = frame["backbone"] + frame["cfg_options"].map(
        lambda o: f" [{o}]" if o else ""
    )
    shown["W/A"] = [f"{w}/{a}" for w, a in zip(frame["weight_bits"], frame["activation_bits"], strict=True)]  # fmt: skip
    for key, header in board.metrics.items():
        shown[f"{header} %"] = [
            _percent(m, s) for m, s in zip(frame[key], frame[f"{key}_std"], strict=True)
        ]
    shown["untrained %"] = [_percent(v) for v in frame["untrained"]]
    shown["Mbit"] = [_number(v) for v in frame["memory_mbit_strict"]]
    shown["M OPs"] = [_number(v) for v in frame["ops_m_strict"]]
    convention = board.paper_convention
    shown[f"Mbit ({convention})"] = [_number(v) for v in frame["memory_mbit_paper"]]
    shown[f"M OPs ({convention})"] = [_number(v) for v in frame["ops_m_paper"]]
    shown["recipe"] = frame["recipe"]
    shown["epochs"] = frame["epochs"].astype(str)
    shown["seeds"] = [
        f"{n} ({f} failed)" if f else str(n) for n, f in zip(frame["seeds"], frame["failed"], strict=True)
    ]  # fmt: skip
    shown["source"] = frame["source"]
    return shown


def _percent(mean: float | None, deviation: float | None = None) -> str:
    if mean is None or pd.isna(mean):
        return "-"
    if deviation is None or pd.isna(deviation):
        return f"{100 * mean:.1f}"
    return f"{100 * mean:.1f} ± {100 * deviation:.1f}"


def _number(value: float | None) -> str:
    return (
        "-"
        if value is None or pd.isna(value)
        else f"{value:.4g}"
        if value < 1000
        else f"{value:.0f}"
    )


def render(board: Board, frame: pd.DataFrame, form: str) -> str:
    """The table as text in one of :data:`FORMATS`."""
    if form == "csv":
        return frame.to_csv(index=False)
    shown = for_people(board, frame)
    if form == "html":
        return shown.to_html(index=False, escape=True, border=0) + "\n"
    if form == "latex":
        return _latex(shown)
    if form == "markdown":
        return _markdown(shown)
    return _text(shown)


def _text(shown: pd.DataFrame) -> str:
    widths = [max(len(c), *(len(v) for v in shown[c])) for c in shown]
    left = {"dataset", "backbone", "recipe", "source"}

    def line(cells: Iterable[str]) -> str:
        padded = [
            cell.ljust(w) if name in left else cell.rjust(w)
            for cell, w, name in zip(cells, widths, shown.columns, strict=True)
        ]
        return "  ".join(padded).rstrip() + "\n"

    rule = "  ".join("-" * w for w in widths) + "\n"
    return line(shown.columns) + rule + "".join(line(row) for row in shown.itertuples(index=False))


def _markdown(shown: pd.DataFrame) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(str(c).replace("|", r"\|") for c in cells) + " |\n"

    rule = "|" + "---|" * len(shown.columns) + "\n"
    return line(shown.columns) + rule + "".join(line(row) for row in shown.itertuples(index=False))


_LATEX_SPECIALS = str.maketrans({c: rf"\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$"})  # fmt: skip


def _latex(shown: pd.DataFrame) -> str:
    def line(cells: Iterable[str]) -> str:
        return " & ".join(str(c).translate(_LATEX_SPECIALS) for c in cells) + r" \\" + "\n"

    body = "".join(line(row) for row in shown.itertuples(index=False))
    columns = "l" * len(shown.columns)
    return (
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{line(shown.columns)}\\midrule\n{body}"
        "\\bottomrule\n\\end{tabular}\n"
    )


def write(board: Board, name: str, frame: pd.DataFrame, folder: Path) -> Path:
    """Write ``<folder>/<name>.csv`` and return its path."""
    return write_atomic(folder / f"{name}.csv", render(board, frame, "csv"))
