"""Rows that were not trained here: from a file to a record that says so."""

import json

import pytest

from onebit.commons import mini
from onebit.commons.errors import InputError
from onebit.leaderboards import cli
from onebit.leaderboards.boards import ALL
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.recording.submission import Rules, check
from onebit.leaderboards.recording.verification import problems, rescore
from onebit.leaderboards.running import imports
from onebit.leaderboards.showing.table import BoardTable


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    list(mini.write(root, ["mini-coco", "mini-voc"]))
    return root


@pytest.fixture
def truth(data, tmp_path):
    """The ground truth as if somebody had detected it, in a file."""
    found = json.loads((data / "mini-coco/annotations/instances_val2017.json").read_text())
    keys = ("image_id", "category_id", "bbox")
    detections = [{**{k: a[k] for k in keys}, "score": 0.5} for a in found["annotations"]]
    path = tmp_path / "results.bbox.json"
    path.write_text(json.dumps(detections))
    return path


@pytest.fixture
def onebit(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            code = cli.main(list(map(str, arguments)))
        except SystemExit as stop:
            code = stop.code
        return (code, *capsys.readouterr())

    return run


def test_predictions_become_a_row(onebit, data, truth, tmp_path):
    command = (
        "import",
        "detection",
        "--predictions",
        truth,
        "--dataset",
        "mini-coco",
        "--data",
        data,
        "--name",
        "their_net",
        "--note",
        "by e-mail",
        "--out",
        "out",
    )
    code, out, err = onebit(*command)
    assert code == 0, err
    assert "AP          1.0000" in out
    assert "cost        unknown: a file does not say what made it" in out
    path = tmp_path / "out/records/coco/mini-coco--their_net--imported--seed0.json"
    record = Record.load(path)
    assert record.origin == "imported-predictions"
    assert record.metrics["AP"] == pytest.approx(1)
    assert (record.weight_bits, record.activation_bits, record.binarizer) == (None, None, "unknown")
    assert (record.cost, record.untrained, record.checkpoint_sha256) == ({}, None, None)
    assert record.split.startswith("not stated -> val2017")
    assert record.details["note"] == "by e-mail"
    kept = tmp_path / "work_dirs/mini-coco--their_net--imported--seed0" / record.predictions.file
    assert kept.read_bytes() == truth.read_bytes()
    assert problems(record, tmp_path / "work_dirs") == []

    wrong, _ = rescore(record, tmp_path / "work_dirs", data)
    assert wrong == []

    # A second one is not written over the first.
    assert onebit(*command)[0] == 2
    code, out, err = onebit(*command, "--seed", 1, "--trained-on", "COCO train2017")
    assert code == 0, err
    second = Record.load(path.with_name("mini-coco--their_net--imported--seed1.json"))
    assert second.split.startswith("COCO train2017 -> val2017")

    # The table shows it, and that it is none of ours.
    frame = BoardTable(ALL["coco"]).frame(BoardTable(ALL["coco"]).lines([record, second]))
    assert list(frame["backbone"]) == ["their_net"]
    assert frame["memory_mbit_strict"].isna().all()
    assert set(frame["source"]) == {"imported predictions"}
    code, out, err = onebit("table", "coco", "--records", "out/records")
    assert code == 0, err
    assert "their_net" in out

    rules = Rules(development=True, files=tmp_path / "work_dirs")
    (verdict,) = check([path], rules)
    assert not [text for text in verdict.missing if not text.startswith(("code:", "trust: re-scored is asked for"))]
    assert any("did not train it" in note for note in verdict.notes)
    kept.write_bytes(b"[]")
    (verdict,) = check([path], rules)
    assert any("another file" in text for text in verdict.missing)


def test_predictions_are_scored_without_a_record(onebit, data, truth, tmp_path):
    command = ("test", "detection", "--predictions", truth, "--dataset", "mini-coco", "--data", data)
    before = sorted(tmp_path.iterdir())
    code, out, err = onebit(*command)
    assert code == 0, err
    assert "AP          1.0000" in out
    assert sorted(tmp_path.iterdir()) == before
    judged = onebit(*command, "--cfg-options", "test_evaluator.judge=faster-coco-eval")
    assert judged[:2] == (0, out)
    for more, message in (
        (("--cfg-options", "a=b"), "--predictions of detection take no option 'a'; there is test_evaluator.judge"),
        (
            ("--cfg-options", "test_evaluator.judge=me"),
            "judge of COCO AP 'me': expected one of pycocotools, faster-coco-eval",
        ),
        (("--backbone", "resnet"), "unknown backbone 'resnet'"),
        (("--show-dir", "p", "--show-score", "1.5"), "--show-score: 1.5: expected a number from 0 to 1"),
        (("--show-score", "0.5"), "--show-score is for `test detection --show-dir DIR`"),
        (("--show-dir", "p", "--show", "0"), "--show: 0: expected a whole number from 1 up"),
    ):
        code, out, err = onebit(*command, *more)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err


@pytest.mark.parametrize("board", ["voc", "coco"])
def test_pictures_of_detections(onebit, data, truth, tmp_path, board):
    """The truth as detections of COCO, and nothing detected in VOC."""
    if board == "voc":
        truth.write_text("[]")
    folder = tmp_path / "pictures"
    command = ("test", "detection", "--predictions", truth, "--dataset", f"mini-{board}", "--data", data)
    code, out, err = onebit(*command, "--show-dir", folder, "--show", "3", "--show-score", "0.5")
    assert code == 0, err
    assert f"pictures    3 in {folder}" in out
    names = sorted(p.name for p in folder.iterdir())
    assert [n.split("_")[0] for n in names if n[0] in "bw"] == ["best", "worst", "worst"]
    assert {"confusion.png", "errors.json", "errors.txt"} < set(names)
    content = json.loads((folder / "errors.json").read_text())
    assert content["score"] == 0.5
    assert set(content["per_class"]) == set(content["classes"])
    for name, row in content["per_class"].items():
        assert row["objects"] > 0, name
        assert row["correct"] == (row["objects"] if board == "coco" else 0)
        assert row["detections"] == row["correct"]
        assert row["missed"] == row["objects"] - row["correct"]


@pytest.mark.slow
def test_predictions_of_classes_are_scored_without_a_record(onebit, tmp_path):
    list(mini.write(tmp_path, ["mini-cifar10"]))
    command = ("classification", "--dataset", "mini-cifar10", "--backbone", "resnet18_w8", "--data", tmp_path)
    code, trained, err = onebit("train", *command, "--work-dir", "run", "--cfg-options", "train_cfg.max_epochs=1")
    assert code == 0, err
    code, out, err = onebit("test", *command, "--predictions", "run/predictions.npz")
    assert code == 0, err
    of_row = [line.split()[1] for line in trained.splitlines() if line.startswith("top")]
    assert len(of_row) == 2
    assert [line.split()[1] for line in out.splitlines() if line.startswith("top")] == of_row
    code, out, err = onebit("test", *command[:3], "--data", tmp_path, "--predictions", "run/predictions.npz")
    assert (code, out) == (2, "")
    assert "--predictions of classification needs --backbone" in err


@pytest.mark.slow
def test_a_reid_network_and_its_features_become_rows(onebit, tmp_path):
    import numpy as np
    import torch

    from onebit.reid.features import load
    from onebit.reid.torchreid_adapter import registered_models

    assert onebit("data", "mini", "data", "--only", "mini-market1501")[0] == 0
    network = registered_models()["osnet_x0_25"](num_classes=7, pretrained=False)
    torch.save(dict(state_dict=network.state_dict(), epoch=60), "model.pth.tar-60")
    common = ("--dataset", "mini-market1501", "--data", "data", "--out", "out")
    code, out, err = onebit(
        "test",
        "reid",
        "--checkpoint",
        "model.pth.tar-60",
        "--model",
        "osnet_x0_25",
        *common,
        "--record",
        "--name",
        "osnet_x0_25",
        "--trained-on",
        "MSMT17",
        "--cfg-options",
        "height=32",
        "width=16",
    )
    assert code == 0, err
    assert "Mbit" in out
    (path,) = (tmp_path / "out/records/market1501").glob("*.json")
    record = Record.load(path)
    assert record.origin == "imported-checkpoint"
    assert (record.weight_bits, record.binarizer) == (32, "none")
    assert record.split.startswith("MSMT17 -> ")
    assert record.cfg_options == {"height": 32, "width": 16}
    assert record.cost["strict"]["params_real"] > 0
    assert problems(record, tmp_path / "work_dirs") == []
    assert rescore(record, tmp_path / "work_dirs", tmp_path / "data")[0] == []

    groups, _ = load(tmp_path / "work_dirs" / path.stem / record.predictions.file)
    np.savez("features.npz", **{f"{name}.features": part.features for name, part in groups.items()})
    code, out, err = onebit("import", "reid", "--predictions", "features.npz", "--name", "theirs", *common)
    assert code == 0, err
    second = Record.load(path.with_name("mini-market1501--theirs--imported--seed0.json"))
    assert second.metrics == record.metrics
    assert (second.weight_bits, second.cost, second.checkpoint_sha256) == (None, {}, None)
    assert rescore(second, tmp_path / "work_dirs", tmp_path / "data")[0] == []
    code, out, err = onebit("table", "market1501", "--records", "out/records")
    assert code == 0, err
    assert "osnet_x0_25" in out
    assert "theirs" in out
    code, out, err = onebit("verify", "--records", "out/records", "--data", "data", "--rescore")
    assert code == 0, out + err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--name": "../x"}, "--name"),
        ({"--name": "a/b"}, "--name"),
        ({"--name": ""}, "--name"),
        ({"--dataset": "mini-voc"}, "detection 1: there is no image"),
        ({"--dataset": "mini-market1501"}, "for reid, not for detection"),
        ({"--predictions": "none.json"}, "predictions not found: none.json"),
    ],
)
def test_nothing_is_recorded_of_bad_input(onebit, data, truth, tmp_path, changes, message):
    options = {"--predictions": truth, "--dataset": "mini-coco", "--data": data, "--name": "n"}
    arguments = [str(a) for pair in {**options, **changes}.items() for a in pair]
    code, _, err = onebit("import", "detection", *arguments, "--out", "out")
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("detection", "--model", "m"), "--model is not for detection"),
        (("classification", "--config", "c.py"), "--config is not for classification"),
        (("detection", "--config", "c.py", "--record"), "--record needs --name"),
        (("detection", "--record"), "name --config or --model"),
        (("detection", "--config", "c.py"), "config not found: c.py"),
    ],
)
def test_options_of_foreign_checkpoints(onebit, data, tmp_path, arguments, message):
    (tmp_path / "model.pth").write_bytes(b"")
    dataset = "mini-cifar10" if arguments[0] == "classification" else "mini-coco"
    if arguments[0] == "classification":
        list(mini.write(tmp_path / "data", [dataset]))
        data = tmp_path / "data"
    command = ("test", *arguments, "--checkpoint", "model.pth", "--dataset", dataset, "--data", data)
    code, _, err = onebit(*command)
    assert (code, message in err) == (2, True), err


def test_an_import_that_is_interrupted_leaves_no_record(data, truth, tmp_path, monkeypatch):
    from onebit.detection import runner

    what = imports.Import("imported-predictions", "n")
    with imports.scratch("mini-coco", data) as job:
        outcome = runner.score_predictions(truth, job)
        monkeypatch.setattr(Record, "save", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            imports.record(what, "coco", job, outcome, tmp_path / "records", tmp_path / "work")
        monkeypatch.undo()
        # The same call goes through afterwards.
        _, path = imports.record(what, "coco", job, outcome, tmp_path / "records", tmp_path / "work")
        assert Record.load(path).metrics == outcome.metrics
        with pytest.raises(InputError, match="choose another --name or --seed"):
            imports.record(what, "coco", job, outcome, tmp_path / "records", tmp_path / "work")
