"""Which cells the table holds, and in which order they are trained: the same for every process and machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from onebit.backbones import Genotype
from onebit.backbones.cells import list_cells, load_cell

#: Uniform random cells, by the seeds of :meth:`Genotype.random`; those of the random cells that ship are smaller.
RANDOM_SEEDS = range(1000, 1200)
#: Paths from a good to a bad random cell, and the steps of each that are trained.
PATHS, STEPS = 10, 6
#: This many cells are trained from three seeds: all that ship, and random ones up to this number.
REPEATED, SEEDS = 40, 3
#: Of these many random cells two seeds come first: they say early how much of a difference is noise.
EARLY = 8


@dataclass(frozen=True)
class Planned:
    """A training that the table is to hold.

    Attributes:
        kind: ``shipped``, ``random`` or ``mutation``.
        name: of a cell that ships, ``random_<seed>``, or ``path_<number>_<step>``.
    """

    kind: str
    name: str
    genotype: Genotype
    seed: int

    @property
    def key(self) -> tuple[str, int]:
        return self.genotype.hash, self.seed


def planned(accuracies: Mapping[str, float]) -> Iterator[Planned]:
    """The trainings of the table, each once; mutations as soon as all random cells have an accuracy.

    Args:
        accuracies: validation accuracy with seed 0 of cells that have been trained, by their hash.
    """
    seen: set[tuple[str, int]] = set()
    for each in _trainings(accuracies):
        if each.key not in seen:
            seen.add(each.key)
            yield each


def _trainings(accuracies: Mapping[str, float]) -> Iterator[Planned]:
    shipped = [("shipped", name, load_cell(name)) for name in list_cells()]
    random = [("random", f"random_{seed}", Genotype.random(seed)) for seed in RANDOM_SEEDS]
    repeated = [*shipped, *random][:REPEATED]
    for seed in range(2):
        yield from (Planned(*cell, seed) for cell in random[:EARLY])
    for seed in range(SEEDS):
        yield from (Planned(*cell, seed) for cell in repeated)
    yield from (Planned(*cell, 0) for cell in random)
    if all(genotype.hash in accuracies for _, _, genotype in random):
        yield from mutations([genotype for _, _, genotype in random], accuracies)


def mutations(cells: list[Genotype], accuracies: Mapping[str, float]) -> Iterator[Planned]:
    """Ten paths from the ten best to the ten worst cells, the best with the worst.

    Every step gives one node of one of the two cells, with its two edges, the form that it has in the bad cell; which
    comes next is drawn, from the number of the path. The first steps are neighbours of a good cell.
    """
    ranked = sorted(cells, key=lambda genotype: (-accuracies[genotype.hash], genotype.hash))
    for path in range(PATHS):
        good, bad = ranked[path], ranked[-1 - path]
        now = [list(good.normal), list(good.reduce)]
        goal = [bad.normal, bad.reduce]
        places = [(cell, node) for cell in range(2) for node in range(4) if now[cell][node] != goal[cell][node]]
        order = np.random.default_rng(path).permutation(len(places))
        for step, chosen in enumerate(order[:STEPS], 1):
            cell, node = places[chosen]
            now[cell][node] = goal[cell][node]
            provenance = {
                "source": f"{step} nodes on the way from {good.hash[:12]} to {bad.hash[:12]}",
                "method": "Mutation",
                "dataset": None,
            }
            yield Planned("mutation", f"path_{path}_{step}", Genotype(now[0], now[1], provenance), 0)
