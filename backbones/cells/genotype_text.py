"""The text in which DARTS and its successors publish cells: a call of a named tuple.

    Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ...], normal_concat=range(2, 6),
             reduce=[...], reduce_concat=range(2, 6))

The text is read as a syntax tree and never run.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from onebit.commons.errors import InputError

#: The fields of the named tuple, in its order.
FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
#: Edges into the nodes 2 to 5 in turn, by how many a cell has.
_EDGES_PER_NODE = {8: (2, 2, 2, 2), 14: (2, 3, 4, 5)}
#: The nodes that a cell puts out.
_CONCAT = (2, 3, 4, 5)
_LONGEST = 20_000
_EXAMPLE = (
    "Genotype(normal=[('sep_conv_3x3', 1), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6))"
)


def parse_cells(text: str, where: str = "genotype text") -> dict[str, list]:
    """The edges of both cells, grouped by node, from the text of a named tuple.

    An assignment before the call (``DARTS_V2 = Genotype(...)``) and the module's name
    (``genotypes.Genotype``) are understood, as are fields by position.

    Args:
        text: the text.
        where: names its origin in error messages.

    Returns:
        ``{"normal": [...], "reduce": [...]}``, each a list of four nodes with a list of edges
        ``(operation, source)`` as they stand in the text; operations and sources unchecked.

    Raises:
        InputError: not such a call, a field missing or twice, a number of edges other than 8
            (two per node) or 14 (all), or an output other than the nodes 2 to 5.
    """
    fields = _fields(_call(text, where), where)
    for name in ("normal_concat", "reduce_concat"):
        value = _literal(fields[name], name, where)
        nodes = tuple(value) if isinstance(value, (list, tuple)) else value
        if nodes not in (range(2, 6), _CONCAT):
            raise InputError(
                f"{where}: {name} is {_source(fields[name])}; expected range(2, 6), the "
                "concatenation of all four intermediate nodes"
            )
    return {name: _by_node(fields[name], name, where) for name in ("normal", "reduce")}


def format_cells(normal: Sequence, reduce: Sequence) -> str:
    """The inverse of :func:`parse_cells`, in one line."""

    def edges(nodes: Sequence) -> str:
        return repr([(operation, source) for node in nodes for operation, source in node])

    return (
        f"Genotype(normal={edges(normal)}, normal_concat=range(2, 6), "
        f"reduce={edges(reduce)}, reduce_concat=range(2, 6))"
    )


def _call(text: str, where: str) -> ast.Call:
    if not isinstance(text, str):
        raise InputError(f"{where}: expected text, found {type(text).__name__}")
    if len(text) > _LONGEST:
        raise InputError(f"{where}: {len(text)} characters are too many for a genotype")
    try:
        statements = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or "it is nested too deeply or holds a zero byte"
        line = getattr(error, "lineno", None)
        place = f" in line {line}" if line else ""
        raise InputError(f"{where}: not a named tuple{place}: {reason}") from None
    if len(statements) == 1:
        statement = statements[0]
        value = statement.value if isinstance(statement, (ast.Expr, ast.Assign)) else None
        if isinstance(value, ast.Call) and _name(value.func) == "Genotype":
            return value
    raise InputError(f"{where}: expected one call {_EXAMPLE}, found {_shorten(text)!r}")


def _name(function: ast.expr) -> str | None:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else None


def _fields(call: ast.Call, where: str) -> dict[str, ast.expr]:
    if len(call.args) > len(FIELDS):
        raise InputError(f"{where}: {len(call.args)} fields; expected {', '.join(FIELDS)}")
    found = dict(zip(FIELDS, call.args, strict=False))
    for keyword in call.keywords:
        if keyword.arg not in FIELDS:
            shown = "**" if keyword.arg is None else repr(keyword.arg)
            raise InputError(f"{where}: unknown field {shown}; expected {', '.join(FIELDS)}")
        if keyword.arg in found:
            raise InputError(f"{where}: the field {keyword.arg!r} is given twice")
        found[keyword.arg] = keyword.value
    if missing := [name for name in FIELDS if name not in found]:
        raise InputError(f"{where}: the field {missing[0]!r} is missing")
    return found


def _by_node(field: ast.expr, name: str, where: str) -> list[list]:
    edges = _literal(field, name, where)
    if not isinstance(edges, (list, tuple)):
        raise InputError(f"{where}: {name} is {_source(field)}; expected a list of edges")
    if len(edges) not in _EDGES_PER_NODE:
        raise InputError(
            f"{where}: {name} has {len(edges)} edges; expected 8 (two into each of the four "
            "nodes) or 14 (one from every earlier node)"
        )
    nodes, start = [], 0
    for number in _EDGES_PER_NODE[len(edges)]:
        nodes.append(list(edges[start : start + number]))
        start += number
    return nodes


def _literal(node: ast.expr, name: str, where: str) -> Any:
    """The value of a literal, or of ``range`` with literal integers (which is not expanded)."""
    try:
        if isinstance(node, ast.Call) and _name(node.func) == "range" and not node.keywords:
            return range(*(ast.literal_eval(argument) for argument in node.args))
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise InputError(f"{where}: {name} is {_source(node)}; expected plain values") from None


def _source(node: ast.expr) -> str:
    try:
        return _shorten(ast.unparse(node))
    except RecursionError:
        return "nested too deeply"


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."
