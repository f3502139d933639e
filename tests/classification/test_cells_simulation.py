"""Searches that are simulated on a table whose answer is known."""

import itertools

import numpy as np
import pytest

import onebit
from onebit.backbones import Genotype
from onebit.classification.cells_table import table
from onebit.classification.cells_table.simulation import (
    BASELINES,
    OutOfBudget,
    TableTrainer,
    differing_edges,
    nearest,
    simulate,
)
from onebit.classification.cells_table.surrogate import Surrogate, cross_validated_tau, features
from onebit.commons.errors import InputError
from tests.classification.test_cells_table import line


def quality(genotype):
    """Of a made-up world: 5x5 convolutions are good, and good at once in both cells."""
    return sum(name.endswith("5x5") for cell in (genotype.normal, genotype.reduce) for node in cell for name, _ in node)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """60 random cells, 10 seconds each, whose accuracy is their quality but for a little noise after the first epoch."""
    noise = np.random.default_rng(0)
    lines = []
    for cell in range(60):
        best = 0.3 + 0.02 * quality(Genotype.random(cell))
        first = best / 2 + noise.normal(0, 0.005)
        lines.append(line(cell=cell, valid_1=first, valid_2=best, test=best, seconds=10.0))
    return onebit.CellsTable(table.write(tmp_path_factory.mktemp("t") / "t.csv", lines, 2))


def test_features_tell_cells_apart_and_count_operations():
    cells = [Genotype.random(seed) for seed in range(20)]
    found = features(cells)
    assert found.shape == (20, 240)
    assert len({tuple(row) for row in found}) == 20
    assert (found[:, :224].sum(1) == 16).all()
    assert (found[:, 224:].sum(1) == 16).all()


def test_the_surrogate_finds_what_is_additive(world):
    genotypes = list(world.genotypes().values())
    accuracies = [0.3 + 0.02 * quality(genotype) for genotype in genotypes]
    assert cross_validated_tau(genotypes, accuracies) > 0.6
    drawn = np.random.default_rng(1).permutation(accuracies)
    assert abs(cross_validated_tau(genotypes, drawn)) < 0.3
    others = [Genotype.random(seed) for seed in range(900, 930)]
    predicted = Surrogate(genotypes, accuracies).predict(others)
    assert np.corrcoef(predicted, [quality(other) for other in others])[0, 1] > 0.8


def test_neighbours_differ_least():
    cells = [Genotype.random(seed) for seed in range(40)]
    found = nearest(cells[0], cells, 5, np.random.default_rng(0))
    distances = [differing_edges(cells[0], other) for other in found]
    assert distances[0] == 0
    assert distances == sorted(distances)
    assert max(distances) <= min(differing_edges(cells[0], other) for other in cells if other not in found)


def test_a_trainer_takes_the_seconds_of_the_table_and_no_epoch_twice(world):
    trainer = TableTrainer(world, 30.0, np.random.default_rng(0))
    one, other, third, *_ = trainer.cells
    trainer.train(one, 1)
    assert trainer.found == []
    trainer.train(one)  # 5 s for the second epoch
    assert [spent for spent, _ in trainer.found] == [10.0]
    trainer.train(one)
    trainer.train(other)
    trainer.train(third)
    with pytest.raises(OutOfBudget):
        trainer.train(trainer.cells[3], 1)
    with pytest.raises(InputError, match="unknown cell of the table"):
        trainer.train(Genotype.random(4242))


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_goes_on_to_the_best_cell_and_its_regret_only_falls(world, name):
    curves = simulate(BASELINES[name], world, budget=10_000, runs=2)
    known = ~np.isnan(curves)
    assert known[:, -1].all()
    for curve, own in zip(curves, known, strict=True):
        assert (np.diff(curve[own]) <= 1e-12).all()
    if name != "successive-halving":  # it drops cells for good
        assert np.allclose(curves[:, -1], 0)


def test_guided_searches_beat_chance_where_the_world_is_additive(world):
    regret = {name: np.nanmean(simulate(BASELINES[name], world, budget=250, runs=10)[:, -1]) for name in BASELINES}
    assert regret["surrogate-guided"] < regret["random"]
    assert regret["successive-halving"] < regret["random"]
    again = simulate(BASELINES["random"], world, budget=250, runs=10)
    assert np.nanmean(again[:, -1]) == regret["random"]


def test_a_strangers_class_is_a_strategy(world):
    class Cheapest:
        """Trains for one epoch first; needs nothing of the suite."""

        def run(self, trainer, random):
            scores = [(trainer.train(cell, 1), i) for i, cell in enumerate(trainer.cells)]
            for _, i in sorted(scores, reverse=True):
                trainer.train(trainer.cells[i])

    curves = simulate(Cheapest(), world, budget=60 * 5 + 20, runs=3)
    assert np.isnan(curves[:, 0]).all()
    assert (curves[:, -1] < 0.03).all()
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in itertools.pairwise(curves))
