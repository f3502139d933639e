"""From scores to cells, against a second way to say the rules."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onebit.backbones import Genotype
from onebit.backbones.cells.genotype import OPERATIONS, search_space
from onebit.commons.errors import InputError

#: (target, source) of the 14 edges, written out.
EDGES = [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (4, 0), (4, 1), (4, 2), (4, 3)]
EDGES += [(5, 0), (5, 1), (5, 2), (5, 3), (5, 4)]

spaces = st.sampled_from([search_space(p, s) for p in (True, False) for s in (True, False)])
spaces = spaces | st.permutations(OPERATIONS).map(lambda names: tuple(names[:5]))
# Few different values, so that ties are common.
values = st.floats(-1e6, 1e6) | st.integers(-2, 2).map(float)


def scores_of(operations):
    return st.tuples(st.just(operations), arrays(np.float64, (2, 14, len(operations)), elements=values))


cases = spaces.flatmap(scores_of)


@settings(deadline=None)
@given(cases, st.booleans())
def test_all14_keeps_the_best_operation_of_every_edge(case, keep_none):
    operations, scores = case
    genotype = Genotype.derive(scores, "all14", operations, keep_none=keep_none)
    for cell, cell_scores in zip((genotype.normal, genotype.reduce), scores, strict=True):
        assert [(t, s) for t, node in enumerate(cell, 2) for _, s in node] == EDGES
        kept = [operation for node in cell for operation, _ in node]
        for operation, edge_scores in zip(kept, cell_scores, strict=True):
            rivals = {
                name: score for name, score in zip(operations, edge_scores, strict=True) if keep_none or name != "none"
            }
            assert rivals[operation] == max(rivals.values())
            first = next(name for name in rivals if rivals[name] == rivals[operation])
            assert operation == first


@settings(deadline=None)
@given(cases, st.booleans())
def test_top2_keeps_the_two_strongest_of_all14_into_each_node(case, keep_none):
    operations, scores = case
    whole = Genotype.derive(scores, "all14", operations, keep_none=keep_none)
    genotype = Genotype.derive(scores, "top2", operations, keep_none=keep_none)
    assert genotype.derivation == "top2"
    pairs = ((genotype.normal, whole.normal), (genotype.reduce, whole.reduce))
    for (kept, every), cell_scores in zip(pairs, scores, strict=True):
        strength = {
            (target, source): cell_scores[EDGES.index((target, source))][operations.index(name)]
            for target, node in enumerate(every, 2)
            for name, source in node
        }
        for target, node in enumerate(kept, 2):
            assert set(node) <= set(every[target - 2])
            left_out = {source for _, source in every[target - 2]} - {s for _, s in node}
            for _, source in node:
                for other in left_out:
                    mine, its = strength[target, source], strength[target, other]
                    assert mine > its or (mine == its and source < other)


def test_none_survives_only_where_it_may():
    scores = np.zeros((2, 14, 8))
    scores[:, :, 0] = 9  # none
    scores[:, :, 6] = 1
    assert {o for node in Genotype.derive(scores, "all14").normal for o, _ in node} == {"dil_conv_3x3"}
    kept = Genotype.derive(scores, "all14", keep_none=True)
    assert {o for node in kept.normal for o, _ in node} == {"none"}


def test_a_weak_edge_loses_even_if_none_is_strong_there():
    """DARTS ranks edges by the surviving operation, not by the one passed over."""
    scores = np.zeros((2, 14, 8))
    scores[0, 2:5, 4] = (3, 1, 2)  # node 3: sep_conv_3x3 from sources 0, 1 and 2
    scores[0, 3, 0] = 99  # none from source 1
    assert Genotype.derive(scores, "top2").normal[1] == (("sep_conv_3x3", 0), ("sep_conv_3x3", 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_tensors_and_lists_as_arrays(dtype):
    scores = torch.randn(2, 14, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = Genotype.derive(scores.double().numpy())
    assert Genotype.derive(scores.requires_grad_()) == expected
    assert Genotype.derive(scores.tolist(), provenance={"seed": 0}) == expected
    assert Genotype.derive(scores.tolist(), provenance={"seed": 0}).provenance == {"seed": 0}


def test_search_spaces_of_table_7():
    assert search_space() == OPERATIONS
    assert set(OPERATIONS) - set(search_space(pooling=False)) == {"max_pool_3x3", "avg_pool_3x3"}
    assert set(OPERATIONS) - set(search_space(skip=False)) == {"skip_connect"}
    assert len(search_space(pooling=False, skip=False)) == 5


@pytest.mark.parametrize(
    ("scores", "arguments", "message"),
    [
        (np.zeros((2, 14, 7)), {}, r"expected the shape \[2, 14, 8\].*found \[2, 14, 7\]"),
        (np.zeros((2, 13, 8)), {}, r"found \[2, 13, 8\]"),
        (np.zeros((14, 8)), {}, r"found \[14, 8\]"),
        (np.full((2, 14, 8), np.nan), {}, "nan at normal cell, edge 0, none; expected finite"),
        (-np.inf * np.ones((2, 14, 8)), {}, "-inf at"),
        ([[1], [1, 2]], {}, "list that cannot be one"),
        ("scores", {}, "str that cannot be one"),
        (np.zeros((2, 14, 8)), dict(derivation="top3"), "derivation 'top3': expected one of"),
        (np.zeros((2, 14, 1)), dict(operations=("none",)), "none of them can survive"),
        (np.zeros((2, 14, 0)), dict(operations=()), "none of them can survive"),
        (np.zeros((2, 14, 1)), dict(operations=("conv",)), "unknown operation 'conv'"),
        (np.zeros((2, 14, 2)), dict(operations=("none", "none")), "listed twice"),
        (np.zeros((2, 14, 8)), dict(operations="none"), "expected a list of names"),
    ],
)
def test_bad_arguments(scores, arguments, message):
    with pytest.raises(InputError, match=message):
        Genotype.derive(scores, **arguments)


def test_one_infinite_score_is_found_where_it_is():
    scores = np.zeros((2, 14, 8))
    scores[1, 3, 2] = np.inf
    with pytest.raises(InputError, match="inf at reduction cell, edge 3, max_pool_3x3"):
        Genotype.derive(scores)
