"""What a search chooses from: the edges of a cell, the operations, and the size of the supernet."""

from __future__ import annotations

from dataclasses import dataclass

from onebit.backbones.cells.genotype import INPUT_NODES, INTERMEDIATE_NODES, OPERATIONS, POSSIBLE_EDGES
from onebit.commons import guards
from onebit.commons.errors import InputError

#: Normal and reduction cell: the first axis of every architecture parameter.
CELL_TYPES = 2
NORMAL, REDUCTION = range(CELL_TYPES)

#: The incoming edges of nodes 2 to 5 as positions 0 to 13: of (0, 2), (1, 2), (0, 3), ..., (4, 5).
INCOMING: tuple[range, ...] = tuple(
    range(start, start + number)
    for number, start in zip(range(INPUT_NODES, INPUT_NODES + INTERMEDIATE_NODES), (0, 2, 5, 9), strict=True)
)
#: The source node of each edge.
SOURCES: tuple[int, ...] = tuple(position for edges in INCOMING for position, _ in enumerate(edges))


@dataclass(frozen=True)
class SearchSpace:
    """The supernet's size and its candidate operations.

    DCP-NAS, sections 3.1 and 4.1.2: 6 cells of 16 channels, 8 operations. For the ablations of its
    Table 7 see :func:`onebit.backbones.cells.genotype.search_space`.

    Attributes:
        num_classes: of the data.
        cells: L, at least 3; the cells floor(L/3) and floor(2L/3), from 0, are reduction cells.
        channels: C, of the first cells, an even number.
        stem: ``cifar`` or ``imagenet``, see :class:`onebit.backbones.CellNet`.
        operations: names of the candidates, in the order of the last axis of every architecture
            parameter.

    Raises:
        InputError: a value out of range.
    """

    num_classes: int
    cells: int = 6
    channels: int = 16
    stem: str = "cifar"
    operations: tuple[str, ...] = OPERATIONS

    def __post_init__(self) -> None:
        for name, least in (("num_classes", 2), ("cells", 3), ("channels", 2)):
            guards.whole(f"search space, {name}", getattr(self, name), least, multiple=2 if name == "channels" else 1)
        guards.choice("search space, stem", self.stem, ("cifar", "imagenet"))
        object.__setattr__(self, "operations", tuple(self.operations))
        for name in self.operations:
            guards.choice("search space, operation", name, OPERATIONS)
        if len(set(self.operations)) != len(self.operations):
            raise InputError(f"search space: an operation is listed twice in {self.operations}")
        if not set(self.operations) - {"none"}:
            raise InputError("search space: expected at least one operation other than 'none'")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of architecture parameters: 2 cell types, 14 edges, M operations."""
        return CELL_TYPES, POSSIBLE_EDGES, len(self.operations)
