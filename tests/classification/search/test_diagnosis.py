"""Diagnoses of a finished search."""

import itertools
import math

import pytest
import torch

from onebit.backbones.cells.genotype import OPERATIONS, Genotype
from onebit.backbones.cells.score_history import ScoreHistory
from onebit.classification.search.architecture import entropy_share
from onebit.classification.search.diagnosis import diagnose


def cell(weightless: int, edges: str = "top2", name: str = "skip_connect"):
    names = [name] * weightless + ["sep_conv_3x3"] * 14
    sources = [range(2)] * 4 if edges == "top2" else [range(n) for n in (2, 3, 4, 5)]
    operations = iter(names)
    return [[(next(operations), source) for source in each] for each in sources]


def warnings(normal, reduce, **measures):
    return diagnose(Genotype(normal, reduce), OPERATIONS, measures)["warnings"]


@pytest.mark.parametrize("name", ["skip_connect", "max_pool_3x3", "avg_pool_3x3"])
def test_a_collapsed_cell_is_named_with_its_chance(name):
    (warning,) = warnings(cell(7, name=name), cell(6))
    # 3 of the 7 operations that can survive have no weights.
    by_hand = sum(
        (3 / 7) ** sum(drawn) * (4 / 7) ** (8 - sum(drawn))
        for drawn in itertools.product((0, 1), repeat=8)
        if sum(drawn) >= 7
    )
    assert warning.startswith("7 of 8 edges of the normal cell are identities, pooling or none")
    assert f"{100 * by_hand:.2g} % of cells" in warning
    (warning,) = warnings(cell(3, "all14"), cell(11, "all14"))
    assert warning.startswith("11 of 14 edges of the reduce cell")


def test_what_chance_makes_often_is_no_collapse():
    assert not warnings(cell(6), cell(0))
    assert not warnings(cell(8, "all14"), cell(6, "all14"))


def test_operations_that_could_not_be_chosen_do_not_count():
    """Without pooling, 1 of 5 operations has no weights: 5 of 8 edges are rare then, and 6 of 8 are not with it."""
    few = ("none", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
    assert len(diagnose(Genotype(cell(5), cell(0)), few, {})["warnings"]) == 1
    kept = diagnose(Genotype(cell(5, name="none"), cell(0)), ("none", "sep_conv_3x3"), {})
    assert not kept["warnings"]  # 1 of 2
    assert kept["edges_without_weights"] == {"normal": 5, "reduce": 0}


def test_measures_are_judged():
    fine = dict(alpha_entropy=0.98, tangent_share=0.02)
    assert not warnings(cell(0), cell(0), **fine)
    moved, tangent = warnings(cell(0), cell(0), alpha_entropy=0.9991, tangent_share=1.2e-4)
    assert moved.startswith("alpha has hardly moved, its entropy is 99.9 % of the largest")
    assert tangent.startswith("the tangent term is 0.012 % of the gradient of the Child's alpha")
    assert diagnose(Genotype(cell(0), cell(0)), OPERATIONS, fine)["measures"] == fine


def test_the_share_of_the_entropy():
    assert entropy_share(torch.zeros(2, 14, 8)) == pytest.approx(1)
    half = torch.zeros(2, 14, 8)
    half[..., :4] = 50.0
    assert entropy_share(half) == pytest.approx(math.log(4) / math.log(8))
    assert entropy_share(torch.zeros(2, 14, 1)) == 0
    torch.manual_seed(0)
    assert entropy_share(0.22 * torch.randn(2, 14, 8)) == pytest.approx(0.99, abs=0.002)  # as UNMOVED says


def test_another_derivation_has_no_diagnosis_of_the_first():
    scores = torch.rand(2, 2, 14, 8, dtype=torch.float64).numpy()
    about = dict(diagnosis={"warnings": []}, derivation=dict(edges="top2", keep_none=False, epoch=2))
    history = ScoreHistory(scores, OPERATIONS, about)
    assert "diagnosis" in history.derive().provenance
    for other in (dict(edges="all14"), dict(keep_none=True), dict(epoch=1)):
        assert "diagnosis" not in history.derive(**other).provenance
