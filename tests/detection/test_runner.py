"""One row from end to end on a handful of drawn images."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onebit.commons.datasets import Dataset
from onebit.commons.engine import load_row
from onebit.commons.engine_hooks import EpochSeedHook
from onebit.commons.errors import InputError
from onebit.commons.task import Job
from onebit.detection import runner
from onebit.detection.config import CONFIGS, build_config


def config(make_job, **changes):
    return build_config(make_job(Path("data"), **changes), "data/somewhere")


class Stop(Exception):
    """Stands for a kill after the first epoch."""


@pytest.fixture(scope="module")
def trained(drawn, tmp_path_factory):
    """(job, outcome) of a tiny 1-bit row, trained without interruption."""
    from tests.detection.conftest import TINY

    job = Job(
        dataset="mini-voc",
        backbone="resnet18_w8_reactnet",
        recipe="mini",
        seed=3,
        data_root=drawn,
        work_dir=tmp_path_factory.mktemp("row"),
        cfg_options=TINY,
    )
    return job, runner.train(job)


def test_outcome_of_a_row(trained, capsys):
    job, outcome = trained
    assert outcome.main_metric == "map_area"
    assert set(outcome.metrics) == set(outcome.untrained) == {"map_area", "map_11pt"}
    assert all(0 <= v <= 1 for v in (*outcome.metrics.values(), *outcome.untrained.values()))
    assert outcome.epochs == 2
    assert outcome.checkpoint == Path(job.work_dir) / "epoch_2.pth"
    assert outcome.num_classes == 5
    assert outcome.data_checksum.startswith("content:")
    details = outcome.details
    assert len(details["loss_curve"]) == 2
    assert all(math.isfinite(loss) for loss in details["loss_curve"])
    assert details["train_images"] == 8
    assert details["onebit_parts"] == "lateral"
    common = dict(binarizers=["reactnet"], pad_values=[0])
    assert details["onebit_convs"] == {"backbone": dict(count=16, **common), "neck": dict(count=4, **common)}
    assert outcome.cost["strict"]["onebit_parts"] == "lateral"
    assert set(details["per_class"]) <= {"aeroplane", "bottle", "car", "chair", "tvmonitor"}


def test_cost_of_the_whole_detector(trained):
    cost = trained[1].cost
    assert set(cost) == {"strict", "mmdet-legacy"}
    strict = cost["strict"]
    assert strict["input_shape"] == [3, 96, 96]
    assert strict["proposals"] == 100
    # The neck's laterals: 3x3 1-bit convs from 8, 16, 32, 64 channels to 64 at strides 4 to 32.
    neck = sum(9 * 64 * c * (96 // s) ** 2 for c, s in ((8, 4), (16, 8), (32, 16), (64, 32)))
    from onebit import backbones

    alone = backbones.cost("resnet18_w8_reactnet", (3, 96, 96))
    assert strict["bops"] == alone.bops + neck
    assert strict["params_real"] > 64 * 49 * 256  # the box head counts
    assert cost["mmdet-legacy"]["flops"] > strict["flops"]


def test_work_folder_and_terminal(trained):
    job, outcome = trained
    names = {p.name for p in Path(job.work_dir).iterdir()}
    assert {"config.py", "train.log", "output.log", "epoch_2.pth", "untrained.json"} <= names
    assert "Average Precision" not in outcome.config
    assert str(job.data_root) not in outcome.config
    assert str(job.work_dir) not in outcome.config


def test_losses_of_the_method_are_added_and_logged(drawn, tmp_path):
    from tests.detection.conftest import TINY

    options = {**TINY, "train_cfg.max_epochs": 1, "default_hooks.logger.interval": 1}
    job = Job(
        dataset="mini-voc",
        backbone="resnet18_w8_mcn",
        recipe="mini",
        seed=0,
        data_root=drawn,
        work_dir=tmp_path / "mcn",
        cfg_options=options,
    )
    runner.train(job)
    lines = [x for x in (tmp_path / "mcn/train.log").read_text().splitlines() if "(train)" in x]
    assert lines
    for line in lines:
        values = dict(re.findall(r"(loss\w*): (\S+)", line))
        assert "loss_reconstruction" in values
        parts = sum(float(v) for k, v in values.items() if k != "loss")
        assert float(values["loss"]) == pytest.approx(parts, abs=1e-3)
        assert float(values["loss_reconstruction"]) > 0


def test_nothing_is_printed(trained, tmp_path, capfd):
    job, outcome = trained
    capfd.readouterr()
    runner.test(outcome.checkpoint, replace(job, work_dir=tmp_path))
    out, err = capfd.readouterr()
    assert out == ""
    assert "Epoch" not in err
    assert "mAP" not in err
    assert "mAP" in (tmp_path / "test.log").read_text()


def test_scoring_the_checkpoint_gives_the_same(trained, tmp_path):
    job, outcome = trained
    bare = replace(job, backbone="", recipe="", dataset="", cfg_options={}, work_dir=tmp_path)
    again = runner.test(outcome.checkpoint, bare)
    assert again.metrics == outcome.metrics
    assert again.untrained is None
    assert again.epochs == 2
    assert again.cost == outcome.cost
    assert again.config == outcome.config


def test_checkpoint_of_another_backbone(trained, tmp_path, monkeypatch):
    job, outcome = trained
    row, weights = load_row(outcome.checkpoint)
    with pytest.raises(InputError, match=r"is a checkpoint of resnet18_w8_reactnet, not of resnet18_w8$"):
        runner.test(outcome.checkpoint, replace(job, backbone="resnet18_w8", work_dir=tmp_path))
    monkeypatch.setattr(runner, "load_row", lambda path: ({**row, "num_classes": 7}, weights))
    with pytest.raises(InputError, match=f"knows 7 classes, {job.dataset} has {row['num_classes']}"):
        runner.test(outcome.checkpoint, replace(job, cfg_options={}, work_dir=tmp_path))
    monkeypatch.undo()
    options = {"model.neck.out_channels": 32}
    with pytest.raises(InputError, match="do not fit"):
        runner.test(outcome.checkpoint, replace(job, cfg_options=options, work_dir=tmp_path))


@pytest.mark.parametrize("content", [b"", b"PK no checkpoint", None, "other"])
def test_not_a_checkpoint(tmp_path, content, make_job):
    path = tmp_path / "some.pth"
    if content == "other":
        torch.save({"state_dict": {}}, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"some\.pth"):
        runner.test(path, make_job(tmp_path))


def test_a_checkpoint_that_would_execute_something(trained, tmp_path):
    job, outcome = trained

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    content = torch.load(outcome.checkpoint, weights_only=True)
    torch.save({**content, "meta": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match=r"evil\.pth"):
        runner.test(tmp_path / "evil.pth", job)
    assert not (tmp_path / "executed").exists()


def test_resumed_equals_uninterrupted(trained, tmp_path, monkeypatch):
    job, outcome = trained
    job = replace(job, work_dir=tmp_path / "again")
    start = EpochSeedHook.before_train_epoch

    def killed(self, current):
        if current.epoch == 1:
            raise Stop
        start(self, current)

    with monkeypatch.context() as patch:
        patch.setattr(EpochSeedHook, "before_train_epoch", killed)
        with pytest.raises(Stop):
            runner.train(job)
    assert {p.name for p in job.work_dir.glob("epoch_*.pth")} == {"epoch_1.pth"}
    resumed = runner.train(replace(job, resume=True))
    (_, first), (_, second) = (load_row(o.checkpoint) for o in (outcome, resumed))
    for name, weight in first.items():
        assert torch.equal(weight, second[name]), name
    assert resumed.details["loss_curve"] == outcome.details["loss_curve"]
    assert resumed.metrics == outcome.metrics
    assert resumed.untrained == outcome.untrained
    assert resumed.config == outcome.config


def test_resume_with_changed_data_is_refused(trained, monkeypatch):
    job, outcome = trained
    monkeypatch.setattr(Dataset, "checksum", lambda self, root, cached=True: "content:" + "0" * 64)
    with pytest.raises(InputError, match=f"cannot resume.*data '{outcome.data_checksum}' and not 'content:0000"):
        runner.train(replace(job, resume=True))


def test_data_that_change_during_the_training_are_refused(trained, tmp_path, monkeypatch):
    job, outcome = trained
    seen = iter([outcome.data_checksum])
    monkeypatch.setattr(Dataset, "checksum", lambda self, root, cached=True: next(seen, "content:" + "0" * 64))
    with pytest.raises(InputError, match="was changed while a training used it") as refused:
        runner.train(replace(job, work_dir=tmp_path / "changed"))
    assert "\n" not in str(refused.value)


def test_resume_refuses_another_config(trained):
    job, _ = trained
    other = {**job.cfg_options, "optim_wrapper.optimizer.lr": 0.1}
    with pytest.raises(InputError, match="cannot resume"):
        runner.train(replace(job, resume=True, cfg_options=other))


def test_coco_and_a_real_valued_backbone(drawn, make_job):
    outcome = runner.train(make_job(drawn, "mini-coco", "resnet18_w8"))
    assert {"AP", "AP50", "AP75"} <= set(outcome.metrics)
    assert outcome.main_metric == "AP"
    assert outcome.details["onebit_parts"] == "none"
    assert outcome.details["onebit_convs"] == {}
    assert outcome.cost["strict"]["bops"] == 0


def test_the_neck_follows_the_backbone(make_job):
    real = config(make_job, backbone="resnet18_w8")
    assert real.model.neck.type == "FPN"
    for name, binarizer in (("resnet18_w8_xnor", "xnor"), ("dcp_nas_c8", "mcn")):
        neck = config(make_job, backbone=name).model.neck
        assert (neck.type, neck.binarizer) == ("onebit.OneBitFPN", binarizer)


def test_the_file_of_a_searched_cell_names_a_backbone(make_job, tmp_path):
    from onebit import backbones

    path = backbones.Genotype.random(5).save(tmp_path / "cell.json")
    model = config(make_job, backbone=f"{path}_c4_l3").model
    assert (model.neck.type, model.neck.in_channels) == ("onebit.OneBitFPN", [4, 16, 32, 64])
    path.write_text(path.read_text().replace("conv_3x3", "conv_9x9"))
    with pytest.raises(InputError, match=r"cell\.json: .*operation '\w+_conv_9x9': expected one of"):
        config(make_job, backbone=f"{path}_c4_l3")


@pytest.mark.parametrize(("dataset", "classes", "scale"), [("voc", 20, (1000, 600)), ("coco", 80, (1333, 800))])
def test_the_papers_recipe(make_job, dataset, classes, scale):
    cfg = config(make_job, dataset=dataset, backbone="dcp_nas_s", recipe="paper", cfg_options={})
    assert cfg.model.roi_head.bbox_head.num_classes == classes
    assert cfg.model.neck.in_channels == [54, 216, 432, 864]
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.optim_wrapper.optimizer.lr == 0.02
    assert cfg.param_scheduler[1].milestones == [9, 11]
    assert cfg.auto_scale_lr.base_batch_size == 16
    resize = [t for t in cfg.test_dataloader.dataset.pipeline if t.type == "Resize"]
    assert [t["scale"] for t in resize] == [scale]
    assert cfg.test_dataloader.dataset.data_root.startswith("data/somewhere")


def test_every_dataset_goes_with_every_recipe(make_job):
    datasets = [p.stem for p in (CONFIGS / "datasets").glob("[!_]*.py") if p.stem != "own"]
    recipes = [p.stem for p in (CONFIGS / "recipes").glob("[!_]*.py") if p.stem != "own"]  # test_own_data.py
    assert len(datasets) == 5
    for dataset in datasets:
        for recipe in recipes:
            config(make_job, dataset=dataset, recipe=recipe, cfg_options={})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(backbone="resnet18_w8_reactnett"), "unknown backbone"),
        (dict(recipe="huge"), "unknown recipe of detection 'huge'; there are mini, own, paper, small"),
        (dict(recipe="_narrow"), "unknown recipe of detection '_narrow'"),
        (dict(cfg_options={"param_scheduler.9.end": 3}), "do not fit"),
        (
            dict(cfg_options={"train_cfg.max_epoch": 3}),
            r"no option 'train_cfg\.max_epoch'; did you mean train_cfg\.max_epochs",
        ),
    ],
)
def test_wrong_names(make_job, changes, message):
    with pytest.raises(InputError, match=message):
        config(make_job, **changes)
