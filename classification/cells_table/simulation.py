"""Searches that are simulated on the table, and the baselines that any search has to beat.

A strategy is a class with one method::

    class Mine:
        def run(self, trainer, random):
            while True:
                genotype = trainer.cells[random.integers(len(trainer.cells))]
                trainer.train(genotype)

    curves = simulate(Mine(), onebit.CellsTable(), budget=3600)

It sees validation accuracies only, pays the seconds that a training took, and is ended by its budget. What it has found is
the cell with the best validation accuracy after all epochs; how good that is the test accuracy says, its mean over the
cell's seeds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from onebit.backbones import Genotype
from onebit.classification.cells_table.surrogate import Surrogate
from onebit.classification.cells_table.table import CellsTable
from onebit.commons import guards


class OutOfBudget(Exception):
    """Ends a strategy: its seconds are spent."""


class Trainer(Protocol):
    """What a strategy is given.

    Attributes:
        cells: that it may train.
        epochs: of a whole training.
    """

    cells: Sequence[Genotype]
    epochs: int

    def train(self, genotype: Genotype, epochs: int | None = None) -> float:
        """The validation accuracy of a cell after so many epochs, or all of them; epochs that it had are not paid again.

        Raises:
            OutOfBudget: there are no seconds left for that.
        """
        ...


class Strategy(Protocol):
    """A search; :meth:`run` goes on until the trainer raises."""

    def run(self, trainer: Trainer, random: np.random.Generator) -> None: ...


class TableTrainer:
    """Trains by looking it up.

    Args:
        table: where.
        budget: seconds, as the table states them.
        random: draws which seed of a cell is looked at, once for each cell.

    Attributes:
        found: (seconds spent, test accuracy of the best cell so far), each time that the best one changes.
    """

    def __init__(self, table: CellsTable, budget: float, random: np.random.Generator) -> None:
        by_cell: dict[str, list[dict]] = {}
        for line in table.lines:
            by_cell.setdefault(line["genotype_hash"], []).append(line)
        genotypes = table.genotypes()
        self.cells: Sequence[Genotype] = list(genotypes.values())
        self.epochs = table.epochs
        self._lines = {cell: lines[random.integers(len(lines))] for cell, lines in by_cell.items()}
        self._test = {cell: float(np.mean([line["test"] for line in lines])) for cell, lines in by_cell.items()}
        self._had: dict[str, int] = {}
        self._left, self._spent, self._best = budget, 0.0, -1.0
        self.found: list[tuple[float, float]] = []

    @property
    def best_test(self) -> float:
        """Of all cells of the table."""
        return max(self._test.values())

    def train(self, genotype: Genotype, epochs: int | None = None) -> float:
        epochs = guards.whole("epochs", self.epochs if epochs is None else epochs, 1, self.epochs)
        line = self._lines[guards.known("cell of the table", genotype.hash, self._lines)]
        had = self._had.get(genotype.hash, 0)
        seconds = line["seconds"] * max(epochs - had, 0) / self.epochs
        if seconds > self._left:
            raise OutOfBudget
        self._left -= seconds
        self._spent += seconds
        self._had[genotype.hash] = max(epochs, had)
        accuracy = line[f"valid_{epochs}"]
        if epochs == self.epochs and accuracy > self._best:
            self._best = accuracy
            self.found.append((self._spent, self._test[genotype.hash]))
        return accuracy


def simulate(strategy: Strategy, table: CellsTable, budget: float, runs: int = 100, points: int = 50) -> np.ndarray:
    """Regret of a strategy over its seconds.

    Args:
        budget: seconds of a run.
        runs: with the seeds 0, 1, ...
        points: of a curve, evenly over the budget; the last is its end.

    Returns:
        [runs, points]: test accuracy of the table's best cell less that of the best one found; NaN before the first.

    Raises:
        InputError: an argument out of range, or a strategy that trains what the table does not hold.
    """
    guards.number("budget", budget, above=0)
    guards.whole("runs", runs)
    guards.whole("points", points)
    times = np.linspace(0, budget, points + 1)[1:]
    curves = np.full((runs, points), np.nan)
    for run in range(runs):
        random = np.random.default_rng(run)
        trainer = TableTrainer(table, budget, random)
        with contextlib.suppress(OutOfBudget):
            strategy.run(trainer, random)
        for spent, test in trainer.found:
            curves[run, times >= spent] = trainer.best_test - test
    return curves


def differing_edges(one: Genotype, other: Genotype) -> int:
    """How many edges of ``one`` are not in ``other``."""
    return sum(
        edge not in theirs
        for mine, others in ((one.normal, other.normal), (one.reduce, other.reduce))
        for node, theirs in zip(mine, others, strict=True)
        for edge in node
    )


def nearest(genotype: Genotype, cells: Sequence[Genotype], count: int, random: np.random.Generator) -> list[Genotype]:
    """The cells that differ least from one, ties drawn: its neighbours, as a table does not hold every mutation."""
    order = random.permutation(len(cells))
    return [cells[i] for i in sorted(order, key=lambda i: differing_edges(genotype, cells[i]))[:count]]


class RandomSearch:
    """Trains cells in a drawn order."""

    def run(self, trainer: Trainer, random: np.random.Generator) -> None:
        for i in random.permutation(len(trainer.cells)):
            trainer.train(trainer.cells[i])


class RegularizedEvolution:
    """Real et al., AAAI 2019: the child of the best of a sample replaces the oldest of the population.

    Args:
        population: cells.
        sample: of it, of which the best one has a child.
    """

    def __init__(self, population: int = 10, sample: int = 5) -> None:
        self.population, self.sample = population, sample

    def run(self, trainer: Trainer, random: np.random.Generator) -> None:
        waiting = [trainer.cells[i] for i in random.permutation(len(trainer.cells))]
        alive = []
        while waiting:
            if len(alive) < self.population:
                cell = waiting[0]
            else:
                drawn = random.choice(len(alive), min(self.sample, len(alive)), replace=False)
                parent = max((alive[i] for i in drawn), key=lambda pair: pair[0])[1]
                cell = nearest(parent, waiting, 1, random)[0]
                alive.pop(0)
            waiting.remove(cell)
            alive.append((trainer.train(cell), cell))


class LocalSearch:
    """White et al., UAI 2021: goes to the best neighbour while that is better, and begins anew elsewhere.

    Args:
        neighbours: trained in each step.
    """

    def __init__(self, neighbours: int = 5) -> None:
        self.neighbours = neighbours

    def run(self, trainer: Trainer, random: np.random.Generator) -> None:
        waiting = [trainer.cells[i] for i in random.permutation(len(trainer.cells))]
        while waiting:
            here = waiting.pop(0)
            best = trainer.train(here)
            while waiting:
                around = nearest(here, waiting, self.neighbours, random)
                tried = []
                for cell in around:
                    waiting.remove(cell)
                    tried.append((trainer.train(cell), cell))
                accuracy, cell = max(tried, key=lambda pair: pair[0])
                if accuracy <= best:
                    break
                best, here = accuracy, cell


class SuccessiveHalving:
    """Jamieson and Talwalkar, AISTATS 2016: many cells for one epoch, the better half for twice as many, and so on.

    Args:
        cells: of a round; rounds follow each other.
    """

    def __init__(self, cells: int = 16) -> None:
        self.cells = cells

    def run(self, trainer: Trainer, random: np.random.Generator) -> None:
        waiting = [trainer.cells[i] for i in random.permutation(len(trainer.cells))]
        while waiting:
            alive, waiting = waiting[: self.cells], waiting[self.cells :]
            epochs = 1
            while True:
                scored = sorted(((trainer.train(cell, epochs), i) for i, cell in enumerate(alive)), reverse=True)
                if epochs == trainer.epochs:
                    break
                alive = [alive[i] for _, i in scored[: max(1, len(alive) // 2)]]
                epochs = min(2 * epochs, trainer.epochs)


class SurrogateGuided:
    """Trains what the additive model of all trained cells says is best, and every fifth time a drawn one.

    Args:
        first: drawn cells before the first model.
    """

    def __init__(self, first: int = 10) -> None:
        self.first = first

    def run(self, trainer: Trainer, random: np.random.Generator) -> None:
        waiting = [trainer.cells[i] for i in random.permutation(len(trainer.cells))]
        trained: list[Genotype] = []
        accuracies: list[float] = []
        while waiting:
            at = 0
            if len(trained) >= self.first and len(trained) % 5:
                at = int(Surrogate(trained, accuracies).predict(waiting).argmax())
            cell = waiting.pop(at)
            accuracies.append(trainer.train(cell))
            trained.append(cell)


#: What any search has to beat, by name.
BASELINES: dict[str, Strategy] = {
    "random": RandomSearch(),
    "regularized-evolution": RegularizedEvolution(),
    "local-search": LocalSearch(),
    "successive-halving": SuccessiveHalving(),
    "surrogate-guided": SurrogateGuided(),
}
