"""`onebit predict` and `onebit.load`: the same as scoring says of the same images, and clear words for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import onebit
import onebit.backbones.packed
from onebit.classification.datasets import read_images
from onebit.commons.errors import InputError
from onebit.commons.mini import draw
from onebit.leaderboards import cli

FEW = {
    "classification": ["--cfg-options", "train_dataloader.num_batch_per_epoch=4"],
    "detection": ["--cfg-options", "train_dataloader.num_batch_per_epoch=4", "param_scheduler.0.end=2"],
    "reid": ["--size", "64", "32", "--cfg-options"],
}
#: The categories of mini-coco.
IDS = {3: "car", 5: "airplane", 44: "bottle", 62: "chair", 72: "tv"}
DATA = {"classification": "mini-cifar10", "detection": "mini-coco", "reid": "mini-market1501"}


def run(*arguments) -> int:
    try:
        return cli.main(list(map(str, arguments)))
    except SystemExit as stop:
        return stop.code


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A checkpoint of each task, `TASK/epoch_1.pth`; the data is moved away, so that nothing can lean on it."""
    root = tmp_path_factory.mktemp("predict")
    for task, dataset in DATA.items():
        draw(dataset, root / "data" / dataset)
        command = ["train", task, "--dataset", dataset, "--backbone", "resnet18_w8_reactnet", "--epochs", 1]
        assert (
            run(*command, "--data", root / "data", "--work-dir", root / task, *FEW[task], "score_untrained=False") == 0
        )
    assert run("export", root / "classification" / "epoch_1.pth", "--to", "packed", root / "packed.safetensors") == 0
    (root / "data").rename(root / "images")
    return root


@pytest.fixture(scope="module")
def small(root) -> list[Path]:
    """Five test images of mini-cifar10 as files."""
    images, _ = read_images(root / "images" / "mini-cifar10", "test", "cifar10")
    paths = [root / f"small {at}.png" for at in range(5)]
    for path, image in zip(paths, images, strict=False):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return paths


@pytest.fixture(scope="module")
def scenes(root) -> list[Path]:
    return sorted((root / "images" / "mini-coco" / "val2017").glob("*.jpg"))


def test_a_classifier_says_what_it_was_scored_by(root, small) -> None:
    from onebit.classification.predictions import Predictions

    network = onebit.load(root / "classification" / "epoch_1.pth")
    assert network.task == "classification"
    (file,) = (root / "classification").glob("predictions*")
    kept = Predictions.load(file)
    for at, path in enumerate(small):
        found = network(path)["classes"]
        scores = [entry["score"] for entry in found]
        assert scores == sorted(scores, reverse=True)
        assert 0 < sum(scores) <= 1 + 1e-6
        assert [entry["class"] for entry in found][:5] == [
            network.predictor.classes[label] for label in kept.classes[at].tolist()[:5]
        ]


def test_packed_bits_say_the_same(root, small) -> None:
    plain = onebit.load(root / "classification" / "epoch_1.pth")
    for other in (
        onebit.load(root / "classification" / "epoch_1.pth", packed=True),
        onebit.load(root / "packed.safetensors"),
    ):
        for path in small[:2]:
            one, two = plain(path)["classes"], other(path)["classes"]
            assert [c["class"] for c in one] == [c["class"] for c in two]
            np.testing.assert_allclose([c["score"] for c in one], [c["score"] for c in two], rtol=1e-4)


@pytest.mark.parametrize("task", ["detection", "reid"])
def test_a_whole_packed_network_says_what_its_checkpoint_packed_says(root, scenes, tmp_path, capsys, task) -> None:
    checkpoint, file = root / task / "epoch_1.pth", tmp_path / "whole.safetensors"
    assert run("export", checkpoint, "--whole", file) == 0
    assert "MB; the checkpoint, with its optimizer, takes" in capsys.readouterr().out
    assert file.stat().st_size < checkpoint.stat().st_size
    whole, packed = onebit.load(file), onebit.load(checkpoint, packed=True)
    assert whole.task == task
    for path in scenes[:2]:
        assert whole(path) == packed(path)
    with pytest.raises(InputError, match="holds a whole network, for `onebit predict`"):
        onebit.backbones.packed.load(file)


