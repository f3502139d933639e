"""What a row of re-ID refuses, and what its error says."""

from dataclasses import replace

import pytest
import torch

from onebit.commons.engine import latest_checkpoint
from onebit.commons.errors import InputError, WorkError
from onebit.reid import checkpoint as checkpoint_module
from onebit.reid import runner
from onebit.reid.torchreid_adapter import ImageSoftmaxEngine
from tests.reid.rows import OPTIONS, TRIPLET


def test_a_checkpoint_of_another_backbone(job):
    trained = runner.train(replace(job, cfg_options={**OPTIONS, "epochs": 1}))
    with pytest.raises(InputError, match=r"epoch_1.pth is a checkpoint of resnet18_w8_bireal, not of resnet18"):
        runner.test(trained.checkpoint, replace(job, backbone="resnet18"))


def damaged(path, **changes):
    state = torch.load(path, weights_only=True)
    torch.save({**state, **changes}, path)


def test_weights_that_do_not_fit(job):
    trained = runner.train(replace(job, cfg_options={**OPTIONS, "epochs": 1}))
    damaged(trained.checkpoint, num_classes=5)
    with pytest.raises(InputError, match=r"do not fit this network: .*classifier"):
        runner.test(trained.checkpoint, job)


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", {"state_dict": {}}, [1, 2]])
def test_a_file_that_is_no_checkpoint(job, tmp_path, content):
    path = tmp_path / "file.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=r"file\.pth is not a checkpoint|expected a checkpoint.*file\.pth"):
        runner.test(path, job)


def test_a_checkpoint_that_is_not_there(job, tmp_path):
    with pytest.raises(InputError, match=r"checkpoint not found: .*none\.pth"):
        runner.test(tmp_path / "none.pth", job)


def test_a_loss_that_is_not_finite(job, monkeypatch):
    forward_backward = ImageSoftmaxEngine.forward_backward
    seen = []

    def poisoned(self, data):
        seen.append(1)
        return {**forward_backward(self, data), "loss": float("nan" if len(seen) == 4 else 1)}

    monkeypatch.setattr(ImageSoftmaxEngine, "forward_backward", poisoned)
    with pytest.raises(WorkError, match=r"loss is nan in epoch 2, iteration 1; .*epoch_1\.pth"):
        runner.train(job)
    assert latest_checkpoint(job.work_dir).name == "epoch_1.pth"


def test_a_full_disk(job, monkeypatch):
    def full(path, content):
        raise WorkError(f"the disk is full: could not write {path}")

    monkeypatch.setattr(checkpoint_module, "write_atomic", lambda p, c: None if p.suffix == ".py" else full(p, c))
    with pytest.raises(WorkError, match=r"the disk is full: could not write .*epoch_1\.pth"):
        runner.train(job)
    assert latest_checkpoint(job.work_dir) is None


def test_features_that_are_not_finite(job, monkeypatch):
    monkeypatch.setattr(runner.ReIDModel, "forward", lambda self, x: torch.full((len(x), 4), torch.nan))
    with pytest.raises(WorkError, match="features of the queries are not finite"):
        runner.train(job)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("part", ["bounding_box_train", "query", "bounding_box_test"])
def test_an_unreadable_image(job, part, workers):
    """One line that names the file, from a loader process too."""
    victim = min((job.data_root / "market1501/Market-1501-v15.09.15" / part).iterdir())
    victim.write_bytes(b"no image")
    with pytest.raises(InputError) as caught:
        runner.train(replace(job, cfg_options={**OPTIONS, "data.workers": workers}))
    message = str(caught.value)
    assert message.startswith("expected an image that can be read, found")
    assert str(victim) in message
    assert "\n" not in message


def test_a_gallery_smaller_than_the_ranks(job):
    folder = job.data_root / "market1501/Market-1501-v15.09.15/bounding_box_test"
    for path in sorted(folder.iterdir())[4:]:
        path.unlink()
    with pytest.raises(InputError, match=r"at least 10 images; this one has"):
        runner.train(replace(job, cfg_options={**OPTIONS, "score_untrained": False}))
    assert latest_checkpoint(job.work_dir) is None  # said before training


def test_what_is_wrong_with_the_data_comes_first(job, tiny):
    """Not behind all options of the loader."""
    (tiny / "market1501/Market-1501-v15.09.15/query/hello.jpg").touch()
    with pytest.raises(InputError, match=r"^expected a file name like 0001_c1s1_000151_01\.jpg, found .*hello"):
        runner.train(replace(job, data_root=tiny))


def test_queries_without_a_match(job):
    folder = job.data_root / "market1501/Market-1501-v15.09.15"
    for path in (folder / "query").iterdir():
        path.rename(path.with_name("1499" + path.name[4:]))
    with pytest.raises(InputError, match="none of the 18 queries"):
        runner.train(job)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(backbone="resnet17"), "unknown backbone 'resnet17'"),
        (dict(dataset="market"), "unknown dataset 'market'; did you mean"),
        (dict(dataset="mini-voc"), "mini-voc is for detection"),
        (dict(dataset="dukemtmcreid"), "dataset dukemtmcreid not found: expected"),
        (dict(recipe="papier"), "unknown recipe of reid 'papier'; did you mean paper"),
        (dict(cfg_options={"epoch": 3}), "no option 'epoch'; did you mean epochs"),
        (dict(cfg_options={"optimizer.type": "SDG"}), "optimizer of torch.optim, found 'SDG'"),
        (dict(cfg_options={"optimizer.speed": 3}), "optimizer AdamW: .*speed"),
        (dict(cfg_options={"model.backbone_options.stem": "none"}), "stem 'none'"),
        (dict(cfg_options={"model.backbone_options.legs": 4}), "model options .*legs"),
        (dict(cfg_options={"model.neck": "long"}), "neck 'long': expected one of none, bn"),
        (dict(cfg_options={"data.batch_size_train": 4096}), "batch size 4096 is larger than"),
        (
            dict(cfg_options={"evaluation.distance": "manhattan"}),
            "distance 'manhattan': expected one of euclidean, cosine",
        ),
        (dict(cfg_options={"schedule": "linear"}), "schedule 'linear': expected one of cosine"),
        (dict(cfg_options={"model.loss": "hinge"}), "loss 'hinge': expected one of softmax"),
        (dict(cfg_options={"epochs": 0}), "epochs 0: expected a whole number from 1 up"),
        (dict(cfg_options={"epochs": 1.5}), "epochs 1.5: expected a whole number"),
        (dict(cfg_options={"data.batch_size_train": 1}), "batch_size_train 1: expected"),
        (dict(cfg_options={**TRIPLET, "data.num_instances": 3}), "16 images are not a multiple"),
        (dict(cfg_options={**TRIPLET, "data.num_instances": 16}), "at least two identities"),
        (dict(cfg_options={**TRIPLET, "data.num_instances": 2}), "batches of 8 identities; the training set has fewer"),
        (dict(cfg_options={**TRIPLET, "triplet.weight_t": -1.0}), "triplet .*weights are not negative"),
        (
            dict(cfg_options={**TRIPLET, "data.train_sampler": "RandomSampler"}),
            "expected data.train_sampler=RandomIdentitySampler, found RandomSampler",
        ),
        (dict(cfg_options={"data.train_sampler": "Random"}), "train_sampler"),
    ],
)
def test_bad_input(job, change, message):
    change = {**change, "cfg_options": {**OPTIONS, **change.get("cfg_options", {})}}
    with pytest.raises(InputError, match=message):
        runner.train(replace(job, **change))
    assert latest_checkpoint(job.work_dir) is None
