"""Scores of a search as a file, and the cells that are derived from it."""

import numpy as np
import pytest
import torch

from onebit import backbones
from onebit.backbones.cells.score_history import CELLS, EDGES, ScoreHistory
from onebit.commons.errors import InputError

OPERATIONS = ("none", "skip_connect", "sep_conv_3x3")


def history(**provenance):
    scores = np.random.default_rng(0).random((3, 2, 14, 3))
    scores[:, :, 0, 0] = 2.0  # `none` is the best of every edge 0-2
    return ScoreHistory(scores, OPERATIONS, provenance)


def test_a_file_holds_all_of_it(tmp_path):
    kept = history(method="darts", supernet={"channels": 4, "cells": 3, "binarizer": "xnor"})
    read = ScoreHistory.load(kept.save(tmp_path / "cell.scores.npz"))
    np.testing.assert_array_equal(read.scores, kept.scores)
    assert (read.operations, read.provenance) == (kept.operations, kept.provenance)


@pytest.mark.parametrize("edges", ["top2", "all14"])
def test_a_cell_is_derived_as_the_search_did_unless_asked_otherwise(edges):
    own = history(derivation=dict(edges=edges, keep_none=False, epoch=3))
    assert own.derive() == backbones.Genotype.derive(own.scores[-1], edges, OPERATIONS)
    other = {"top2": "all14", "all14": "top2"}[edges]
    assert own.derive(edges=other).derivation == other
    assert own.derive(epoch=1) == backbones.Genotype.derive(own.scores[0], edges, OPERATIONS)
    kept = own.derive(keep_none=True, epoch=2)
    assert kept.provenance["derivation"] == dict(edges=edges, keep_none=True, epoch=2)
    assert kept.normal[0][0] == ("none", 0)


def test_the_network_of_a_cell_with_none_runs():
    cell = history().derive(edges="top2", keep_none=True)
    network = backbones.CellNet(cell, channels=4, layers=3, stem="cifar", out_indices=(3,)).eval()
    assert network(torch.randn(1, 3, 8, 8))[0].isfinite().all()


def arrays(**changes):
    found = dict(scores=np.zeros((1, 2, 14, 3)), cells=np.array(CELLS), edges=np.array(EDGES))
    return {**found, "operations": np.array(OPERATIONS), **changes}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (arrays(scores=np.zeros((1, 2, 14, 4))), r"scores of shape \[1, 2, 14, 4\]"),
        (arrays(scores=np.zeros((0, 2, 14, 3))), r"scores of shape \[0, 2, 14, 3\]"),
        (arrays(scores=np.zeros((1, 2, 14, 3), dtype=int)), "expected floats"),
        (arrays(scores=np.array([object()])), "allow_pickle=False"),
        (arrays(edges=np.array(EDGES[::-1])), "expected the cells normal, reduce and the edges 0-2"),
        (arrays(operations=np.array(["none", "skip_connect", "conv"])), "operation 'conv': expected one of none"),
        (arrays(provenance=np.array("[1]")), "its provenance is no JSON object"),
        (arrays(provenance=np.array("{")), "not the scores of a search"),
        (dict(scores=np.zeros((1, 2, 14, 3))), "cells is not a file in the archive"),
    ],
)
def test_what_is_no_history_is_refused(tmp_path, content, message):
    np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(InputError, match=message) as error:
        ScoreHistory.load(tmp_path / "x.npz")
    assert "x.npz" in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_archives(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no file"):
        ScoreHistory.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("scores")
    with pytest.raises(InputError, match="not the scores of a search"):
        ScoreHistory.load(tmp_path / "text.npz")
    path = history().save(tmp_path / "large.npz")
    monkeypatch.setattr("onebit.backbones.cells.score_history.LARGEST", 1000)
    with pytest.raises(InputError, match="more than the 1000"):
        ScoreHistory.load(path)


def test_an_older_file_says_where_its_cell_is_from(tmp_path):
    np.savez(tmp_path / "old.scores.npz", **arrays())
    cell = ScoreHistory.load(tmp_path / "old.scores.npz").derive()
    assert cell.provenance["source"] == "derived from old.scores.npz"
    assert cell.derivation == "top2"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (dict(epoch=4), "epoch 4: expected a whole number from 1 to 3"),
        (dict(edges="top3"), "edges 'top3'"),
        (dict(keep_none=1), "keep_none 1"),
    ],
)
def test_what_cannot_be_derived(asked, message):
    with pytest.raises(InputError, match=message):
        history().derive(**asked)
