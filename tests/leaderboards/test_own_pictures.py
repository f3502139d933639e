"""People and classes of one's own through every command: train, test, bench, table, pack and predict."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

import onebit
from onebit.commons.checkpoints import load_row
from onebit.commons.datasets import get_dataset
from onebit.commons.datasets.own import pictures
from onebit.commons.errors import InputError
from onebit.commons.mini import draw
from onebit.leaderboards import cli


def run(*arguments) -> int:
    try:
        return cli.main(list(map(str, arguments)))
    except SystemExit as stop:
        return stop.code


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEBIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        pictures._prepare.cache_clear()
        yield
        pictures._prepare.cache_clear()


@pytest.fixture(scope="module")
def crops(tmp_path_factory) -> Path:
    """Twelve people of mini-market1501, in folders that are named after them, names and cameras in the file names."""
    root = tmp_path_factory.mktemp("people")
    draw("mini-market1501", root / "mini-market1501")
    people: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("bounding_box_train/*.jpg")):
        people.setdefault(path.name[:4], []).append(path)
    folder = root / "my crops"
    for name in sorted(people)[:12]:
        (folder / f"person {name}").mkdir(parents=True)
        for path in people[name]:
            shutil.copy(path, folder / f"person {name}" / path.name)
    return folder


PATTERN = r"(?P<identity>[^/]+)/\d+_c(?P<camera>\d)s.*"
FEW = (
    "--size",
    "64",
    "32",
    "--epochs",
    "1",
    "--batch",
    "8",
    "--cfg-options",
    "data.workers=0",
    "score_untrained=False",
)


@pytest.mark.slow
def test_people_from_training_to_a_ranking(crops, tmp_path, capsys) -> None:
    data = f"reid:{crops}?pattern={PATTERN}"
    name = get_dataset(data).name
    assert name.startswith("reid-my_crops-")
    command = ["train", "reid", "--dataset", data, "--backbone", "resnet18_w8_reactnet", "--work-dir", tmp_path / "run"]
    assert run(*command, *FEW) == 0
    out = capsys.readouterr().out
    assert "of the people, by SHA-256 of names; one query for each camera" in out
    assert "same identity under the same camera left out" in out
    checkpoint = tmp_path / "run" / "epoch_1.pth"
    assert run("test", "reid", "--checkpoint", checkpoint, "--packed", "--show-dir", tmp_path / "p", "--show", "2") == 0
    assert f"on {name}, packed, on the CPU" in capsys.readouterr().out
    assert len(list((tmp_path / "p").glob("*.png"))) == 2
    query = next(crops.glob("*/*.jpg"))
    assert run("export", checkpoint, "--whole", tmp_path / "net.safetensors") == 0
    pictures._prepare.cache_clear()
    shutil.rmtree(get_dataset(name).find(""))  # nothing of it is needed to rank
    for network in (checkpoint, tmp_path / "net.safetensors"):
        options = ["--gallery", crops / query.parent.name, "--top", "2", "--out", tmp_path / "out"]
        assert run("predict", network, query, *options) == 0
        (row,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
        assert row["ranking"][0]["file_name"] == str(query)
    assert run("test", "reid", "--checkpoint", checkpoint) == 2
    assert f"dataset {name} was not made on this machine: name its pictures, reid:FOLDER" in capsys.readouterr().err


def test_people_without_cameras_have_a_protocol_and_a_board(crops, tmp_path, capsys) -> None:
    data = f"reid:{crops}"
    out = ["--out", tmp_path / "lb"]
    command = ["bench", data, "--backbones", "resnet18_w8_reactnet", "--work-dir", tmp_path / "work", *out]
    assert run(*command, *FEW) == 0
    (path,) = (tmp_path / "lb" / "records" / "reid").glob("*.json")
    record = json.loads(path.read_text())
    assert record["protocol"].startswith("single query; no cameras are known, so that no image is left out; CMC")
    assert record["dataset"] == get_dataset(data).name
    assert record["details"]["checked"]["labels"]["train identities"] == 6
    capsys.readouterr()
    assert run("table", "reid", "--records", tmp_path / "lb" / "records") == 0
    table = capsys.readouterr().out
    assert "resnet18_w8_reactnet" in table
    assert "no cameras are known" in table
    assert run("verify", path) == 0
    assert run("bench", "reid", *out) == 2
    assert "which data? name it" in capsys.readouterr().err


@pytest.fixture(scope="module")
def classes(tmp_path_factory) -> str:
    """Two classes of several sizes and modes, in a CSV file; their names have spaces and letters of other scripts."""
    folder = tmp_path_factory.mktemp("classes")
    rows = ["path,class"]
    for at in range(20):
        name = f"pic é {at}.png"
        mode = ("RGB", "L", "P", "RGBA")[at % 4]
        Image.new("RGB", (40 + at, 36), (200, 30, 30) if at % 2 else (30, 30, 200)).convert(mode).save(folder / name)
        rows.append(f"{name},{'red fish' if at % 2 else 'Ängel'}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return f"folder:{folder / 'labels.csv'}"


def test_classes_from_training_to_a_packed_file(classes, tmp_path, capsys) -> None:
    options = ["--size", "32", "--epochs", "1", "--batch", "4", "--work-dir", tmp_path / "run"]
    command = ["train", "classification", "--dataset", classes, "--backbone", "resnet18_w8_reactnet"]
    assert run(*command, *options) == 0
    assert "4 in 5 -> 1 in 5 of every class, by SHA-256 of file names" in capsys.readouterr().out
    checkpoint = tmp_path / "run" / "epoch_1.pth"
    row, _ = load_row(checkpoint)
    assert row["classes"] == ["red fish", "Ängel"]
    assert row["images"]["mean"] == [123.675, 116.28, 103.53]
    assert run("test", "classification", "--checkpoint", checkpoint) == 0
    assert get_dataset(classes).name in capsys.readouterr().out
    assert run("export", checkpoint, "--to", "packed", tmp_path / "net.safetensors") == 0
    picture = next(Path(classes.removeprefix("folder:")).parent.glob("*.png"))
    one, two = onebit.load(checkpoint), onebit.load(tmp_path / "net.safetensors")
    assert one.predictor.images == two.predictor.images
    assert one.predictor.classes == two.predictor.classes == ["red fish", "Ängel"]
    scores = [{entry["class"]: entry["score"] for entry in network(picture)["classes"]} for network in (one, two)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)
    other = Path(classes.removeprefix("folder:")).with_name("other.csv")
    other.write_text(Path(classes.removeprefix("folder:")).read_text().replace("Ängel", "angel"))
    assert run("test", "classification", "--checkpoint", checkpoint, "--dataset", f"folder:{other}") == 2
    assert "its class 0 is 'red fish', that of folder-other" in capsys.readouterr().err


def test_what_is_not_there_is_one_line(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for task, data in (
        ("reid", "reid:nowhere"),
        ("classification", "folder:nowhere.csv"),
        ("detection", "reid:nowhere"),
    ):
        assert run("train", task, "--dataset", data, "--backbone", "resnet18_w8") == 2
        error = capsys.readouterr().err
        assert "nowhere" in error
        assert len([line for line in error.splitlines() if line.startswith("onebit: ")]) == 1
    with pytest.raises(InputError, match="folder:FOLDER"):
        get_dataset("folder:")
