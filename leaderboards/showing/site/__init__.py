"""One static page with every board: `onebit site`.

``page.html.j2`` is the page, ``page.css`` and ``page.js`` go into it whole: it needs no other file, no
server and no network. Everything that comes from records is escaped by the template engine, and a
content security policy lets no script run but ours, known by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebit.commons.datasets.dataset import KINDS
from onebit.commons.errors import InputError
from onebit.commons.files import write_atomic
from onebit.leaderboards import reported
from onebit.leaderboards.boards import Board
from onebit.leaderboards.showing import pictures
from onebit.leaderboards.showing.formats import HEADINGS, with_sign
from onebit.leaderboards.showing.line import Line, TableLine
from onebit.leaderboards.showing.sheet import Row, Sheet
from onebit.leaderboards.showing.site.svg import inline
from onebit.leaderboards.showing.table import BoardTable, Table
from onebit.leaderboards.showing.tables import all_tables

if TYPE_CHECKING:
    from onebit.backbones.cells.genotype import Genotype

_HERE = Path(__file__).parent


@dataclass
class Picture:
    """An inline SVG and what it shows, in words."""

    svg: str
    caption: str


@dataclass
class Pictures:
    """The pictures of what can be compared: under ``strict``, and under the paper's convention."""

    title: str
    strict: list[Picture] = field(default_factory=list)
    paper: list[Picture] = field(default_factory=list)


@dataclass
class Section:
    """One sheet of a table, as a part of the page.

    Attributes:
        convention: name of the paper's counting rule; empty where there are no pictures.
    """

    table: Table[Any]
    sheet: Sheet
    convention: str = ""
    pictures: list[Pictures] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.table.name if self.kind in ("", "real") else f"{self.table.name}-{self.kind}"

    @property
    def title(self) -> str:
        return self.table.title if self.kind in ("", "real") else f"{self.table.title}, {self.kind}"

    @property
    def kind(self) -> str:
        return self.sheet.kind

    def origin(self, line: TableLine) -> str:
        """Where a reported line was printed."""
        paper, number = line.printed
        return f"table {number} of: {reported.CITATIONS[paper]}"


def build(records: Path, out: Path, show_reported: bool = True) -> Path:
    """Write ``out/index.html`` and return its path.

    Args:
        records: the folder of records.
        show_reported: whether the papers' lines stand beside ours.

    Raises:
        InputError: a broken record, or nothing to show.
        WorkError: the page cannot be written.
    """
    ids = _Ids()
    sections = [
        _section(table, laid_out, ids)
        for table in all_tables()
        for laid_out in table.sheets(table.lines(table.load(records), show_reported))
    ]
    # Real data first: kinds of data never share a table, nor a part of the page.
    sections.sort(key=lambda section: (*KINDS, "").index(section.kind))
    if not sections:
        raise InputError(f"no records in {records}; `onebit bench` makes them")
    return write_atomic(out / "index.html", _page(sections, ids))


class _Ids:
    """Identifiers of the page's rows, unique over all boards."""

    def __init__(self):
        self.of: dict[int, str] = {}
        self.lines: list[Any] = []  # keeps the objects alive, so that ids stay unique

    def row(self, line: Any) -> str:
        if id(line) not in self.of:
            self.lines.append(line)
            self.of[id(line)] = f"row-{len(self.lines)}"
        return self.of[id(line)]


def _section(table: Table[Any], laid_out: Sheet, ids: _Ids) -> Section:
    made = Section(table, laid_out)
    if isinstance(table, BoardTable):
        made.convention = table.board.paper_convention
        lines = [row.line for row in laid_out.rows]
        drawn = [_pictures(table.board, title, shown, ids) for title, shown in _comparable(lines).items()]
        made.pictures = [p for p in drawn if p.strict or p.paper]
    return made


def _comparable(lines: list[Line]) -> dict[str, list[Line]]:
    """The lines of one dataset; where ours have several recipes, those of one beside the printed ones."""
    found: dict[str, list[Line]] = {}
    for dataset in dict.fromkeys(line.dataset for line in lines):
        own = [line for line in lines if line.dataset == dataset]
        recipes = dict.fromkeys(line.recipe for line in own if not line.reported)
        if len(recipes) < 2:
            found[dataset] = own
            continue
        for recipe in recipes:
            found[f"{dataset}, recipe {recipe}"] = [line for line in own if line.reported or line.recipe == recipe]
    return found


def _pictures(board: Board, title: str, lines: list[Line], ids: _Ids) -> Pictures:
    made = Pictures(title)
    metric = next(iter(board.metrics))
    for convention, found in (("strict", made.strict), ("paper", made.paper)):
        for x in pictures.AXES:
            points = pictures.points(board, lines, x, convention, metric)
            if not points:
                continue
            figure = pictures.draw(board, lines, x, convention, links=lambda p: "#" + ids.row(p.line))
            prefix = f"{board.name}-{re.sub(r'[^a-z0-9]+', '-', title)}-{convention}-{x}"
            found.append(Picture(inline(figure, prefix), _caption(board, title, x, convention, points)))
    return made


def _caption(board: Board, title: str, x: str, convention: str, points: list) -> str:
    what = "operations" if x == "ops" else "memory"
    rule = "strict" if convention == "strict" else f"{board.paper_convention}; reported as printed"
    header = next(iter(board.metrics.values()))
    return f"{title}: {header} against {what} ({rule}), {len(points)} points"


def _page(sections: list[Section], ids: _Ids) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["with_sign"] = with_sign
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rows = [row for section in sections for row in section.sheet.rows]
    hashes = set().union(*(_genotypes(row.line) for row in rows))
    cells = _cells(hashes)
    return environment.get_template("page.html.j2").render(
        sections=sections,
        headings={**HEADINGS, "": "Machines"},
        script=script,
        script_hash=digest,
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        row_id=lambda row: ids.row(row.line),
        kind=_kind,
        cells=cells,
        cells_of=lambda line: [cell for cell in cells if cell["hash"] in _genotypes(line)],
        measured=sum(not row.line.reported for row in rows),
        printed=sum(row.line.reported for row in rows),
    )


def _genotypes(line: TableLine) -> set[str]:
    """Hashes of the cells that a line's networks are made of."""
    return {record.genotype_hash for record in line.records if getattr(record, "genotype_hash", None)}


def _kind(row: Row) -> str:
    """For the filter by precision."""
    bits = row.line.weight_bits, row.line.activation_bits
    return {(32, 32): "real", (1, 1): "onebit"}.get(bits, "other")


def _cells(hashes: set[str]) -> list[dict[str, str]]:
    """Pictures of those cells that ship.

    A record of a board holds a cell's hash, not its edges: a cell of one's own cannot be drawn from it.
    """
    if not hashes:
        return []  # importing `backbones` imports torch
    from onebit.backbones.cells import list_cells, load_cell

    known = [(name, load_cell(name)) for name in list_cells()]
    return [
        {"name": name, "hash": cell.hash, "picture": _data_uri(cell), "source": str(cell.provenance.get("source", ""))}
        for name, cell in known
        if cell.hash in hashes
    ]


def _data_uri(cell: Genotype) -> str:
    from onebit.backbones.cells.drawing import draw_cells

    with tempfile.TemporaryDirectory() as folder:
        picture = draw_cells(cell, Path(folder) / "cell.svg").read_bytes()
    return "data:image/svg+xml;base64," + base64.b64encode(picture).decode()
