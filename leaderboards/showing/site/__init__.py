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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebit.commons.datasets.dataset import KINDS
from onebit.commons.errors import InputError
from onebit.commons.files import write_atomic
from onebit.leaderboards import reported
from onebit.leaderboards.boards import ALL, Board
from onebit.leaderboards.recording.latency_record import load_runs as load_latencies
from onebit.leaderboards.recording.record import Record, load_all
from onebit.leaderboards.recording.search_record import SearchRun
from onebit.leaderboards.recording.search_record import load_runs as load_searches
from onebit.leaderboards.showing import latency_table, pictures, search_table
from onebit.leaderboards.showing import table as tables
from onebit.leaderboards.showing.formats import HEADINGS, with_sign
from onebit.leaderboards.showing.layout import sheet
from onebit.leaderboards.showing.line import Line, by_kind
from onebit.leaderboards.showing.sheet import Row, Sheet
from onebit.leaderboards.showing.site.svg import inline

if TYPE_CHECKING:
    from onebit.backbones.cells.genotype import Genotype

_HERE = Path(__file__).parent

TASKS = {"classification": "image classification", "detection": "object detection", "reid": "re-identification"}


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
    """One board of the page.

    Attributes:
        printed: paper and number of the table whose columns it has, or None; a reported line may name
            its own.
        convention: name of the paper's counting rule; empty where there are no pictures.
        unfolded: what a line unfolds to.
        genotypes: hashes of the cells that a line's networks are made of.
        kind: of the data, see :data:`onebit.commons.datasets.dataset.KINDS`; empty where there are none.
    """

    name: str
    title: str
    task: str
    sheet: Sheet
    printed: tuple[str, str] | None
    unfolded: Callable[[Any], list[Kept]]
    genotypes: Callable[[Any], set[str]]
    kind: str = ""
    convention: str = ""
    pictures: list[Pictures] = field(default_factory=list)

    def origin(self, line: Any) -> str:
        """Where a reported line was printed."""
        paper, table = getattr(line, "printed", None) or self.printed
        return f"table {table} of: {reported.CITATIONS[paper]}"


@dataclass
class Kept:
    """A record that a line unfolds to: its file below ``records/`` and what it holds."""

    summary: str
    file: str
    fields: dict[str, Any]


def build(records: Path, out: Path, show_reported: bool = True) -> Path:
    """Write ``out/index.html`` and return its path.

    Args:
        records: the folder of records.
        show_reported: whether the papers' lines stand beside ours.

    Raises:
        InputError: a broken record, or nothing to show.
        WorkError: the page cannot be written.
    """
    sections, ids = [], _Ids()
    for board in ALL.values():
        found = tables.lines(board, load_all(records, board.name), show_reported)
        for kind, lines in by_kind(found, lambda line: line.dataset).items():
            sections.append(_section(board, kind, lines, ids))
    sections += _searches(records, show_reported)
    # Real data first: kinds of data never share a table, nor a part of the page.
    sections.sort(key=lambda section: KINDS.index(section.kind))
    latency = _latency(records, show_reported)
    sections += [latency] if latency.sheet.sections else []
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


def _section(board: Board, kind: str, lines: list[Line], ids: _Ids) -> Section:
    laid_out = sheet(board, lines)
    drawn = [_pictures(board, title, shown, ids) for title, shown in _comparable(lines).items()]
    return Section(
        _anchor(board.name, kind),
        board.title if kind == "real" else f"{board.title}, {kind}",
        TASKS.get(board.task, board.task),
        laid_out,
        board.printed and (board.printed.paper, str(board.printed.table)),
        lambda line: [_kept(record) for record in line.records],
        lambda line: {r.genotype_hash for r in line.records if r.genotype_hash},
        kind,
        board.paper_convention,
        [p for p in drawn if p.strict or p.paper],
    )


def _anchor(name: str, kind: str) -> str:
    return name if kind == "real" else f"{name}-{kind}"


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


def _kept(record: Record) -> Kept:
    summary = f"Seed {record.seed}: {record.status}"
    if record.status == "done":
        summary += f", {record.main_metric} {100 * record.metrics[record.main_metric]:.2f} %"
    return Kept(summary, f"{record.board}/{record.file_name()}", fields(record))


def _searches(records: Path, show_reported: bool) -> list[Section]:
    """What `onebit bench search` found, with the papers' costs only where there is one of ours."""
    runs = list(load_searches(records))
    groups = search_table.grouped(runs)

    def unfolded(line: search_table.SearchLine) -> list[Kept]:
        return [] if line.reported else [_kept_search(run) for run in groups[line.number]]

    def genotypes(line: search_table.SearchLine) -> set[str]:
        return set() if line.reported else {run.genotype_hash for run in groups[line.number]}

    frame = search_table.frame(runs, show_reported and bool(runs))
    made = []
    for kind, laid_out in search_table.sheets(frame).items():
        title = "Architecture search" if kind == "real" else f"Architecture search, {kind}"
        task = TASKS["classification"]
        made.append(Section(_anchor("search", kind), title, task, laid_out, None, unfolded, genotypes, kind))
    return made


def _kept_search(run: SearchRun) -> Kept:
    top1 = 100 * run.metrics[run.main_metric]
    summary = f"Seed {run.seed}: {run.wall_seconds:.0f} s, {run.main_metric} {top1:.2f} %"
    return Kept(summary, f"{run.board}/{run.file_name()}", run.model_dump(mode="json"))


def _latency(records: Path, show_reported: bool) -> Section:
    """What `onebit latency` measured; a line unfolds to its part of the run, without its rivals."""
    runs = list(load_latencies(records))
    measured = [(run, entry) for run in runs for entry in run.entries]

    def unfolded(line: latency_table.LatencyLine) -> list[Kept]:
        if line.reported:
            return []
        run, entry = measured[line.number]
        about = run.model_dump(mode="json", exclude={"entries"})
        file = f"{run.board}/{run.file_name()}"
        return [Kept(f"Run of {run.created}", file, {**entry.model_dump(mode="json"), "run": about})]

    laid_out = latency_table.sheet(latency_table.frame(runs, show_reported))
    return Section(
        "latency", "Latency", "packed networks on CPUs", laid_out, latency_table.PRINTED, unfolded, lambda _: set()
    )


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
    hashes = set().union(*(s.genotypes(row.line) for s in sections for row in s.sheet.rows))
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
        cells_of=lambda section, line: [cell for cell in cells if cell["hash"] in section.genotypes(line)],
        measured=sum(not row.line.reported for row in rows),
        printed=sum(row.line.reported for row in rows),
    )


def fields(record: Record) -> dict[str, Any]:
    """A record as it stands in its file, the outcome first."""
    content = record.model_dump(mode="json")
    first = ["status", "error", "metrics", "untrained", "seed", "epochs", "cost"]
    return {k: content[k] for k in [*first, *(k for k in content if k not in first)]}


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
