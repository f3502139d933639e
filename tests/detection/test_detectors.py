"""One-stage detectors as rows: trained, resumed, scored again, packed, used on pictures, and set apart in tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from onebit import detection
from onebit.commons.checkpoints import load_row
from onebit.commons.errors import InputError
from onebit.commons.task import Job
from onebit.detection import runner
from onebit.detection.config import FILE_OPTIONS, build_config
from onebit.detection.predictor import pack, predictor
from onebit.leaderboards import cli
from onebit.leaderboards.boards import ALL
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.running.bench import record_of
from onebit.leaderboards.showing.lines import measured
from onebit.leaderboards.showing.table import BoardTable

# ruff: isort: split
from mmengine.config import Config

ONE_STAGE = ("retinanet", "fcos")


@pytest.fixture(scope="module")
def row(drawn, tmp_path_factory):
    """A trained row of a detector whose head is 1-bit, and its job."""
    made = {}

    def of(kind):
        if kind not in made:
            options = {
                "detector": kind,
                "onebit_parts": "neck+head",
                "train_cfg.max_epochs": 2,
                "train_dataloader.batch_size": 4,
                "optim_wrapper.optimizer.lr": 0.0005,
                "param_scheduler.0.end": 2,
            }
            work = tmp_path_factory.mktemp(kind)
            job = Job("mini-coco", "resnet18_w8_reactnet", "mini", 0, drawn, work, cfg_options=options)
            made[kind] = job, runner.train(job)
        return made[kind]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("kind", ONE_STAGE)
def test_a_row_and_what_its_checkpoint_knows(row, kind, tmp_path) -> None:
    job, outcome = row(kind)
    assert (outcome.details["detector"], outcome.details["onebit_parts"]) == (kind, "neck+head")
    assert outcome.cost["strict"]["params_1bit"] > 0
    assert "proposals" not in outcome.cost["strict"]
    losses = {"retinanet": {"cls", "bbox"}, "fcos": {"cls", "bbox", "centerness"}}[kind]
    assert outcome.details["stabilizers"]["loss_weights"].keys() == losses
    assert load_row(outcome.checkpoint)[0]["cfg_options"].taken(FILE_OPTIONS)["detector"] == kind
    plain = replace(job, dataset="", backbone="", recipe="", cfg_options={})
    assert runner.test(outcome.checkpoint, plain).metrics == outcome.metrics
    packed = runner.test(outcome.checkpoint, plain, packed=True)
    assert packed.details["detector"] == kind
    image = predictor(outcome.checkpoint).read(next((job.data_root / "mini-coco" / "val2017").iterdir()))
    whole = pack(outcome.checkpoint, tmp_path / "whole.safetensors")
    for use in (predictor(outcome.checkpoint), predictor(outcome.checkpoint, packed=True), predictor(whole)):
        assert len(use(image)["boxes"]) <= 100


@pytest.mark.slow
def test_a_resume_ends_where_a_whole_run_does(row, tmp_path) -> None:
    job, outcome = row("fcos")
    part = replace(job, work_dir=tmp_path / "part")
    first = part.work_dir / "epoch_1.pth"
    first.parent.mkdir()
    for name in ("epoch_1.pth", "untrained.json"):
        (part.work_dir / name).write_bytes((job.work_dir / name).read_bytes())
    for extra in job.work_dir.glob("*.py"):
        (part.work_dir / extra.name).write_bytes(extra.read_bytes())
    assert runner.train(replace(part, resume=True)).metrics == outcome.metrics
    other = {**job.cfg_options, "detector": "retinanet"}
    with pytest.raises(InputError, match="cannot resume"):
        runner.train(replace(part, resume=True, cfg_options=other))


def test_tables_set_detectors_apart(row, tmp_path, capsys) -> None:
    board = ALL["coco"]
    records = [record_of(board, row(kind)[0], row(kind)[1], 1.0) for kind in ONE_STAGE]
    committed = Path(__file__).parents[2] / "leaderboards" / "records"
    old = next(
        r for r in Record.load_all(committed, "coco", "mini-coco") if r.backbone == "resnet18_w16_reactnet"
    ).model_copy(update=dict(details={}, cfg_options={}))
    lines = measured(board, [*records, old])
    assert {line.detector for line in lines} == {"faster_rcnn", *ONE_STAGE}
    assert len(lines) == 3
    assert all("detector=" not in line.cfg_options and not any("detector=" in n for n in line.notes) for line in lines)
    assert {line.verdicts["AP"] for line in lines} == {"alone"}  # nothing is compared across detectors
    assert {line.detector for line in BoardTable(board).lines([], reported=True)} == {"faster_rcnn"}
    for record in records:
        record.save(tmp_path)
    shown = ["table", "mini-coco", "--records", str(tmp_path)]
    assert cli.main([*shown, "--detector", "fcos", "--format", "csv"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert "detector" in header.split(",")
    assert len(rows) == 1
    assert ",fcos," in rows[0]
    assert cli.main([*shown, "--detector", "faster_rcnn"]) == 2
    assert "no records of mini-coco --detector faster_rcnn" in capsys.readouterr().err
    assert cli.main(["table", "cifar10", "--detector", "fcos"]) == 2
    assert "--detector is for boards of detection" in capsys.readouterr().err
    record = json.loads(records[0].model_dump_json())
    record["details"]["detector"] = ["fcos"]
    with pytest.raises(ValueError, match="detector must be a name"):
        Record.model_validate(record)


@pytest.mark.parametrize("kind", ONE_STAGE)
def test_the_paper_recipe_is_mmdetections(kind) -> None:
    theirs = {"retinanet": "retinanet/retinanet_r50_fpn_1x_coco", "fcos": "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco"}
    real = Config.fromfile(Path(detection.__file__).parent / "configs" / "models" / f"{kind}.py")
    mmdet = _theirs(theirs[kind])
    ours = build_config(Job("coco", "resnet18", "paper", 0, Path(), Path(), cfg_options={"detector": kind}), Path())
    wrapper, wanted = ours.optim_wrapper.to_dict(), mmdet.optim_wrapper.to_dict()
    wanted.get("clip_grad", {}).pop("norm_type", None)  # 2, the default
    assert wrapper == wanted
    assert wrapper["optimizer"]["lr"] == 0.01
    assert ours.auto_scale_lr.base_batch_size == mmdet.auto_scale_lr.base_batch_size == 16
    assert ours.param_scheduler[-1] == mmdet.param_scheduler[-1]
    assert real.model.test_cfg == mmdet.model.test_cfg
    for part in ("neck", "bbox_head"):
        wanted = {**mmdet.model[part].to_dict(), **({"in_channels": [64, 128, 256, 512]} if part == "neck" else {})}
        found = ours.model[part].to_dict()
        assert {key: found[key] for key in wanted} == wanted


def _theirs(name: str) -> Config:
    from mmdet.utils import register_all_modules
    from mmengine.config import Config as Read
    from mmengine.utils import get_installed_path

    register_all_modules(init_default_scope=False)
    return Read.fromfile(Path(get_installed_path("mmdet")) / ".mim" / "configs" / f"{name}.py")
