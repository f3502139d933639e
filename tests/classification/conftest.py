"""The mini datasets cut down to a few images, each written once."""

import shutil
from pathlib import Path

import pytest

from onebit.commons.datasets import get_dataset
from onebit.commons.mini import classification, draw
from onebit.commons.task import Job

TRAIN, TEST = 80, 40


def _few_images(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(classification, "CIFAR_TRAIN", TRAIN)
    patch.setattr(classification, "CIFAR_TEST", TEST)
    patch.setattr(classification, "IMAGENET_TRAIN", 4)
    patch.setattr(classification, "IMAGENET_VAL", 2)


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A data root with mini-cifar10, mini-imagenet and cifar10-jpeg. Tests must not write to it."""
    from PIL import Image

    from onebit.classification.datasets import read_cifar

    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:  # no longer: other tests write the whole ones
        _few_images(patch)
        for name in ("mini-cifar10", "mini-imagenet"):
            (root / name).mkdir()
            draw(name, root / name)
    names = ["airplane", "automobile", "bird"]
    for split in ("train", "test"):
        images, labels = read_cifar(root / "mini-cifar10", split)
        for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            folder = root / "cifar10-jpeg" / split / names[label % 3]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:03}.jpg", quality=95)
    return root


@pytest.fixture
def data_copy(data, tmp_path) -> Path:
    """The same, free to be damaged."""
    shutil.copytree(data, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def job(data, tmp_path):
    """Builds a Job of two quick epochs."""

    def build(dataset="mini-cifar10", *, name="run", backbone="resnet18_w8", recipe="mini", **fields):
        options = {"train_cfg.max_epochs": 2, "train_dataloader.batch_size": 40}
        options.update(fields.pop("cfg_options", {}))
        values = dict(seed=0, data_root=data, work_dir=tmp_path / name, resume=False)
        return Job(dataset=dataset, backbone=backbone, recipe=recipe, cfg_options=options, **{**values, **fields})

    return build


@pytest.fixture
def config(job):
    """Builds the complete config of a job."""
    from onebit.classification.config import build_config

    def build(*arguments, **fields):
        built = job(*arguments, **fields)
        dataset = get_dataset(built.dataset)
        return build_config(built, dataset, dataset.find(built.data_root))

    return build