def test_a_packed_file_of_others_builds_only_what_rows_describe(root, tmp_path) -> None:
    """Whatever the row of a whole network says, it is held against the schema of rows."""
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    from onebit.packed import container

    file = tmp_path / "whole.safetensors"
    assert run("export", root / "detection" / "epoch_1.pth", "--whole", file) == 0
    tensors = load_file(file)
    with safe_open(str(file), "pt") as opened:
        about = json.loads(opened.metadata()["onebit"])
    for change, message in (
        (dict(task="os.system"), "its task"),
        (dict(backbone="../net.py"), "if it is yours, name it with --backbone"),
        (dict(cfg_options={"model.backbone.type": "os.system"}), "model.backbone.type"),
        (dict(cfg_options={"model.neck": {"type": "os.system"}}), "model.neck"),
        (dict(config="mine.py"), "was trained by a config of its own"),
        (dict(backbone="resnet34_w8_reactnet"), "is missing|its network has|not a tensor"),
    ):
        text = json.dumps({**about, "row": {**about["row"], **change}}, sort_keys=True)
        save_file(tensors, file, {"onebit": text, "sha256": container.digest(text, tensors)})
        with pytest.raises(InputError, match=message):
            onebit.load(file)


def test_images_of_all_kinds_are_taken(root, small, tmp_path) -> None:
    network = onebit.load(root / "packed.safetensors")
    expected = network(small[0])
    image = Image.open(small[0])
    assert network(str(small[0])) == network(image) == network(np.asarray(image)) == expected
    for size, mode in (((100, 60), "RGB"), ((31, 200), "L"), ((8, 8), "RGBA"), ((33, 32), "CMYK")):
        assert len(network(image.convert(mode).resize(size))["classes"]) == 5
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), 7):
        with pytest.raises(InputError, match="expected a path, a Pillow image, or an array uint8"):
            network(wrong)


def test_a_detector_finds_what_it_was_scored_by(root, scenes) -> None:
    network = onebit.load(root / "detection" / "epoch_1.pth")
    kept = json.loads((root / "detection" / "predictions.json").read_text())
    for path in scenes[:3]:
        expected = sorted((d for d in kept if d["image_id"] == int(path.stem)), key=lambda d: -d["score"])
        found = network(path)["boxes"]
        assert len(found) == len(expected)
        np.testing.assert_allclose([b["score"] for b in found], [d["score"] for d in expected], rtol=1e-4)
        best, wanted = found[0], expected[0]
        assert best["category_id"] == wanted["category_id"]
        assert {b["category_id"]: b["class"] for b in found}.items() <= IDS.items()
        np.testing.assert_allclose(best["bbox"], wanted["bbox"], atol=0.05)
        assert network.draw(path, {"boxes": found}).size[0] >= 96


def test_a_reid_network_ranks_by_the_distances_that_it_was_scored_by(root) -> None:
    network = onebit.load(root / "reid" / "epoch_1.pth")
    from onebit.reid.features import load

    groups, _ = load(next((root / "reid").glob("*.safetensors")))
    base = next(p for p in (root / "images" / "mini-market1501").rglob("query")).parent
    at = {Path(name).name: row for name, row in zip(groups["query"].names, groups["query"].features, strict=True)}
    queries = sorted((base / "query").glob("*.jpg"))[:3]
    for path in queries:
        np.testing.assert_allclose(network(path)["features"], at[path.name], rtol=1e-3, atol=1e-4)
    results = [network(path) for path in queries]
    order = network.predictor.rank(results[1], results)
    assert order[0][0] == 1
    assert order[0][1] == pytest.approx(0, abs=1e-5)
    assert [d for _, d in order] == sorted(d for _, d in order)


def test_the_command_on_files_folders_and_patterns(root, small, tmp_path, capsys, monkeypatch) -> None:
    import io

    checkpoint = root / "packed.safetensors"
    assert run("predict", checkpoint, small[0], "--top", 2) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{small[0]}: ")
    assert out.splitlines()[0].count(", ") == 1
    assert out.splitlines()[-1] == "1 image"
    assert run("predict", checkpoint, root / "small *.png", "--out", tmp_path / "out") == 0
    assert "5 images, " in capsys.readouterr().out
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [row["file_name"] for row in rows] == [str(path) for path in small]
    pictures = sorted((tmp_path / "out").glob("*.png"))
    assert [path.name for path in pictures] == [f"{at:05}_small_{at - 1}.png" for at in range(1, 6)]
    assert Image.open(pictures[0]).size[0] == 160
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{small[1]}\n\n{small[2]}\n"))
    assert run("predict", checkpoint, "-") == 0
    assert "2 images, " in capsys.readouterr().out
    folder = tmp_path / "folder" / "below"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(small[0].read_bytes())
    (folder / "b.png").write_bytes(b"no image")
    assert run("predict", checkpoint, tmp_path / "folder") == 1
    captured = capsys.readouterr()
    assert "b.png" in captured.err
    assert "1 image" in captured.out


