"""Mini data small enough to train on inside a test."""

import shutil

import pytest

from onebit import detection  # noqa: F401  first: MMDetection cannot be imported without its operators
from onebit.commons.datasets import DATASETS
from onebit.commons.mini import detection as mini
from onebit.commons.mini import draw
from onebit.commons.task import Job

#: The datasets of detection that are drawn.
DRAWN = [name for name, dataset in DATASETS.items() if dataset.draw and dataset.task == "detection"]
COUNTS = {"VOC2007 trainval": 4, "VOC2012 trainval": 4, "VOC2007 test": 4, "train2017": 8, "val2017": 4}


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A data root with a few images of each mini dataset; not to be changed."""
    root = tmp_path_factory.mktemp("mini")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mini, "_COUNTS", COUNTS)
        for name in DRAWN:
            draw(name, root / name)
    return root


@pytest.fixture
def data(drawn, tmp_path):
    """A copy of ``drawn`` that a test may damage."""
    return shutil.copytree(drawn, tmp_path / "data")


#: The mini recipe cut down to two steps per epoch of two epochs.
TINY = {
    "train_cfg.max_epochs": 2,
    "train_dataloader.batch_size": 4,
    "optim_wrapper.optimizer.lr": 0.0005,
    "param_scheduler.0.end": 2,
}


@pytest.fixture
def make_job(tmp_path):
    def make(data_root, dataset="mini-voc", backbone="resnet18_w8_reactnet", **changes) -> Job:
        fields = dict(recipe="mini", seed=0, work_dir=tmp_path / "work", cfg_options=TINY)
        return Job(dataset=dataset, backbone=backbone, data_root=data_root, **{**fields, **changes})

    return make
