"""Single-point faults of a module's source: what :mod:`tests.mutants.run` puts in one by one.

A fault is a comparison or a boolean turned round, an operator exchanged for another, a number one higher, a minus
sign, a statement, a returned value or a keyword argument left out. Texts, annotations, decorators, and what is said in
errors and warnings stay as they are: no test should fix their words.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.mutants.trial import ROOT

_EXCHANGED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
#: Keyword arguments that change nothing here: of zip, which checks us, and of open, where UTF-8 is the default.
_IDLE_KEYWORDS = {"strict", "encoding", "stacklevel"}
_Change = tuple[str, ast.AST, Callable[[], None]]


@dataclass(frozen=True)
class Mutant:
    """One fault: ``text`` is the line of ``path`` that it changes, without its indent, and ``operator`` what it does."""

    path: str
    number: int
    line: int
    text: str
    operator: str

    def tree(self) -> ast.Module:
        """The module with the fault in it."""
        tree = ast.parse((ROOT / self.path).read_text(encoding="utf-8"))
        list(_changes(tree))[self.number][2]()
        return ast.fix_missing_locations(tree)


def mutants(path: str) -> list[Mutant]:
    """Every fault of the module at ``path``, below the repository's root."""
    source = (ROOT / path).read_text(encoding="utf-8")
    lines = source.splitlines()
    return [
        Mutant(path, number, node.lineno, lines[node.lineno - 1].strip(), name)
        for number, (name, node, _) in enumerate(_changes(ast.parse(source)))
    ]


def _changes(tree: ast.Module) -> Iterator[_Change]:
    """The name, the node and the act of every change, in the order of the source."""
    for node in _walk(tree):
        for kind in (_expression, _statement, _condition):
            yield from kind(node)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that can be changed, parents first."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list", "bases"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            idle = isinstance(child, ast.keyword) and child.arg in _IDLE_KEYWORDS
            if isinstance(child, ast.AST) and not idle and not _is_text(child) and not _speaks(child):
                yield from _walk(child)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _speaks(node: ast.AST) -> bool:
    """Whether ``node`` is an error that is raised or a warning."""
    return isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and "warn" in ast.unparse(node).split("(")[0])


def _set(node: ast.AST, field: str, value: object) -> Callable[[], None]:
    return lambda: setattr(node, field, value)


def _expression(node: ast.AST) -> Iterator[_Change]:
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            new = _EXCHANGED[type(operator)]()
            yield _named("compare", operator, new), node, lambda i=i, new=new: node.ops.__setitem__(i, new)
    elif isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and type(node.op) in _EXCHANGED:
        operands = (node.left, node.right) if isinstance(node, ast.BinOp) else ()
        if not any(_is_text(operand) for operand in operands):
            new = _EXCHANGED[type(node.op)]()
            yield _named("operator", node.op, new), node, _set(node, "op", new)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"constant {node.value} -> {not node.value}", node, _set(node, "value", not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield f"constant {node.value} -> {node.value + 1}", node, _set(node, "value", node.value + 1)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "minus left out", node, _set(node, "op", ast.UAdd())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not left out", node, _set(node, "operand", ast.UnaryOp(ast.Not(), node.operand))
    elif isinstance(node, ast.Call):
        for i, keyword in enumerate(node.keywords):
            if keyword.arg and keyword.arg not in _IDLE_KEYWORDS and not _is_text(keyword.value):
                yield f"keyword {keyword.arg} left out", keyword.value, lambda i=i: node.keywords.pop(i)


def _named(kind: str, old: ast.AST, new: ast.AST) -> str:
    return f"{kind} {type(old).__name__} -> {type(new).__name__}"


def _condition(node: ast.AST) -> Iterator[_Change]:
    """Conditions that are no comparison: those and ``not`` are turned round by their operator."""
    if isinstance(node, (ast.If, ast.While, ast.IfExp)) and not isinstance(node.test, (ast.Compare, ast.UnaryOp)):
        yield "condition turned round", node, _set(node, "test", ast.UnaryOp(ast.Not(), node.test))


def _statement(node: ast.AST) -> Iterator[_Change]:
    if isinstance(node, ast.Return) and node.value and ast.unparse(node.value) != "None":
        yield "return None", node, _set(node, "value", ast.Constant(None))
    for field in ("body", "orelse", "finalbody"):
        statements = getattr(node, field, None)
        for i, statement in enumerate(statements if isinstance(statements, list) else []):
            if _can_go(statement):
                yield (
                    "statement left out",
                    statement,
                    lambda i=i, all=statements: all.__setitem__(i, ast.copy_location(ast.Pass(), all[i])),
                )


def _can_go(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Assign):  # without the assignment of a name, the next line cannot run
        return not any(isinstance(target, (ast.Name, ast.Tuple)) for target in statement.targets)
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Call)
    return isinstance(statement, (ast.AugAssign, ast.Raise, ast.Continue, ast.Break))
