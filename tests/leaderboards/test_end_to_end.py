"""The command, the real runners and worker processes together."""

import json

import pytest

from onebit.leaderboards import cli
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.running.demo import shortfalls


@pytest.mark.slow
def test_two_workers_train_two_rows_and_the_same_command_then_has_nothing_to_do(tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    assert cli.main(["data", "mini", str(data), "--only", "mini-cifar10"]) == 0
    command = [
        "bench",
        "mini-cifar10",
        "--backbones",
        "resnet18_w4,resnet18_w4_bireal",
        "--workers",
        "2",
        "--data",
        str(data),
        "--out",
        str(out),
        "--work-dir",
        str(tmp_path / "work"),
        "--cfg-options",
        "train_cfg.max_epochs=1",
    ]
    assert cli.main(command) == 0
    paths = sorted((out / "records" / "cifar10").glob("*.json"))
    records = [Record.load(path) for path in paths]
    assert {r.backbone for r in records} == {"resnet18_w4", "resnet18_w4_bireal"}
    assert all(r.status == "done" and r.epochs == 1 for r in records)
    before = [path.read_bytes() for path in paths]
    capsys.readouterr()
    assert cli.main(command) == 0
    assert capsys.readouterr().out.count("already done") == 2
    assert [path.read_bytes() for path in paths] == before
    verify = ["verify", "--records", str(out / "records"), "--work-dir", str(tmp_path / "work"), "--data", str(data)]
    assert cli.main([*verify, "--rescore"]) == 0
    said = capsys.readouterr().out
    assert said.count("predictions: top1") == said.count("checkpoint: top1") == 2
    kept = tmp_path / "work" / paths[0].stem / "predictions.npz"
    kept.write_bytes(kept.read_bytes()[:-1])
    assert cli.main(verify) == 1
    assert "are not the predictions that were scored" in capsys.readouterr().out


def record(**changes) -> Record:
    content = (
        dict(
            status="done",
            board="cifar10",
            dataset="mini-cifar10",
            data_checksum="content:0",
            split="s",
            protocol="p",
            backbone="resnet18_w16",
            binarizer="none",
            genotype_hash=None,
            weight_bits=32,
            activation_bits=32,
            recipe="mini",
            config_sha256="0" * 64,
            seed=0,
            epochs=1,
            main_metric="top1",
            metrics={"top1": 0.9, "top5": 1.0},
            untrained={"top1": 0.1, "top5": 0.5},
            cost={},
            checkpoint_sha256="0" * 64,
            code={},
            wall_seconds=1.0,
            created="2026-01-01T00:00:00+00:00",
            environment=dict(versions={}, device="cpu", threads=1),
        )
        | changes
    )
    return Record.model_validate(json.loads(json.dumps(content)))


def test_the_demo_says_when_a_row_falls_short():
    assert shortfalls([record()]) == []
    (weak,) = shortfalls([record(metrics={"top1": 0.79, "top5": 1.0})])
    assert "expected at least 80 %" in weak
    (unlearned,) = shortfalls([record(weight_bits=1, metrics={"top1": 0.2, "top5": 0.6})])
    assert "30 points more" in unlearned
    (failed,) = shortfalls([record(status="failed", error="the loss is nan", metrics={})])
    assert "failed: the loss is nan" in failed
