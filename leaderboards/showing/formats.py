"""A sheet as text, Markdown, LaTeX (booktabs) or HTML."""

from __future__ import annotations

import html as html_escapes
import re
import textwrap
from collections.abc import Sequence

from onebit.leaderboards.showing.sheet import Cell, Column, Sheet
from onebit.leaderboards.showing.statistics import BEST, TIE

_GAP = "  "
#: What stands above tables of each kind of data where there are several.
HEADINGS = {
    "real": "Real data",
    "development": "Development data: not comparable with published numbers",
    "drawn": "Drawn data: they show that a pipeline works",
}


def render(sheets: Sequence[Sheet], form: str, width: int | None = None) -> str:
    """Sheets as text, Markdown, LaTeX or HTML, under headings where there are several.

    Args:
        width: columns of the terminal; a wider text table is folded into panels. None: no limit.
    """
    made = []
    for sheet in sheets:
        body = (
            text(sheet, width) if form == "text" else {"markdown": markdown, "latex": latex, "html": html}[form](sheet)
        )
        if len(sheets) > 1 and sheet.heading:
            body = _heading(sheet.heading, form) + body
        made.append(body)
    return "\n".join(made)


def _heading(heading: str, form: str) -> str:
    return {
        "text": f"{heading}\n\n",
        "markdown": f"**{_markdown_text(heading)}**\n\n",
        "latex": f"\\paragraph{{{_latex_text(heading)}}}\n",
        "html": f"<h3>{html_escapes.escape(heading)}</h3>\n",
    }[form]


def text(sheet: Sheet, width: int | None = None) -> str:
    """For a terminal. A table wider than ``width`` is folded; every panel repeats the name.

    Marks: ``*`` best, ``≈`` tie; notes as ``[1]``.
    """
    rows = [[_plain(cell) for cell in row.cells] for row in sheet.rows]
    headers = [column.header for column in sheet.columns]
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    name = next((i for i, column in enumerate(sheet.columns) if column.key == "backbone"), 0)
    panels = _panels(widths, name, width)
    parts = []
    for panel in panels:
        at = [(i, widths[i], sheet.columns[i]) for i in panel]
        lines = [_text_line(headers, at), _GAP.join("-" * w for _, w, _ in at)]
        start = 0
        for number, section in enumerate(sheet.sections):
            if number:
                lines.append("")
            lines += [_text_line(row, at) for row in rows[start : start + len(section)]]
            start += len(section)
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts) + _text_notes(sheet, width)


def _plain(cell: Cell) -> str:
    mark = {BEST: "*", TIE: "≈"}.get(cell.mark, "")
    notes = f" [{','.join(map(str, cell.notes))}]" if cell.notes else ""
    return f"{mark}{cell.text}{notes}"


def _text_line(cells: Sequence[str], at: Sequence[tuple[int, int, Column]]) -> str:
    padded = [cells[i].rjust(w) if c.numeric else cells[i].ljust(w) for i, w, c in at]
    return _GAP.join(padded).rstrip()


def _panels(widths: list[int], name: int, width: int | None) -> list[list[int]]:
    """Column numbers of each panel; a panel holds at least one column beside the name."""
    if width is None or sum(widths) + len(_GAP) * (len(widths) - 1) <= width:
        return [list(range(len(widths)))]
    panels = [[name]]
    used = widths[name]
    for i in (i for i in range(len(widths)) if i != name):
        if used + len(_GAP) + widths[i] > width and len(panels[-1]) > 1:
            panels.append([name])
            used = widths[name]
        panels[-1].append(i)
        used += len(_GAP) + widths[i]
    return panels


