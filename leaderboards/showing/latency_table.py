"""The latency table, in the columns of DCP-NAS Table 15.

Memory and acceleration are ratios to the real-valued ResNet-18: memory to its 32-bit file, time to
the fastest of the engines in the same run.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from onebit.leaderboards import reported
from onebit.leaderboards.recording.latency_record import Entry, LatencyRun
from onebit.leaderboards.showing.line import PlainLine
from onebit.leaderboards.showing.plain import PlainTable, Values
from onebit.leaderboards.showing.sheet import NOTHING

_COLUMNS = (
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


#: Paper and number of the table whose columns these are.
_PRINTED = ("dcp-nas", "15")


def _measured(runs: Iterable[LatencyRun]) -> list[PlainLine]:
    """One line per contender of every run."""
    return [_line(run, entry) for run in runs for entry in run.entries]


def _line(run: LatencyRun, entry: Entry) -> PlainLine:
    reference = run.fastest_reference()
    height, width = run.input
    first, third = entry.quartiles
    values = dict(
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
    )
    count = run.threads
    note = f"{run.processor}, {values['input']}, {count} thread{'s' if count > 1 else ''}"
    # Of the run, a line unfolds to its own part, without its rivals.
    part = {**entry.model_dump(mode="json"), "run": run.model_dump(mode="json", exclude={"entries"})}
    return PlainLine(values=values, section=note, notes=[note], records=[run], part=part)


def _printed() -> list[PlainLine]:
    lines = []
    for name, cells in reported.load(*_PRINTED).groupby("row", sort=False):
        value = dict(zip(cells["column"], cells["value"].astype(float), strict=True))
        values = dict(
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
        note = f"{values['processor']}, {values['input']}"
        lines.append(PlainLine(values=values, section=note, notes=[note], printed=_PRINTED))
    return lines


def _quartiles(values: Values) -> str:
    low, high = values["latency_ms_q1"], values["latency_ms_q3"]
    return NOTHING if pd.isna(low) else f"{low:.2f}-{high:.2f}"


TABLE = PlainTable(
    name="latency",
    title="Latency",
    about="packed networks on CPUs",
    made_by="onebit latency BACKBONE...",
    columns=_COLUMNS,
    headers=_HEADERS,
    measured=_measured,
    printed=_printed,
    remarks=(
        "saving and acceleration: over the real-valued ResNet-18 in its fastest engine of the same "
        "run; printed rows: as printed, their memory by the rule of docs/cost.md",
    ),
    shown={
        "engine": lambda values: values["engine"] + (" bf16" if values["precision"] == "bfloat16" else ""),
        "quartiles": _quartiles,
        "memory_saving": lambda values: f"{values['memory_saving']:.2f}x",
        "acceleration": lambda values: f"{values['acceleration']:.2f}x",
    },
    columns_of=_PRINTED,
)
