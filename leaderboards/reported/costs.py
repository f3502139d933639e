"""Printed against computed: every analytic number of the papers' tables beside ours.

    python -m onebit.leaderboards.reported.costs                    the table as markdown
    python -m onebit.leaderboards.reported.costs --format csv       one line per printed number
    python -m onebit.leaderboards.reported.costs --update docs/cost.md

Analytic are parameters, memory, operations, and the ratios made of them; what a row of a table is
stands in :mod:`onebit.leaderboards.reported.networks`.
"""

from __future__ import annotations

import argparse
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from onebit.commons.errors import InputError, OnebitError
from onebit.commons.files import write_atomic
from onebit.leaderboards import reported
from onebit.leaderboards.reported.networks import ANALYTIC, Network, PrintedParameters, find

if TYPE_CHECKING:
    import pandas as pd

    from onebit.backbones import Cost

CONVENTIONS = ("strict", "dcp-nas", "cp-nas", "mmdet-legacy")
#: What the ratios of a table are relative to.
_REAL_VALUED = {
    "dcp-nas": Network("resnet18", classes=None),
    "cp-nas": Network("wrn22", size=(32, 32), classes=10, options=(("stem", "cifar"),)),
}
_SCALE = {"M_params": 1e6, "Mbit": 1e6, "MB": 8e6, "M_ops": 1e6, "M_flops": 1e6, "G_ops": 1e9, "ratio": 1}
_UNITS = {"M_params": "M", "M_ops": "M OPs", "M_flops": "M FLOPs", "G_ops": "G OPs", "ratio": "x"}
BEGIN = "<!-- printed against computed: begin -->"
END = "<!-- printed against computed: end -->"


def table() -> pd.DataFrame:
    """One line per analytic number of the papers, in their order.

    Returns:
        Columns ``paper``, ``table``, ``row``, ``group``, ``column``, ``unit``, ``printed``; then
        ``ours`` under ``convention`` and ``difference`` (percent of the printed value), ``strict``
        and ``strict_difference`` (both NaN where nothing can be computed), ``network`` and
        ``remark``.

    Raises:
        LookupError: a number that :mod:`onebit.leaderboards.reported.networks` says nothing about.
    """
    import pandas as pd

    numbers = reported.load()
    numbers = numbers[numbers["column"].isin(ANALYTIC)]
    return pd.DataFrame([_line(number) for number in numbers.itertuples()])


def _line(number) -> dict:
    entry = find(number.paper, number.table, number.row, number.group, number.column)
    line = {
        "paper": number.paper,
        "table": number.table,
        "row": number.row,
        "group": number.group,
        "column": number.column,
        "unit": number.unit,
        "printed": number.value,
        "ours": float("nan"),
        "convention": "",
        "difference": float("nan"),
        "strict": float("nan"),
        "strict_difference": float("nan"),
        "network": "",
        "remark": entry.remark,
    }
    if entry.counted:
        network, convention = entry.counted[number.column]
        line["network"] = str(network)
        if convention:
            line["ours"] = _value(network, convention, number)
            line["convention"] = convention
        if isinstance(network, Network) and number.column != "params":
            line["strict"] = _value(network, "strict", number)
        if number.column == "params":
            line["convention"] = "count"  # how many there are does not depend on a convention
        for ours, difference in (("ours", "difference"), ("strict", "strict_difference")):
            line[difference] = 100 * (line[ours] / number.value - 1)
    return line


def _value(network: Network | PrintedParameters, convention: str, number) -> float:
    """What ``network`` has in place of a printed number, in that number's unit."""
    column = number.column
    if column in ("memory_saving", "speedup"):
        real = _quantity(_REAL_VALUED[number.paper], convention, column)
        return real / _quantity(network, convention, column)
    return _quantity(network, convention, column) / _SCALE[number.unit]


def _quantity(network: Network | PrintedParameters, convention: str, column: str) -> float:
    if isinstance(network, PrintedParameters):
        return _printed_memory(network, convention)
    cost = _costs(network)[convention]
    if column == "params":
        return cost.params_1bit + cost.params_real
    return cost.memory_bits if column.startswith("memory") else cost.ops


