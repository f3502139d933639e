"""Rows that begin with trained backbones, and rows of the other boards."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onebit.commons.engine import latest_checkpoint
from onebit.commons.errors import InputError
from onebit.commons.files import sha256_file
from onebit.commons.task import Job
from onebit.reid import runner
from tests.reid.rows import OPTIONS


def plain(outcome):
    return outcome.metrics, outcome.untrained, outcome.details, outcome.config


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """What `onebit train classification` leaves, with weights no training here would give."""
    from onebit.classification.model import ImageClassifier
    from onebit.commons.engine import ROW

    classifier = ImageClassifier(dict(type="onebit.create_backbone", name="resnet18_w8_bireal", out_indices=(3,)), 10)
    torch.nn.init.constant_(classifier.backbone.conv1.weight, 0.25)
    row = dict(task="classification", backbone="resnet18_w8_bireal")
    path = tmp_path_factory.mktemp("classification") / "epoch_1.pth"
    torch.save({ROW: row, "state_dict": classifier.state_dict()}, path)
    return path


def test_a_pretrained_backbone(job, pretrained):
    options = {**OPTIONS, "epochs": 1, "init_from": str(pretrained), "optimizer.lr": 0.0}
    outcome = runner.train(replace(job, cfg_options=options))
    weights = torch.load(outcome.checkpoint, weights_only=True)["state_dict"]
    assert torch.equal(weights["embedding.backbone.conv1.weight"], torch.full((8, 3, 7, 7), 0.25))
    assert f"init_from_sha256 = '{sha256_file(pretrained)}'" in outcome.config
    assert str(pretrained.parent) not in outcome.config
    resumed = runner.train(replace(job, cfg_options=options, resume=True))
    assert plain(resumed) == plain(outcome)
    with pytest.raises(InputError, match="cannot resume"):
        runner.train(replace(job, cfg_options={**options, "init_from": ""}, resume=True))


def test_a_pretrained_backbone_that_does_not_fit(job, pretrained, tmp_path):
    def start(path, **change):
        options = {**OPTIONS, "epochs": 1, "init_from": str(path), **change.pop("options", {})}
        return runner.train(replace(job, cfg_options=options, **change))

    with pytest.raises(InputError, match=r"is a checkpoint of resnet18_w8_bireal, not of resnet18_w8$"):
        start(pretrained, backbone="resnet18_w8")
    with pytest.raises(InputError, match=r"checkpoint not found: .*none\.pth"):
        start(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(InputError, match=r"text\.pth is not a checkpoint that can be read"):
        start(tmp_path / "text.pth")
    with pytest.raises(InputError, match=r"do not fit this network: .*conv1"):
        start(pretrained, options={"model.backbone_options.stem": "cifar"})
    from onebit.commons.engine import ROW

    torch.save({ROW: dict(task="detection", backbone=job.backbone), "state_dict": {}}, tmp_path / "d.pth")
    with pytest.raises(InputError, match="is a checkpoint of detection, not of classification"):
        start(tmp_path / "d.pth")
    assert latest_checkpoint(job.work_dir) is None


def test_the_row_says_which_network_it_was(job):
    options = {**OPTIONS, "epochs": 1, "model.last_stride": 1, "model.feature_dim": 24}
    dense = runner.train(replace(job, cfg_options=options))
    plain_row = runner.train(replace(job, work_dir=job.work_dir / "plain", cfg_options={**OPTIONS, "epochs": 1}))
    assert dense.details["feature_dim"] == 24
    assert plain_row.details["feature_dim"] == 64
    assert dense.cost["strict"]["macs"] > plain_row.cost["strict"]["macs"]
    with pytest.raises(InputError, match="last_stride 1: dcp_nas_c8 has no last stage"):
        runner.train(replace(job, backbone="dcp_nas_c8", cfg_options=options))


@pytest.mark.parametrize("name", ["mini-dukemtmcreid", "mini-cuhk03"])
def test_the_other_boards(name, request, tmp_path):
    data_root = request.getfixturevalue("duke" if "duke" in name else "cuhk_copy")
    options = {**OPTIONS, "epochs": 1, "data.batch_size_train": 32}
    outcome = runner.train(Job(name, "resnet18_w8", "mini", 0, Path(data_root), tmp_path / "work", cfg_options=options))
    assert outcome.details["valid_queries"] == outcome.details["queries"]
    assert ("detected" in outcome.split) == (name == "mini-cuhk03")


def test_the_classic_split_of_cuhk03_has_its_own_protocol(cuhk_copy, tmp_path):
    options = {
        **OPTIONS,
        "epochs": 1,
        "data.cuhk03_classic_split": True,
        "data.cuhk03_labeled": True,
        "data.split_id": 2,
    }
    job = Job("mini-cuhk03", "resnet18_w8", "mini", 0, cuhk_copy, tmp_path, cfg_options=options)
    outcome = runner.train(job)
    assert outcome.split == "classic split 3 of 20, labeled boxes: train -> query, gallery"
    assert outcome.protocol.startswith("CUHK03 classic; single gallery shot")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "rank1"), [("resnet18_w16", 0.6), ("resnet18_w16_reactnet", 0.4), ("dcp_nas_c8", 0.4)]
)
def test_the_mini_board_is_learned(market, tmp_path, backbone, rank1):
    outcome = runner.train(Job("mini-market1501", backbone, "mini", 0, market, tmp_path))
    assert outcome.untrained["rank1"] < 0.2
    assert outcome.metrics["rank1"] >= rank1
