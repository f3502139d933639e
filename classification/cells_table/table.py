"""The file of the table of trained cells: read in milliseconds, without torch."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebit.commons import guards
from onebit.commons.errors import InputError
from onebit.commons.files import read_small, write_atomic

if TYPE_CHECKING:
    import pandas as pd

    from onebit.backbones import Genotype

#: The table that ships.
FILE = Path(__file__).resolve().parent / "cifar10-jpeg.csv"
KINDS = ("shipped", "random", "mutation")
#: Bytes of a file; a line has some 500.
LARGEST = 2**26
_FIRST = ("genotype_hash", "kind", "name", "seed", "genotype")
_LAST = ("test", "loss", "params", "memory_bits", "ops_strict", "seconds", "config", "commit")


def columns(epochs: int) -> tuple[str, ...]:
    """Of the file; ``valid_1`` and so on are the validation accuracies after each epoch."""
    return (*_FIRST, *(f"valid_{epoch}" for epoch in range(1, epochs + 1)), *_LAST)


def is_cells_table(path: Path) -> bool:
    """Whether a CSV file says in its first line that it is such a table."""
    with open(path, "rb") as stream:
        return stream.readline(200).startswith(",".join(_FIRST).encode())


class CellsTable:
    """Trainings of 1-bit cells by one common setting: a benchmark for architecture search.

    Ours; ``docs/cells-table.md`` says how it was made and what it can and cannot show.

    Args:
        path: a file that ``onebit cells-table train`` wrote; by default the table that ships.

    Attributes:
        path: the file.
        config: the hash of the setting that all lines have in common.
        epochs: of every training.

    Raises:
        InputError: the file is missing, damaged, or mixes settings; the message names the line.
    """

    def __init__(self, path: str | os.PathLike | None = None) -> None:
        self.path = FILE if path is None else Path(path)
        self.lines = read(self.path)
        self.config = self.lines[0]["config"] if self.lines else None
        self.epochs = sum(key.startswith("valid_") for key in self.lines[0]) if self.lines else 0

    def __len__(self) -> int:
        """Trainings."""
        return len(self.lines)

    def frame(self) -> pd.DataFrame:
        """One line per training; accuracies from 0 to 1, ``seconds`` of one processor core.

        ``valid_1``, ``valid_2``, ... are measured after each epoch on training images that no training has seen,
        ``test`` at the end on the test images. ``kind`` is ``shipped``, ``random`` or ``mutation``.
        """
        import pandas as pd

        return pd.DataFrame(self.lines)

    def genotypes(self) -> dict[str, Genotype]:
        """Every cell by its hash.

        Raises:
            InputError: a text that is no cell.
        """
        return {line["genotype_hash"]: decode(line["genotype"]) for line in self.lines}


def encode(genotype: Genotype) -> str:
    """A cell in one word: edges ``operation:source`` into the nodes, ``|`` between nodes, ``/`` between cells."""
    cells = (genotype.normal, genotype.reduce)
    return "/".join("|".join("+".join(f"{name}:{source}" for name, source in node) for node in cell) for cell in cells)


def decode(text: str) -> Genotype:
    """The inverse of :func:`encode`.

    Raises:
        InputError: no cell.
    """
    from onebit.backbones import Genotype

    try:
        normal, reduce = (
            [[(name, int(source)) for name, source in (edge.split(":") for edge in node.split("+"))] for node in nodes]
            for nodes in (cell.split("|") for cell in text.split("/"))
        )
    except ValueError:
        raise InputError(f"genotype {guards.shown(text)}: expected two cells of edges operation:source") from None
    return Genotype(normal, reduce)


def write(path: Path, lines: Iterable[Mapping[str, Any]], epochs: int) -> Path:
    """Write a table whole or not at all, its lines in a fixed order.

    Raises:
        WorkError: it cannot be written.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns(epochs), lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(lines, key=lambda line: (KINDS.index(line["kind"]), line["name"], line["seed"])))
    return write_atomic(path, stream.getvalue())


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a table, checked.

    Raises:
        InputError: the file is missing or damaged; the message names the line.
    """
    try:
        text = read_small(path, LARGEST).decode()
    except FileNotFoundError:
        raise InputError(f"no table of cells at {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"could not read the table of cells {path}: {error}") from None
    rows = csv.reader(io.StringIO(text))
    try:
        header = tuple(next(rows, ()))
        epochs = sum(name.startswith("valid_") for name in header)
        if header != columns(epochs) or not epochs:
            raise InputError(
                f"{path} is no table of cells: its first line is not {','.join(columns(1))} (or more epochs)"
            )
        if not text.endswith("\n"):
            raise InputError(f"{path} is cut off: its last line has no end")
        lines = [_line(path, number, header, row) for number, row in enumerate(rows, 2)]
    except csv.Error as error:
        raise InputError(f"{path} is no CSV file: {error}") from None
    seen: dict[tuple[str, int], int] = {}
    for number, line in enumerate(lines, 2):
        key = line["genotype_hash"], line["seed"]
        if key in seen:
            raise InputError(f"{path}, line {number}: the same cell and seed as line {seen[key]}")
        seen[key] = number
        if line["config"] != lines[0]["config"]:
            raise InputError(f"{path}, line {number}: of another setting ({line['config']}) than line 2")
    return lines


def _line(path: Path, number: int, header: tuple[str, ...], row: list[str]) -> dict[str, Any]:
    where = f"{path}, line {number}"
    if len(row) != len(header):
        raise InputError(f"{where}: expected {len(header)} values, found {len(row)}")
    line: dict[str, Any] = dict(zip(header, row, strict=True))
    for name, digits in (("genotype_hash", 64), ("config", 12), ("commit", 40)):
        value = line[name]
        if name == "commit" and not value:  # an installed package
            continue
        if len(value) != digits or set(value) - set("0123456789abcdef"):
            raise InputError(f"{where}: {name} {guards.shown(value)}: expected {digits} hexadecimal digits")
    guards.choice(f"{where}: kind", line["kind"], KINDS)
    for name in header:
        field, value = f"{where}: {name}", guards.plain_number(line[name])
        if name.startswith("valid_") or name == "test":
            line[name] = float(guards.fraction(field, value))
        elif name in ("loss", "seconds", "ops_strict"):
            line[name] = float(guards.number(field, value, 0))
        elif name in ("seed", "params", "memory_bits"):
            line[name] = guards.whole(field, value, 0)
    return line
