"""The latency table, in the columns of DCP-NAS Table 15.

Memory and acceleration are ratios to the real-valued ResNet-18: memory to its 32-bit file, time to
the fastest of the engines in the same run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from onebit.leaderboards import reported
from onebit.leaderboards.recording.latency_record import Entry, LatencyRun
from onebit.leaderboards.recording.trust import established
from onebit.leaderboards.showing import formats
from onebit.leaderboards.showing.sheet import NOTHING, Cell, Column, Row, Sheet

#: Of CSV files; docs/tables.md says what they mean.
COLUMNS = (
    "backbone",
    "engine",
    "precision",
    "weight_bits",
    "activation_bits",
    "memory_mbit_file",
    "memory_mbit_strict",
    "memory_saving",
    "resident_mbyte",
    "latency_ms",
    "latency_ms_q1",
    "latency_ms_q3",
    "acceleration",
    "threads",
    "input",
    "processor",
    "source",
    "trust",
)
_HEADERS = {
    "backbone": "Backbone",
    "engine": "Engine",
    "bits": "W/A",
    "memory_mbit_file": "Mbit on disk",
    "memory_mbit_strict": "Mbit (strict)",
    "memory_saving": "Saving",
    "resident_mbyte": "MB resident",
    "latency_ms": "ms",
    "quartiles": "Quartiles",
    "acceleration": "Acceleration",
    "source": "Source",
    "trust": "Trust",
}


@dataclass(frozen=True)
class LatencyLine:
    """What a row of the sheet stands for.

    Attributes:
        number: its place in the frame.
        reported: whether a paper printed it.
    """

    number: int
    reported: bool
    weight_bits: int
    activation_bits: int


#: Paper and number of the table whose columns these are.
PRINTED = ("dcp-nas", "15")


def frame(runs: Iterable[LatencyRun], printed: bool = False) -> pd.DataFrame:
    """One line per contender of every run, and the paper's lines if ``printed``."""
    rows = [_row(run, entry) for run in runs for entry in run.entries]
    if printed:
        rows += _printed()
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(run: LatencyRun, entry: Entry) -> dict:
    reference = run.fastest_reference()
    height, width = run.input
    first, third = entry.quartiles
    return dict(
        backbone=entry.backbone,
        engine=entry.engine,
        precision=entry.precision,
        weight_bits=entry.weight_bits,
        activation_bits=entry.activation_bits,
        memory_mbit_file=entry.disk_bytes * 8 / 1e6,
        memory_mbit_strict=entry.memory_bits_strict / 1e6,
        memory_saving=None if reference is None else reference.disk_bytes / entry.disk_bytes,
        resident_mbyte=None if entry.resident_bytes is None else entry.resident_bytes / 1e6,
        latency_ms=entry.median,
        latency_ms_q1=first,
        latency_ms_q3=third,
        acceleration=None if reference is None else reference.median / entry.median,
        threads=run.threads,
        input=f"{height}x{width}" + ("" if run.classes else " features"),
        processor=run.processor,
        source="measured",
        trust=str(established(run)),
    )


def _printed() -> list[dict]:
    numbers = reported.load()
    paper, table = PRINTED
    found = numbers[(numbers["paper"] == paper) & (numbers["table"].astype(str) == table)]
    rows = []
    for name, cells in found.groupby("row", sort=False):
        value = dict(zip(cells["column"], cells["value"].astype(float), strict=True))
        rows.append(
            dict(
                backbone=name,
                weight_bits=int(value["weight_bits"]),
                activation_bits=int(value["activation_bits"]),
                memory_mbit_file=value["memory"],
                memory_saving=value.get("memory_saving", 1.0),
                latency_ms=value["latency"],
                acceleration=value.get("acceleration", 1.0),
                input="224x224",
                processor="ODROID C4",
                source="DCP-NAS Table 15",
            )
        )
    return rows


def render(lines: pd.DataFrame, form: str, width: int | None = None) -> str:
    """The table in one of the formats of `onebit table`."""
    return lines.to_csv(index=False) if form == "csv" else formats.render([sheet(lines)], form, width)


def sheet(lines: pd.DataFrame) -> Sheet:
    """Lay the lines of :func:`frame` out; every row's ``line`` is a :class:`LatencyLine`."""
    text = {"backbone", "engine", "source", "trust"}
    columns = [Column(key, header, key not in text) for key, header in _HEADERS.items()]
    sections: dict[str, list[Row]] = {}
    notes: dict[str, int] = {}
    for place, line in enumerate(lines.to_dict("records")):
        count = line["threads"]
        threads = "" if pd.isna(count) else f", {int(count)} thread{'s' if count > 1 else ''}"
        note = f"{line['processor']}, {line['input']}{threads}"
        number = notes.setdefault(note, len(notes) + 1)
        cells = [_cell(line, key) for key in _HEADERS]
        cells[0] = Cell(line["backbone"], notes=(number,))
        about = LatencyLine(place, line["source"] != "measured", line["weight_bits"], line["activation_bits"])
        sections.setdefault(note, []).append(Row(cells, about))
    remarks = [
        "saving and acceleration: over the real-valued ResNet-18 in its fastest engine of the same "
        "run; printed rows: as printed, their memory by the rule of docs/cost.md"
    ]
    return Sheet("latency", columns, list(sections.values()), list(notes), remarks)


def _cell(line: dict, key: str) -> Cell:
    if key == "bits":
        return Cell(f"{line['weight_bits']:.0f}/{line['activation_bits']:.0f}")
    if key == "quartiles":
        low, high = line["latency_ms_q1"], line["latency_ms_q3"]
        return Cell(NOTHING if pd.isna(low) else f"{low:.2f}-{high:.2f}")
    value = line[key]
    if pd.isna(value):
        return Cell(NOTHING)
    if key == "engine":
        return Cell(f"{value} bf16" if line["precision"] == "bfloat16" else value)
    if isinstance(value, str):
        return Cell(value)
    times = key in ("memory_saving", "acceleration")
    return Cell(f"{value:.2f}x" if times else f"{value:.4g}", value=value)
