"""An additive model of accuracy: a ridge regression on which operation stands on which edge.

Ours. For cells that the table does not hold, and for strategies that are guided by what they have trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import kendalltau

from onebit.backbones import Genotype
from onebit.backbones.cells.genotype import INPUT_NODES, OPERATIONS, POSSIBLE_EDGES
from onebit.commons import guards

#: Weight of the squared coefficients, where features are 0 and 1 and accuracies are centred.
RIDGE = 3.0


def features(genotypes: Sequence[Genotype]) -> np.ndarray:
    """[cells, 240]: of both cells which operation is on which of the 14 edges, and how often each operation occurs."""
    edges = np.zeros((len(genotypes), 2, POSSIBLE_EDGES, len(OPERATIONS)))
    for number, genotype in enumerate(genotypes):
        for kind, cell in enumerate((genotype.normal, genotype.reduce)):
            start = 0
            for node, incoming in enumerate(cell, INPUT_NODES):
                for name, source in incoming:
                    edges[number, kind, start + source, OPERATIONS.index(name)] = 1
                start += node
    return np.concatenate((edges.reshape(len(genotypes), -1), edges.sum(2).reshape(len(genotypes), -1)), 1)


class Surrogate:
    """Fitted to cells and their accuracies; predicts those of others.

    Args:
        genotypes: at least two.
        accuracies: as many.
        ridge: see :data:`RIDGE`.
    """

    def __init__(self, genotypes: Sequence[Genotype], accuracies: Sequence[float], ridge: float = RIDGE) -> None:
        guards.whole("cells of a surrogate", len(genotypes), 2)
        inputs, targets = features(genotypes), np.asarray(accuracies, float)
        self._mean_input, self._mean = inputs.mean(0), targets.mean()
        centred = inputs - self._mean_input
        # Of cells there are fewer than features: the dual form has a matrix of cells.
        products = centred @ centred.T + ridge * np.eye(len(centred))
        self._weights = centred.T @ np.linalg.solve(products, targets - self._mean)

    def predict(self, genotypes: Sequence[Genotype]) -> np.ndarray:
        """The accuracy of each cell."""
        return self._mean + (features(genotypes) - self._mean_input) @ self._weights


def cross_validated_tau(genotypes: Sequence[Genotype], accuracies: Sequence[float], folds: int = 5) -> float:
    """Kendall's tau of accuracies and what models say that were fitted without them; folds are drawn with seed 0."""
    order = np.random.default_rng(0).permutation(len(genotypes))
    predicted = np.empty(len(genotypes))
    targets = np.asarray(accuracies, float)
    for part in np.array_split(order, folds):
        others = np.setdiff1d(order, part)
        model = Surrogate([genotypes[i] for i in others], targets[others])
        predicted[part] = model.predict([genotypes[i] for i in part])
    return float(kendalltau(predicted, targets)[0])