def test_a_video_becomes_a_video(root, scenes, tmp_path, capsys) -> None:
    import cv2

    frames = [cv2.resize(cv2.imread(str(path)), (192, 96)) for path in scenes[:4]]
    writer = cv2.VideoWriter(str(tmp_path / "street.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (192, 96))
    for frame in frames:
        writer.write(frame)
    writer.release()
    checkpoint = root / "detection" / "epoch_1.pth"
    command = ["predict", checkpoint, tmp_path / "street.mp4", "--out", tmp_path / "out", "--score", "0.01"]
    assert run(*command, "--frames", 3) == 0
    assert "street.mp4#3: " in capsys.readouterr().out
    video = cv2.VideoCapture(str(tmp_path / "out" / "street.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == 10
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 3
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {row["image_id"] for row in rows} <= {1, 2, 3}
    assert all(IDS[row["category_id"]] == row["category"] and row["score"] >= 0.01 for row in rows)


def test_rankings_of_a_gallery(root, tmp_path, capsys) -> None:
    base = next(p for p in (root / "images" / "mini-market1501").rglob("query")).parent
    query = sorted((base / "query").glob("*.jpg"))[0]
    command = ["predict", root / "reid" / "epoch_1.pth", query]
    assert run(*command, "--gallery", base / "query", "--top", 3, "--out", tmp_path / "out") == 0
    (row,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert next(Path(r["file_name"]).name for r in row["ranking"]) == query.name
    assert len(row["ranking"]) == 3
    assert (tmp_path / "out" / f"00001_{query.stem}.png").is_file()
    assert run(*command) == 2
    assert "name their folder with --gallery DIR" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["packed.safetensors", "nothing.jpg"], "there is no picture, folder or video"),
        (["packed.safetensors", "*.nothing"], "no file is named like"),
        (["packed.safetensors", "images/mini-cifar10"], "expected pictures"),
        (["packed.safetensors", "small 0.png", "--gallery", "images"], "--gallery is for re-ID networks"),
        (["packed.safetensors", "small 0.png", "--score", "0.5"], "--score is for detectors"),
        (["none.pth", "small 0.png"], "none.pth"),
        (["packed.safetensors", "small 0.png", "--config", "x.py"], "--config is for detectors"),
        (
            ["detection/epoch_1.pth", "small 0.png", "--config", "x.py"],
            "was trained by recipe mini: leave out --config",
        ),
        (["small 0.png", "small 0.png"], "small 0.png"),
        (["classification/epoch_1.pth", "broken.mp4"], "broken.mp4 cannot be opened as a video"),
    ],
)
def test_what_cannot_be_is_one_line(root, small, capsys, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(root)
    (root / "broken.mp4").write_bytes(b"no video")
    assert run("predict", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len([line for line in error.splitlines() if line.startswith("onebit: ")]) == 1


def test_files_of_others_say_nothing_that_runs(root, tmp_path) -> None:
    """What a checkpoint states of its classes and images is data of a known form."""
    import torch

    from onebit.commons.checkpoints import ROW

    content = torch.load(root / "classification" / "epoch_1.pth", weights_only=True)
    for change, message in (
        (dict(classes=["a"]), "names 1 classes"),
        (dict(classes="abc"), "its row's classes are"),
        (dict(category_ids=[1, 2]), "its row's category_ids are"),
        (dict(category_ids="os.system"), "its row's category_ids are"),
        (dict(images=dict(size=32)), "its images are"),
        (dict(images={**content[ROW]["images"], "size": "x"}), "its images' size"),
        (dict(images={**content[ROW]["images"], "mean": [1, 2, "os.system"]}), "its images' mean"),
        (dict(images=None), "does not say its classes and how images are prepared"),
    ):
        path = tmp_path / "changed.pth"
        torch.save({**content, ROW: {**content[ROW], **change}}, path)
        with pytest.raises(InputError, match=message):
            onebit.load(path)
