"""What of a re-identification step has the host wait for the device: torchreid's engine and losses, nothing of ours."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from onebit.backbones.integer_conv import supported
from onebit.reid import training
from onebit.reid.model import ReIDModel
from onebit.reid.recipe import build_config
from onebit.reid.runner import build_model, read_data
from onebit.reid.torchreid_adapter import LAYOUT
from tests.reid.rows import OPTIONS, TRIPLET
from tests.synchronization import NoSynchronization, Synchronizes

#: Where torchreid waits.
ENGINE, LOSSES = f"{LAYOUT}.engine.image", f"{LAYOUT}.losses"


def waits_of_a_step(job, tmp_path) -> Counter[str]:
    cfg = build_config(job)
    data = read_data(cfg, job.data_root, tmp_path / "log")
    torch.manual_seed(0)
    model = build_model(cfg, data.num_train_pids).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)  # Adam counts its steps on the CPU, always
    with training.append_stdout(tmp_path / "log"):
        engine = training._engine(model, optimizer, None, data, cfg)
    engine.on_step = [].append
    batch = next(iter(data.train_loader))
    before = [p.detach().clone() for p in model.parameters()]
    supported()  # tried once in a process, on the CPU
    with NoSynchronization(libraries=True) as guard:
        engine.forward_backward(batch)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    return guard.waits


@pytest.mark.parametrize("binarizer", ["reactnet", "pcnn", "bonn"])
@pytest.mark.parametrize("loss", ["softmax", "triplet"])
def test_a_step(job, tmp_path, binarizer, loss):
    options = OPTIONS if loss == "softmax" else TRIPLET
    job = replace(job, backbone=f"resnet18_w8_{binarizer}", cfg_options={**options, "data.workers": 0})
    # The losses and the accuracy are logged, labels go to the CPU and back, and each image has two masks, whose
    # gradients wait again.
    expected = {f"{ENGINE}.softmax.forward_backward": 2, f"{LOSSES}.cross_entropy_loss.forward": 1}
    if loss == "triplet":
        images = OPTIONS["data.batch_size_train"]
        expected = {
            f"{ENGINE}.triplet.forward_backward": 3 + 2 * images,
            f"{LOSSES}.cross_entropy_loss.forward": 1,
            f"{LOSSES}.hard_mine_triplet_loss.forward": 2 * images,
        }
    assert waits_of_a_step(job, tmp_path) == expected


def test_a_wait_of_ours_is_noticed(job, tmp_path, monkeypatch):
    forward = ReIDModel.forward

    def waiting(self, images):
        assert images.isfinite().all()
        return forward(self, images)

    monkeypatch.setattr(ReIDModel, "forward", waiting)
    with pytest.raises(Synchronizes):
        waits_of_a_step(job, tmp_path)
