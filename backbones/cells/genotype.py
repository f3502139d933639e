"""The description of a searched cell: which operation joins which nodes.

A cell has two input nodes (numbered 0 and 1) and four intermediate nodes (2 to 5). Node ``i`` sums
what reaches it along its edges from earlier nodes, and the cell puts out nodes 2 to 5 concatenated
(DCP-NAS paper, section 3.1). A genotype holds one *normal* and one *reduction* cell.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from onebit.backbones.cells.derivation import DERIVATIONS, checked_operations, checked_scores, derive_cell
from onebit.backbones.cells.genotype_text import format_cells, parse_cells
from onebit.commons import guards
from onebit.commons.errors import InputError
from onebit.commons.files import read_small, write_atomic

#: The candidate operations, in the order in which a search numbers them (paper, section 3.1).
OPERATIONS = (
    "none",
    "skip_connect",
    "max_pool_3x3",
    "avg_pool_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
#: Input nodes of a cell: the outputs of the cell before the last and of the last cell.
INPUT_NODES = 2
#: Intermediate nodes of a cell; their outputs are concatenated.
INTERMEDIATE_NODES = 4
#: Edges that a cell can have: 2 + 3 + 4 + 5.
POSSIBLE_EDGES = sum(range(INPUT_NODES, INPUT_NODES + INTERMEDIATE_NODES))


def search_space(pooling: bool = True, skip: bool = True) -> tuple[str, ...]:
    """The operations that a search chooses from, without those that are switched off.

    DCP-NAS paper, Table 7: the rows "w/o pooling layer", "w/o skip connection" and both.

    Args:
        pooling: keep ``max_pool_3x3`` and ``avg_pool_3x3``.
        skip: keep ``skip_connect``.
    """
    return tuple(name for name in OPERATIONS if (pooling or "pool" not in name) and (skip or name != "skip_connect"))


FORMAT = "onebit-genotype"
VERSION = 1
#: Bytes of a file; the cells that ship have a few thousand.
LARGEST = 2**20
_KEYS = {"format", "version", "normal", "reduce", "provenance"}

Edge = tuple[str, int]  # (operation, source node)
Cell = tuple[tuple[Edge, ...], ...]  # the incoming edges of nodes 2 to 5


@dataclass(frozen=True)
class Genotype:
    """A discrete cell, checked when it is made.

    ``normal`` and ``reduce`` list, for the nodes 2 to 5 in turn, the incoming edges as
    ``(operation, source node)``. Either every node has exactly two edges (``top2``) or every node
    has one edge from each earlier node, 14 in all (``all14``). Edges into a node are kept sorted by
    source, since the order of a sum means nothing; so genotypes that describe the same cell are
    equal and have the same hash. ``provenance`` says where the cell comes from (source, method,
    dataset, ...) and takes no part in either.

    Raises:
        InputError: an unknown operation, a source that is not an earlier node, two edges from one
            source, a wrong number of nodes or edges, or anything of the wrong type.
    """

    normal: Cell
    reduce: Cell
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        normal = _checked_cell(self.normal, "normal")
        reduce = _checked_cell(self.reduce, "reduce")
        if _derivation(normal) != _derivation(reduce):
            raise InputError(
                "genotype: the normal and the reduction cell must both keep two edges per node or "
                f"both all {POSSIBLE_EDGES}; normal is {_derivation(normal)}, "
                f"reduce is {_derivation(reduce)}"
            )
        object.__setattr__(self, "normal", normal)
        object.__setattr__(self, "reduce", reduce)
        object.__setattr__(self, "provenance", MappingProxyType(_checked_provenance(self)))

    @property
    def derivation(self) -> str:
        """``top2`` (two edges per node, 8 per cell) or ``all14``."""
        return _derivation(self.normal)

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the two cells alone: the same on every machine and in every version."""
        structure = {"normal": self.normal, "reduce": self.reduce}
        text = json.dumps(structure, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and dicts, as :meth:`from_dict` reads them and :meth:`save` writes them."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "normal": [[list(edge) for edge in node] for node in self.normal],
            "reduce": [[list(edge) for edge in node] for node in self.reduce],
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_dict(cls, content: Any, where: str = "genotype") -> Genotype:
        """The inverse of :meth:`to_dict`; ``where`` names the origin in error messages.

        Raises:
            InputError: anything but a genotype of this format and version.
        """
        if not isinstance(content, Mapping):
            raise InputError(f"{where}: expected a JSON object, found {_kind(content)}")
        guards.choice(f"{where}: format", content.get("format"), [FORMAT])
        guards.choice(f"{where}: version", content.get("version"), [VERSION])
        for key in content:
            guards.choice(f"{where}: key", key, sorted(_KEYS))
        if missing := sorted({"normal", "reduce"} - set(content)):
            raise InputError(f'{where}: the key "{missing[0]}" is missing')
        try:
            return cls(content["normal"], content["reduce"], content.get("provenance", {}))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None

    @classmethod
    def from_text(
        cls, text: str, provenance: Mapping[str, Any] | None = None, where: str = "genotype text"
    ) -> Genotype:
        """From the text of the named tuple in which DARTS and its successors publish cells.

        Args:
            text: ``Genotype(normal=[('sep_conv_3x3', 1), ...], normal_concat=range(2, 6),
                reduce=[...], reduce_concat=range(2, 6))``; it is parsed, never run.
            provenance: where the cell comes from, which the text does not say.
            where: names the origin in error messages.

        Raises:
            InputError: not such a text, or not a cell of this suite.
        """
        cells = parse_cells(text, where)
        try:
            return cls(_nested(cells["normal"]), _nested(cells["reduce"]), provenance or {})
        except InputError as error:
            raise InputError(f"{where}: {error}") from None

    def to_text(self) -> str:
        """The named tuple's text, which :meth:`from_text` reads; provenance is not part of it."""
        return format_cells(self.normal, self.reduce)

    @classmethod
    def derive(
        cls,
        scores: Any,
        derivation: str = "top2",
        operations: Sequence[str] = OPERATIONS,
        *,
        keep_none: bool = False,
        provenance: Mapping[str, Any] | None = None,
    ) -> Genotype:
        """The discrete cells that the scores of a search stand for.

        Every edge keeps its best operation. ``all14`` keeps all edges (CP-NAS, BNAS, ABanditNAS);
        ``top2`` keeps, of the edges into a node, the two whose surviving operation scores highest
        (DARTS, and the release of DCP-NAS). Scores are thus compared between edges: where that
        needs probabilities, as in DARTS, pass the softmax over each edge's operations. Ties go to
        the operation listed first, and among edges to the earlier source.

        Args:
            scores: [2, 14, operations], array or tensor; the normal cell first, edges by target
                and then source: (0, 2), (1, 2), (0, 3), (1, 3), (2, 3), ..., (4, 5).
            derivation: ``all14`` or ``top2``.
            operations: names of the last axis; see :func:`search_space`.
            keep_none: let ``none`` survive where it scores highest. By default it is passed over,
                as in DARTS.
            provenance: where the scores come from.

        Raises:
            InputError: an argument out of range, or scores of another shape or not finite.
        """
        guards.choice("derivation", derivation, DERIVATIONS)
        names = checked_operations(operations, OPERATIONS, keep_none)
        both = checked_scores(scores, POSSIBLE_EDGES, names)
        normal, reduce = (_nested(derive_cell(of, derivation, names, keep_none)) for of in both)
        return cls(normal, reduce, provenance or {})

    @classmethod
    def random(cls, seed: int, derivation: str = "top2") -> Genotype:
        """A cell drawn uniformly from all of one kind: what a search has to beat.

        The cells that :meth:`derive` gives for scores that are noise: every operation but ``none``,
        and every pair of edges into a node, is equally likely.

        Raises:
            InputError: unknown derivation.
        """
        scores = np.random.default_rng(seed).random((2, POSSIBLE_EDGES, len(OPERATIONS)))
        provenance = {
            "source": "drawn without a search: operations (but none) and edges equally likely",
            "method": "Random",
            "dataset": None,
            "seed": seed,
        }
        return cls.derive(scores, derivation, provenance=provenance)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Genotype:
        """Read a genotype that :meth:`save` wrote.

        Raises:
            InputError: the file is missing, unreadable, not JSON, or not a genotype.
        """
        path = Path(path)
        try:
            text = read_small(path, LARGEST).decode()
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"no genotype file at {path}") from None
        except (OSError, UnicodeDecodeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise InputError(f"could not read the genotype {path}: {reason}") from None
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the genotype {path} is not valid JSON: {error}") from None
        return cls.from_dict(content, where=f"genotype {path}")

    def save(self, path: str | os.PathLike) -> Path:
        """Write this genotype as JSON, one node a line, all of it or nothing.

        Raises:
            WorkError: the file cannot be written.
        """
        content = self.to_dict()
        lines = []
        for key, value in content.items():
            if key in ("normal", "reduce"):
                nodes = ",\n".join(f"    {json.dumps(node)}" for node in value)
                lines.append(f'  "{key}": [\n{nodes}\n  ]')
            else:
                lines.append(f'  "{key}": {json.dumps(value, indent=2).replace(chr(10), chr(10) + "  ")}')
        return write_atomic(path, "{\n" + ",\n".join(lines) + "\n}\n")

    def __deepcopy__(self, memo: dict) -> Genotype:
        return self  # immutable

    def __reduce__(self) -> tuple:  # a mapping proxy cannot be pickled
        return type(self), (self.normal, self.reduce, dict(self.provenance))


def _nested(nodes: Iterable[Iterable[Edge]]) -> Cell:
    return tuple(tuple(edges) for edges in nodes)


def _derivation(cell: Cell) -> str:
    return "top2" if all(len(edges) == 2 for edges in cell) else "all14"


def _checked_cell(cell: Any, name: str) -> Cell:
    if not _is_list(cell) or len(cell) != INTERMEDIATE_NODES:
        raise InputError(f"{name} cell: expected a list of {INTERMEDIATE_NODES} nodes, found {_length(cell)}")
    nodes = tuple(
        _checked_node(edges, number, f"{name} cell, node {number}") for number, edges in enumerate(cell, INPUT_NODES)
    )
    two = all(len(edges) == 2 for edges in nodes)
    everything = all(len(edges) == number for number, edges in enumerate(nodes, INPUT_NODES))
    if not (two or everything):
        raise InputError(
            f"{name} cell: expected two edges into every node, or one from each earlier node "
            f"(2, 3, 4, 5); found {', '.join(str(len(edges)) for edges in nodes)}"
        )
    return nodes


def _checked_node(edges: Any, number: int, where: str) -> tuple[Edge, ...]:
    if not _is_list(edges):
        raise InputError(f"{where}: expected a list of edges, found {_kind(edges)}")
    checked = [_checked_edge(edge, number, f"{where}, edge {position}") for position, edge in enumerate(edges)]
    sources = [source for _, source in checked]
    if repeated := [source for source in sources if sources.count(source) > 1]:
        raise InputError(f"{where}: more than one edge comes from node {repeated[0]}")
    return tuple(sorted(checked, key=lambda edge: edge[1]))


def _checked_edge(edge: Any, number: int, where: str) -> Edge:
    if not _is_list(edge) or len(edge) != 2:
        raise InputError(f"{where}: expected [operation, source node], found {_length(edge)}")
    operation, source = edge
    guards.choice(f"{where}: operation", operation, OPERATIONS)
    return operation, guards.whole(f"{where}: source node", source, 0, number - 1)


def _checked_provenance(genotype: Genotype) -> dict[str, Any]:
    provenance = genotype.provenance
    if not isinstance(provenance, Mapping) or not all(isinstance(key, str) for key in provenance):
        raise InputError(f"provenance: expected an object with text keys, found {_kind(provenance)}")
    try:  # a copy of its own, and the assurance that JSON can hold it
        return json.loads(json.dumps(dict(provenance), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"provenance: cannot be written as JSON: {error}") from None


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__


def _length(value: Any) -> str:
    return f"{len(value)} entries" if _is_list(value) else _kind(value)