def _printed_memory(given: PrintedParameters, convention: str) -> float:
    """Bits of a printed number of parameters, with stem and classifier at 32 if so stated."""
    real = 0
    if given.real_part is not None:
        rows = _costs(given.real_part)[convention].rows
        real = sum(row.params_real for row in rows if row.macs and row.weight_bits == 32)
    return (given.millions * 1e6 - real) * given.bits + 32 * real


@cache
def _costs(network: Network) -> dict[str, Cost]:
    if network.task == "detection":
        from onebit.detection.cost import model_costs

        return model_costs(network.backbone, CONVENTIONS, network.size, network.classes)
    from onebit import backbones

    return backbones.costs(
        network.backbone,
        (3, *network.size),
        CONVENTIONS,
        classes=network.classes,
        out_indices=(3,),
        **dict(network.options),
    )


def markdown(lines: pd.DataFrame) -> str:
    """Two tables: what was computed, equal numbers of several tables in one line; and what was not."""
    computed = lines[lines["network"] != ""]
    parts = [
        f"Of {len(lines)} printed numbers {len(computed)} have a number of ours beside them.",
        "",
        "| network | printed in table | quantity | printed | ours | by | difference | `strict` | difference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    remarks: list[str] = []
    keys = ["network", "column", "unit", "printed", "convention", "remark"]
    for (network, column, unit, printed, convention, remark), same in computed.groupby(keys, sort=False):
        first = same.iloc[0]
        mark = ""
        if remark:
            remarks += [remark] if remark not in remarks else []
            mark = f" [{remarks.index(remark) + 1}]"
        by = f"`{convention}`" if convention in CONVENTIONS else convention or "none fits"
        cells = [
            network,
            _where(same),
            f"{column.replace('_', ' ')}, {_UNITS.get(unit, unit)}{mark}",
            f"{printed:g}",
            _shown(first["ours"]),
            by,
            _percent(first["difference"]),
            _shown(first["strict"]),
            _percent(first["strict_difference"]),
        ]
        parts.append(f"| {' | '.join(cells)} |")
    parts += ["", *(f"[{number}] {remark}.  " for number, remark in enumerate(remarks, 1)), ""]
    parts += ["| not computed, because | numbers | of which |", "|---|---|---|"]
    for remark, same in lines[lines["network"] == ""].groupby("remark", sort=False):
        places = [
            f"{reported.NAMES[paper]} {number}: {', '.join(dict.fromkeys(rows['row']))}"
            for (paper, number), rows in same.groupby(["paper", "table"], sort=False)
        ]
        parts.append(f"| {remark.removeprefix('not computed: ')} | {len(same)} | {'; '.join(places)} |")
    return "\n".join(parts)


def _where(same: pd.DataFrame) -> str:
    """The tables, and the rows' names; of many rows the first two."""
    places = []
    for paper, numbers in same.groupby("paper", sort=False):
        tables = ", ".join(dict.fromkeys(numbers["table"]))
        rows = list(dict.fromkeys(numbers["row"]))
        more = f" and {len(rows) - 2} more" if len(rows) > 2 else ""
        places.append(f"{reported.NAMES[paper]} {tables}: {'; '.join(rows[:2])}{more}")
    return "<br>".join(places)


def _shown(value: float) -> str:
    return "" if value != value else f"{value:.5g}"


def _percent(value: float) -> str:
    return "" if value != value else f"{round(value, 1) + 0.0:+.1f} %"  # never -0.0


def updated(document: str, content: str) -> str:
    """``document`` with ``content`` between the two markers.

    Raises:
        InputError: the markers are missing or out of order.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"expected the lines {BEGIN} and {END} in the document")
    return f"{before}{BEGIN}\n\n{content}\n\n{END}{after}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m onebit.leaderboards.reported.costs",
        description="Every analytic number of the papers' tables beside what this suite counts.",
    )
    parser.add_argument("--format", choices=("markdown", "csv"), default="markdown")
    parser.add_argument(
        "--update", type=Path, metavar="FILE", help="put the table between the markers of a markdown file"
    )
    args = parser.parse_args(arguments)
    try:
        lines = table()
        if args.update:
            if not args.update.is_file():
                raise InputError(f"no file {args.update}")
            document = args.update.read_text(encoding="utf-8")
            write_atomic(args.update, updated(document, markdown(lines)))
        elif args.format == "csv":
            sys.stdout.write(lines.to_csv(index=False, float_format="%.6g"))
        else:
            print(markdown(lines))
    except OnebitError as error:
        print(f"reported_costs: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
