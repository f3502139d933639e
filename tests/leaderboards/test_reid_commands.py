"""`onebit features`, and the pictures of `onebit test reid`."""

import shutil

import numpy as np
import pytest
import safetensors.numpy

from onebit.commons.mini import draw
from onebit.leaderboards import cli
from onebit.reid import task


def onebit(*arguments) -> int:
    try:
        return cli.main(list(map(str, arguments)))
    except SystemExit as stop:
        return stop.code


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data root with mini-market1501 and a checkpoint trained on it."""
    root = tmp_path_factory.mktemp("reid")
    draw("mini-market1501", root / "data" / "mini-market1501")
    options = ["epochs=1", "height=64", "width=32", "score_untrained=False"]
    code = onebit(
        "train",
        "reid",
        "--dataset",
        "mini-market1501",
        "--backbone",
        "resnet18_w8",
        "--data",
        root / "data",
        "--work-dir",
        root / "run",
        "--cfg-options",
        *options,
    )
    assert code == 0
    return root / "data", root / "run" / "epoch_1.pth"


@pytest.fixture
def crops(trained, tmp_path):
    folder = tmp_path / "crops"
    folder.mkdir()
    for path in sorted(trained[0].rglob("query/*.jpg"))[:5]:
        shutil.copy(path, folder)
    return folder


def test_features_of_a_folder(trained, crops, tmp_path, capsys):
    out = tmp_path / "crops.safetensors"
    code = onebit("features", "--checkpoint", trained[1], "--images", crops, "--out", out, "--batch-size", "2")
    assert code == 0
    assert capsys.readouterr().out == f"{out}: 5 images, 64 numbers each\n"
    features = safetensors.numpy.load_file(out)["images.features"]
    assert features.shape == (5, 64)
    assert np.ptp(features, axis=0).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--images": "nowhere"}, "found no folder nowhere"),
        ({"--out": "crops.csv"}, "expected FILE.safetensors, found crops.csv"),
        ({"--checkpoint": "none.pth"}, "checkpoint not found: none.pth"),
        ({"--batch-size": "0"}, "--batch-size: 0: expected a whole number from 1 up"),
        ({"--workers": "two"}, "--workers: 'two': expected a whole number from 0 up"),
    ],
)
def test_features_of_bad_input(trained, crops, tmp_path, capsys, change, message):
    options = {"--checkpoint": trained[1], "--images": crops, "--out": tmp_path / "f.safetensors"}
    code = onebit("features", *(part for option in {**options, **change}.items() for part in option))
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "f.safetensors").exists()


def score(trained, *more) -> int:
    return onebit(
        "test", "reid", "--checkpoint", trained[1], "--dataset", "mini-market1501", "--data", trained[0], *more
    )


def test_pictures_of_rankings_and_reranked_metrics(trained, tmp_path, capsys):
    folder = tmp_path / "pictures"
    assert score(trained, "--show-dir", folder, "--show", "3", "--cfg-options", "evaluation.rerank=True") == 0
    out = capsys.readouterr().out
    assert sorted(p.name.split("_")[0] for p in folder.iterdir()) == ["best", "worst", "worst"]
    assert f"pictures    3 in {folder}" in out
    assert "mAP_reranked" in out
    assert "k-reciprocal re-ranking" in out


def test_saved_features_are_scored_again(trained, tmp_path, capsys):
    features = trained[1].with_name("epoch_1.mini-market1501.safetensors")
    before = features.read_bytes()
    command = ("test", "reid", "--predictions", features, "--dataset", "mini-market1501", "--data", trained[0])
    assert onebit(*command) == 0
    plain = capsys.readouterr().out
    assert score(trained) == 0
    assert plain.splitlines()[1:] == capsys.readouterr().out.splitlines()[1:]
    folder = tmp_path / "pictures"
    options = ["evaluation.rerank=True", "evaluation.distance=euclidean"]
    assert onebit(*command, "--show-dir", folder, "--show", "1", "--cfg-options", *options) == 0
    out = capsys.readouterr().out
    assert "mAP_reranked" in out
    assert "euclidean distance" in out
    assert features.read_bytes() == before
    (drawn,) = folder.iterdir()
    cosine = tmp_path / "cosine"
    assert onebit(*command, "--show-dir", cosine, "--show", "1") == 0
    assert drawn.read_bytes() not in [path.read_bytes() for path in cosine.iterdir()]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--predictions", "none.safetensors"), "predictions none.safetensors is not a file"),
        (("--cfg-options", "height=64", "width=16"), "width would need the network"),
        (("--dataset", "mini-face"), "not found: expected"),
        (("--backbone", "resnet18"), "features of backbone resnet18_w8, not of resnet18"),
        (("--model", "osnet_x1_0"), "--model is for --checkpoint"),
        (("--record",), "--record is for --checkpoint"),
        (("--checkpoint", "c.pth"), "not allowed with argument --predictions"),
    ],
)
def test_bad_requests_to_score_saved_features(trained, capsys, more, message):
    features = trained[1].with_name("epoch_1.mini-market1501.safetensors")
    code = onebit(
        "test", "reid", "--predictions", features, "--dataset", "mini-market1501", "--data", trained[0], *more
    )
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert message in err


def test_bad_requests_for_pictures(trained, tmp_path, capsys, monkeypatch):
    assert score(trained, "--show-dir", tmp_path / "p", "--show", "0") == 2
    assert "--show: 0: expected a whole number from 1 up" in capsys.readouterr().err
    monkeypatch.setitem(task.LACKS, "show", "test reid draws no pictures: leave out --show-dir")
    assert score(trained, "--show-dir", tmp_path / "p") == 2
    assert "test reid draws no pictures" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()
