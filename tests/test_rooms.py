"""The floors hold: a room imports only from floors below it."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOOR = {"commons": 0, "packed": 1, "backbones": 2, "classification": 3, "detection": 3, "reid": 3, "leaderboards": 4}
FOREIGN = {
    "packed": {"torch", "torchvision", "mmengine", "mmdet", "torchreid", "pydantic", "PIL", "cv2", "rich"},
    "backbones": {"mmdet", "torchreid"},
    "classification": {"mmdet", "torchreid"},
    "detection": {"torchreid"},
    "reid": {"mmdet"},
}
FILES = [p for room in FLOOR for p in sorted((ROOT / room).rglob("*.py"))]


def room_of(module: str) -> str:
    """The room of a module, or the top of a foreign package."""
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] or first if first == "onebit" else first


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {room_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            rooms = [alias.name for alias in node.names] if node.module == "onebit" else [room_of(node.module)]
            found |= set(rooms)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_from_floors_below(path):
    room = path.relative_to(ROOT).parts[0]
    for other in imported(path) - {room}:
        if other in FLOOR:
            assert FLOOR[other] < FLOOR[room], f"{room} imports {other}"
        assert other not in FOREIGN.get(room, ()), f"{room} imports {other}"


def test_every_room_was_looked_at():
    assert {p.relative_to(ROOT).parts[0] for p in FILES} == set(FLOOR)


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """The suite's modules that a file imports anywhere in it, also for type checkers alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & known


def test_no_module_imports_one_that_imports_it():
    """Not by way of others either; a package may name its own modules."""
    modules = {}
    for path in FILES:
        name = ".".join(("onebit", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        modules[name] = path
    graph = {
        name: {other for other in imported_modules(path, set(modules)) if not f"{name}.".startswith(f"{other}.")}
        for name, path in modules.items()
    }
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))
