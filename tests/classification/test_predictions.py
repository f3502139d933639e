"""The leading classes of an image, their ranks, and the file that keeps them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onebit.classification.predictions import KEPT, UNRANKED, Predictions, leading, ranks_of, top_k
from onebit.commons.errors import InputError


def by_definition(logits, label):
    """Number of other classes that score at least as high; unranked from KEPT on."""
    if not all(np.isfinite(logits)):
        return UNRANKED
    rank = sum(score >= logits[label] for score in logits) - 1
    return rank if rank < KEPT else UNRANKED


@given(
    st.integers(1, 9).flatmap(
        lambda n: st.lists(
            st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, -1.0, float("nan"), float("inf")]), min_size=n, max_size=n),
            min_size=1,
            max_size=4,
        )
    )
)
@settings(deadline=None, max_examples=200)
def test_ranks_are_those_of_the_definition_ties_included(logits):
    classes, ranks = leading(torch.tensor(logits))
    assert classes.shape == ranks.shape == (len(logits), KEPT)
    for label in range(len(logits[0])):
        found = ranks_of(torch.full((len(logits),), label), classes, ranks)
        assert found.tolist() == [by_definition(row, label) for row in logits]
    Predictions(classes, ranks, len(logits[0]))._check("what `leading` gives")


def some(n=7, classes=20) -> Predictions:
    logits = torch.randn(n, classes, generator=torch.Generator().manual_seed(0))
    return Predictions(*leading(logits), classes)


def test_round_trip_and_the_same_bytes_again(tmp_path):
    kept = some()
    path = kept.save(tmp_path / "a.npz")
    assert kept.save(tmp_path / "b.npz").read_bytes() == path.read_bytes()
    back = Predictions.load(path)
    assert torch.equal(back.classes, kept.classes)
    assert torch.equal(back.ranks, kept.ranks)
    assert back.num_classes == 20


def test_top_k():
    assert top_k(torch.tensor([0, 1, 4, UNRANKED]), (1, 5)) == dict(top1=0.25, top5=0.75)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(classes=np.zeros((7, KEPT))), "expected integers"),
        (dict(ranks=np.zeros((6, KEPT), np.int8)), "expected integers"),
        (dict(num_classes=np.array([20])), "expected integers"),
        (dict(num_classes=np.int32(3)), "out of range"),
        (dict(ranks=np.zeros((7, KEPT), np.int8)), "more classes share"),
        (dict(classes=np.zeros((7, KEPT), np.int32)), "names a class twice"),
        (dict(classes=np.array([[{}]], dtype=object)), "not a file of class predictions"),
    ],
)
def test_other_content_is_refused(tmp_path, change, message):
    kept = some()
    arrays = dict(classes=kept.classes.numpy(), ranks=kept.ranks.numpy(), num_classes=np.int32(20))
    np.savez(tmp_path / "p.npz", **{**arrays, **change})
    with pytest.raises(InputError, match=message):
        Predictions.load(tmp_path / "p.npz")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(InputError, match="not a file of class predictions"):
        Predictions.load(tmp_path / "p.npz")


def test_a_damaged_file_is_refused_or_unchanged(tmp_path):
    path = some().save(tmp_path / "p.npz")
    whole = path.read_bytes()
    refused = 0
    for i in range(0, len(whole), 7):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0x41]) + whole[i + 1 :])
        try:
            Predictions.load(path)  # some bytes of a zip archive, dates for one, mean nothing
        except InputError:
            refused += 1
    assert refused > 20
