"""torchreid's own training loop, feature extractor and activation maps with networks of ours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchreid
from PIL import Image

from onebit import reid
from onebit.commons.checkpoint_reader import read_checkpoint
from onebit.commons.images import read_image
from onebit.reid.datasets import torchreid_root
from onebit.reid.torchreid_adapter import ImageDataManager, ImageSoftmaxEngine, _module

BACKBONE = "resnet18_w8_reactnet"
reid.register(BACKBONE)


def crop(path, seed: int) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 32, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path)


def saved(path, neck: str = "none"):
    torch.manual_seed(0)
    model = reid.ReIDModel(BACKBONE, 4, neck=neck).eval()
    torch.save({"state_dict": model.state_dict()}, path)
    return model


def test_the_feature_extractor_gives_our_features(tmp_path) -> None:
    model = saved(tmp_path / "net.pth")
    extractor = _module("utils").FeatureExtractor(
        model_name=BACKBONE, model_path=str(tmp_path / "net.pth"), image_size=(64, 32), device="cpu", verbose=False
    )
    paths = [crop(tmp_path / f"{at}.png", at) for at in range(3)]
    found = extractor(paths)
    assert found.shape == (3, 64)
    with torch.no_grad():
        expected = model(torch.stack([extractor.preprocess(read_image(path)) for path in paths]))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found[0], found[1])


def test_activation_maps_as_torchreids_script_asks_for_them(tmp_path) -> None:
    """`tools/visualize_actmap.py`, which no wheel has: squared maps, summed over channels, of unit length."""
    torchreid.models.build_model(name=BACKBONE, num_classes=4, loss="softmax", pretrained=False, use_gpu=False)
    model = saved(tmp_path / "net.pth")
    images = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = model(images, return_featuremaps=True)
        assert maps.shape == (2, 64, 2, 1)
        torch.testing.assert_close(maps.mean((2, 3)), model(images))
    heat = torch.nn.functional.normalize((maps**2).sum(1).flatten(1), p=2, dim=1)
    torch.testing.assert_close(heat.norm(dim=1), torch.ones(2))


@pytest.mark.slow
def test_torchreids_own_training_loop(market, tmp_path) -> None:
    """What torchreid's `scripts/main.py` does: a data manager, a network by its name, an engine that trains and tests."""
    name, root = torchreid_root("mini-market1501", market)
    data = ImageDataManager(
        root=str(root), sources=name, height=64, width=32, batch_size_train=16, batch_size_test=50, workers=0,
        use_gpu=False, transforms=["random_flip"],
    )  # fmt: skip
    torch.manual_seed(0)
    model = torchreid.models.build_model(BACKBONE, num_classes=data.num_train_pids, loss="softmax", pretrained=False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = _module("optim").build_optimizer(model, optim="adam", lr=0.001)
    scheduler = _module("optim").build_lr_scheduler(optimizer, lr_scheduler="single_step", stepsize=1)
    engine = ImageSoftmaxEngine(data, model, optimizer=optimizer, scheduler=scheduler, use_gpu=False, label_smooth=True)
    engine.run(save_dir=str(tmp_path), max_epoch=1, eval_freq=1, print_freq=100)
    (kept,) = (tmp_path / "model").glob("model.pth.tar-1")
    after = read_checkpoint(kept)["state_dict"]
    assert after.keys() == before.keys()
    assert any(not torch.equal(after[key], before[key]) for key in before)
