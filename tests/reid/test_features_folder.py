"""Features of a folder of images."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from onebit.commons.errors import InputError
from onebit.commons.task import Job
from onebit.reid import runner
from onebit.reid.features import load
from onebit.reid.features_folder import features_of_folder

OPTIONS = {"epochs": 1, "height": 64, "width": 32, "data.batch_size_train": 16, "score_untrained": False}


@pytest.fixture(scope="module")
def trained(market, tmp_path_factory):
    job = Job("mini-market1501", "resnet18_w8", "mini", 0, market, tmp_path_factory.mktemp("work"), cfg_options=OPTIONS)
    return runner.train(job)


@pytest.fixture
def crops(market, trained, tmp_path):
    """Ten queries of the mini dataset, half of them a folder deeper."""
    folder = tmp_path / "crops"
    (folder / "deeper").mkdir(parents=True)
    source = market / "mini-market1501/market1501/Market-1501-v15.09.15/query"
    for n, path in enumerate(sorted(source.glob("*.jpg"))[:10]):
        shutil.copy(path, folder / ("deeper" if n % 2 else ".") / path.name)
    return folder


def test_the_same_features_as_in_scoring(trained, crops, tmp_path):
    out = tmp_path / "new" / "crops.safetensors"
    returned = features_of_folder(trained.checkpoint, crops, out, batch_size=3)
    groups, facts = load(out)
    assert list(groups) == ["images"]
    found = groups["images"]
    assert np.array_equal(found.features, returned.features)
    assert found.pids is None
    assert list(found.names) == sorted(found.names)
    assert sum(name.startswith("deeper/") for name in found.names) == 5
    assert facts["backbone"] == "resnet18_w8"
    assert len(facts["checkpoint_sha256"]) == 64
    scored, _ = load(trained.predictions)
    by_name = {n.rsplit("/", 1)[1]: f for n, f in zip(scored["query"].names, scored["query"].features, strict=True)}
    expected = np.stack([by_name[name.rsplit("/", 1)[-1]] for name in found.names])
    assert found.features == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_batches_and_workers_change_nothing(trained, crops, tmp_path):
    one = features_of_folder(trained.checkpoint, crops, tmp_path / "1.safetensors", 1)
    two = features_of_folder(trained.checkpoint, crops, tmp_path / "2.safetensors", 4, workers=1)
    assert one.names == two.names
    assert one.features == pytest.approx(two.features, rel=1e-4, abs=1e-4)


def test_other_kinds_of_images(trained, crops, tmp_path):
    Image.new("L", (20, 40), 90).save(crops / "grey.PNG")
    Image.new("RGBA", (20, 40), (9, 9, 9, 9)).save(crops / "alpha.webp")
    (crops / "notes.txt").write_text("no image")
    found = features_of_folder(trained.checkpoint, crops, tmp_path / "f.safetensors")
    assert {"grey.PNG", "alpha.webp"} <= set(found.names)
    assert len(found) == 12


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image(trained, crops, tmp_path, workers):
    (crops / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(InputError) as caught:
        features_of_folder(trained.checkpoint, crops, tmp_path / "f.safetensors", workers=workers)
    assert str(caught.value).startswith("expected an image that can be read, found")
    assert "broken.jpg" in str(caught.value)
    assert not (tmp_path / "f.safetensors").exists()


def test_bad_input(trained, crops, tmp_path):
    out = tmp_path / "f.safetensors"
    (tmp_path / "empty").mkdir()
    for checkpoint, images, target, message in (
        (trained.checkpoint, tmp_path / "none", out, "found no folder .*none"),
        (trained.checkpoint, tmp_path / "empty", out, r"expected images \(.jpg.*empty, found none"),
        (trained.checkpoint, crops, tmp_path / "f.npz", "FILE.safetensors, found .*f.npz"),
        (tmp_path / "none.pth", crops, out, "checkpoint not found"),
        (crops / "deeper", crops, out, "checkpoint not found"),
    ):
        with pytest.raises(InputError, match=message):
            features_of_folder(checkpoint, images, target)
    other = tmp_path / "other.pth"
    torch.save({"state_dict": {}}, other)
    with pytest.raises(InputError, match="expected a checkpoint that re-ID training wrote"):
        features_of_folder(other, crops, out)
    assert not out.exists()
