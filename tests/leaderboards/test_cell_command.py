"""`onebit cell`."""

import numpy as np
import pytest

from onebit import backbones
from onebit.backbones import Genotype
from onebit.backbones.cells.genotype import OPERATIONS
from onebit.backbones.cells.score_history import ScoreHistory
from onebit.leaderboards import cli

PUBLISHED = backbones.cells.load_cell("dcp_nas_imagenet")


def run(capsys, *arguments):
    code = cli.main(["cell", "show", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_name_shows_edges_and_provenance(capsys):
    code, out, _ = run(capsys, "dcp_nas_imagenet")
    assert code == 0
    assert "c_{k-2} -> 1  skip_connect" in out
    assert "0 -> 3  dil_conv_5x5" in out
    assert out.count(" -> ") == 16
    assert PUBLISHED.hash in out
    assert "DCP-NAS authors released" in out


def test_text_picture_and_json_and_back(capsys, tmp_path):
    _, out, _ = run(capsys, "dcp_nas_imagenet", "--text", "--out", tmp_path / "cell.png")
    assert (tmp_path / "cell.png").read_bytes().startswith(b"\x89PNG")
    assert Genotype.from_text(out) == PUBLISHED
    (tmp_path / "cell.txt").write_text(out)
    code, out, _ = run(capsys, tmp_path / "cell.txt", "--out", tmp_path / "cell.json")
    assert code == 0
    assert f"written     {tmp_path / 'cell.json'}" in out
    assert Genotype.load(tmp_path / "cell.json") == PUBLISHED
    code, out, _ = run(capsys, tmp_path / "cell.json", "--out", tmp_path / "cell.SVG")
    assert code == 0
    assert "<svg" in (tmp_path / "cell.SVG").read_text()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cell.json", "{", "is not valid JSON"),
        ("cell.json", "{}", "onebit-genotype"),
        ("cell.txt", "print('x')", "expected one call Genotype"),
        ("cell.txt", b"\xff\xfe", "not UTF-8 text"),
        ("cell", "hello", "is not valid JSON"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(capsys, tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err = run(capsys, path, "--out", tmp_path / "new.svg")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert str(path) in err
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "cells that ship, which are"),
        (["nothing.json"], "no genotype file at nothing.json"),
        (["nothing.txt"], "no file nothing.txt"),
        (["dcp_nas_imagenet", "--out", "x.pdf"], "ends in .svg or .png or .json"),
        ([], "which cell?"),
        (["dcp_nas_imagenet", "--seed", "3"], "--seed is an option of onebit cell random"),
        (["dcp_nas_imagenet", "--derivation", "top2"], "--derivation is an option of onebit cell derive and random"),
        (["dcp_nas_imagenet", "--keep-none"], "--keep-none is an option of onebit cell derive"),
        (["dcp_nas_imagenet", "--epoch", "3"], "--epoch is an option of onebit cell derive"),
    ],
)
def test_wrong_names(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_a_random_cell_is_drawn_and_written(capsys, tmp_path):
    path = tmp_path / "cell.json"
    command = ["cell", "random", "--seed", "3", "--derivation", "all14", "--out", str(path)]
    assert cli.main(command) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "all14 (14 edges per cell)" in out
    assert "drawn without a search" in out
    assert Genotype.load(path) == Genotype.random(3, "all14")
    assert cli.main(["cell", "random", "dcp_nas_imagenet"]) == 2
    assert "it takes no 'dcp_nas_imagenet'" in capsys.readouterr().err


def test_a_cell_is_derived_from_scores(capsys, tmp_path):
    scores = ScoreHistory(np.random.default_rng(0).random((2, 2, 14, 8)), OPERATIONS, {"method": "darts"})
    file, out = scores.save(tmp_path / "cell.scores.npz"), tmp_path / "again.json"
    options = ["--derivation", "all14", "--keep-none", "--epoch", "1"]
    assert cli.main(["cell", "derive", str(file), *options, "--out", str(out)]) == 0
    assert "all14 (14 edges per cell)" in capsys.readouterr().out
    assert Genotype.load(out) == scores.derive("all14", True, 1)
    assert Genotype.load(out).provenance["method"] == "darts"
    for arguments, message in (
        ([], "from which scores?"),
        ([str(out)], "again.json: not the scores of a search"),
        ([str(file), "--epoch", "3"], "cell.scores.npz: epoch 3: expected a whole number from 1 to 2"),
        ([str(file), "--seed", "1"], "--seed is an option of onebit cell random"),
    ):
        assert cli.main(["cell", "derive", *arguments]) == 2
        assert message in capsys.readouterr().err