def _text_notes(sheet: Sheet, width: int | None) -> str:
    marks = {"best": "*", "tie": "≈"}
    notes = [(f"[{i}]", note) for i, note in enumerate(sheet.notes, start=1)]
    for remark in sheet.remarks:
        word, _, rest = remark.partition(": ")
        notes.append((marks[word], rest) if word in marks else ("", remark))
    if not notes:
        return ""
    indent = max(len(mark) for mark, _ in notes) + 1
    return "\n" + "".join(
        textwrap.fill(
            f"{mark:<{indent}}{note}",
            width or 100,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        + "\n"
        for mark, note in notes
    )


def markdown(sheet: Sheet) -> str:
    """GitHub's Markdown. Marks: bold best, ``≈`` tie."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |\n"

    def cell(cell: Cell) -> str:
        shown = _markdown_text(cell.text)
        shown = {BEST: f"**{shown}**", TIE: f"≈ {shown}"}.get(cell.mark, shown)
        return shown + (f" <sup>{','.join(map(str, cell.notes))}</sup>" if cell.notes else "")

    rule = "|" + "".join("---:|" if c.numeric else "---|" for c in sheet.columns) + "\n"
    body = "".join(line([cell(c) for c in row.cells]) for row in sheet.rows)
    notes = "".join(f"{i}. {_markdown_text(note)}\n" for i, note in enumerate(sheet.notes, start=1))
    remarks = "".join(f"- {_markdown_text(with_sign(r))}\n" for r in sheet.remarks)
    tail = "".join(f"\n{part}" for part in (notes, remarks) if part)
    return line([_markdown_text(c.header) for c in sheet.columns]) + rule + body + tail


def _markdown_text(value: str) -> str:
    return html_escapes.escape(re.sub(r"([\\|*`\[\]])", r"\\\1", value), quote=False)


def with_sign(remark: str) -> str:
    """A remark about a mark, with the mark as it is shown outside a terminal."""
    return re.sub(r"^best: ", "bold: ", re.sub(r"^tie: ", "≈: ", remark))


_LATEX_SPECIALS = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    | {"±": r"$\pm$", "×": r"$\times$", "≈": r"$\approx$", "≥": r"$\geq$"}
)


def latex(sheet: Sheet) -> str:
    """A tabular for booktabs, its notes below. Marks: bold best, approximately-equal tie.

    Characters that LaTeX cannot take without further packages become question marks.
    """

    def line(cells: Sequence[str]) -> str:
        return " & ".join(cells) + r" \\" + "\n"

    def cell(cell: Cell) -> str:
        shown = _latex_text(cell.text)
        shown = {BEST: rf"\textbf{{{shown}}}", TIE: rf"$\approx$\,{shown}"}.get(cell.mark, shown)
        return shown + (rf"\textsuperscript{{{','.join(map(str, cell.notes))}}}" if cell.notes else "")

    body = "\\midrule\n".join(
        "".join(line([cell(c) for c in row.cells]) for row in section) for section in sheet.sections
    )
    notes = [rf"\textsuperscript{{{i}}} {_latex_text(note)}." for i, note in enumerate(sheet.notes, 1)]
    notes += [f"{_latex_text(with_sign(r)).capitalize()}." for r in sheet.remarks]
    tail = ""
    if notes:
        tail = "\\par\\smallskip\n{\\footnotesize\n" + " \\\\\n".join(notes) + "\n\\par}\n"
    return (
        "% needs \\usepackage{booktabs}\n"
        f"\\begin{{tabular}}{{{''.join('r' if c.numeric else 'l' for c in sheet.columns)}}}\n"
        f"\\toprule\n{line([_latex_text(c.header) for c in sheet.columns])}\\midrule\n{body}"
        f"\\bottomrule\n\\end{{tabular}}\n{tail}"
    )


def _latex_text(value: str) -> str:
    known = "±×≈≥"
    plain = "".join(c if (c.isascii() and c.isprintable()) or c in known else "?" for c in value)
    return plain.translate(_LATEX_SPECIALS)


def html(sheet: Sheet) -> str:
    """A table element and its notes. Marks: strong best, ``≈`` tie."""
    escape = html_escapes.escape

    def cell(cell: Cell, tag: str, numeric: bool) -> str:
        shown = escape(cell.text)
        shown = {BEST: f"<strong>{shown}</strong>", TIE: f"≈ {shown}"}.get(cell.mark, shown)
        notes = f" <sup>{','.join(map(str, cell.notes))}</sup>" if cell.notes else ""
        scope = ' scope="row"' if tag == "th" else ""
        align = ' style="text-align: right"' if numeric else ""
        return f"<{tag}{scope}{align}>{shown}{notes}</{tag}>"

    out = ["<table>", f"<caption>{escape(sheet.title)}</caption>", "<thead>", "<tr>"]
    out += [f'<th scope="col">{escape(c.header)}</th>' for c in sheet.columns]
    out += ["</tr>", "</thead>"]
    for section in sheet.sections:
        out.append("<tbody>")
        for row in section:
            cells = [
                cell(c, "th" if column.key == "backbone" else "td", column.numeric)
                for c, column in zip(row.cells, sheet.columns, strict=True)
            ]
            out.append("<tr>" + "".join(cells) + "</tr>")
        out.append("</tbody>")
    out.append("</table>")
    if sheet.notes:
        out += ["<ol>", *(f"<li>{escape(note)}</li>" for note in sheet.notes), "</ol>"]
    if sheet.remarks:
        out += ["<ul>", *(f"<li>{escape(with_sign(r))}</li>" for r in sheet.remarks), "</ul>"]
    return "\n".join(out) + "\n"
