"""The configs in MMDetection's style, for MMDetection's own tools."""

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import DefaultScope

from onebit.commons.datasets import DATASETS, get_dataset, register_dataset
from onebit.commons.errors import InputError
from onebit.commons.task import Job
from onebit.detection.config import CONFIGS, build_config
from onebit.detection.parts import parts_of

FILES = sorted((CONFIGS / "faster_rcnn").glob("*.py"))
BACKBONES = [
    *(f"resnet{depth}{suffix}" for depth in (18, 34) for suffix in ("", "_xnor", "_bireal", "_reactnet", "_dorefa4")),
    *(f"dcp_nas_{size}" for size in "sml"),
]
#: One of each kind, for every run of the tests.
QUICK = ("faster-rcnn_r18_fpn_1x_coco", "faster-rcnn_dcp-nas-s_onebit-fpn_1x_voc0712")


def shapes(model):
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope("mmdet"), torch.device("meta"):
        detector = MODELS.build(model)
    return {k: v.shape for k, v in detector.state_dict().items()}, parts_of(detector)


def test_one_file_for_every_row():
    named = {(Config.fromfile(p).model.backbone.name, p.stem.split("_")[-1]) for p in FILES if p.stem in QUICK}
    assert named == {("resnet18", "coco"), ("dcp_nas_s", "voc0712")}
    stems = [p.stem for p in FILES]
    assert len(stems) == len(set(stems)) == 2 * len(BACKBONES)


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=() if p.stem in QUICK else pytest.mark.slow) for p in FILES]
)
def test_is_the_row_of_the_board(path):
    """The same network, schedule and data as `onebit bench` with recipe `paper`."""
    cfg = Config.fromfile(path)
    backbone = cfg.model.backbone.name
    assert backbone in BACKBONES
    board = "voc" if path.stem.endswith("voc0712") else "coco"
    row = build_config(Job(board, backbone, "paper", 0, Path("data"), Path()), "data")
    theirs, ours = shapes(cfg.model), shapes(row.model)
    assert theirs == ours
    assert cfg.onebit_parts == row.onebit_parts == ours[1]
    for key in ("neck", "rpn_head", "train_cfg", "test_cfg"):
        assert cfg.model[key] == row.model[key], key
    assert cfg.model.roi_head.bbox_head.num_classes == row.num_classes
    assert cfg.optim_wrapper.optimizer == row.optim_wrapper.optimizer
    assert "clip_grad" not in {**cfg.optim_wrapper, **row.optim_wrapper}
    assert cfg.param_scheduler == row.param_scheduler
    for key in ("enable", "base_batch_size"):
        assert cfg.auto_scale_lr[key] == row.auto_scale_lr[key]
    assert cfg.train_cfg.max_epochs == row.train_cfg.max_epochs == 12
    assert cfg.train_dataloader.batch_size == row.train_dataloader.batch_size

    def scale(pipeline):
        return [tuple(step["scale"]) for step in pipeline if step["type"] == "Resize"]

    assert scale(cfg.test_dataloader.dataset.pipeline) == scale(row.test_dataloader.dataset.pipeline)
    if board == "voc":
        assert cfg.train_dataloader.dataset.times == 1
        assert len(cfg.train_dataloader.dataset.dataset.datasets) == 2
        assert cfg.test_evaluator.type == row.test_evaluator.type
    assert "torchvision" not in cfg.pretty_text


def test_a_dataset_of_another_package_names_its_config(tmp_path, monkeypatch):
    monkeypatch.setattr(DATASETS, "registered", dict(DATASETS.registered))
    own = tmp_path / "their_data.py"
    own.write_text((CONFIGS / "datasets" / "coco.py").read_text().replace("val2017", "ours2026"))
    value = get_dataset("coco").variant("theirs", "development", ("theirs",), "Ask them.", reader=str(own))
    register_dataset(value)
    cfg = build_config(Job("theirs", "resnet18_w8", "mini", 0, tmp_path, tmp_path), tmp_path)
    assert cfg.test_dataloader.dataset.ann_file == "annotations/instances_ours2026.json"
    assert (cfg.split, cfg.main_metric, cfg.protocol) == (value.split, "AP", value.protocol)
    own.write_text("train_dataloader = dict()\n")
    with pytest.raises(InputError, match=r"their_data.py does not say its test_dataloader, test_evaluator, test_cfg"):
        build_config(Job("theirs", "resnet18_w8", "mini", 0, tmp_path, tmp_path), tmp_path)
