"""`onebit test classification` with packed networks: the same answers as the training network's."""

from dataclasses import replace

import pytest
import torch

from onebit.backbones import packed
from onebit.backbones.classifier import Classifier
from onebit.classification import runner
from onebit.classification.predictions import Predictions
from onebit.commons.errors import InputError
from onebit.commons.task import Job
from onebit.leaderboards import cli


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """(job, outcome of training, packed file of the trained network)."""
    folder = tmp_path_factory.mktemp("packed")
    job = Job(
        dataset="mini-cifar10",
        backbone="resnet18_w8_reactnet",
        recipe="mini",
        seed=0,
        data_root=data,
        work_dir=folder,
        cfg_options={"train_cfg.max_epochs": 1, "train_dataloader.batch_size": 40},
    )
    outcome = runner.train(job)
    file = folder / "net.safetensors"
    assert cli.main(["export", str(outcome.checkpoint), "--to", "packed", str(file)]) == 0
    return job, outcome, file


def answers(outcome) -> tuple[torch.Tensor, torch.Tensor]:
    found = Predictions.load(outcome.predictions)
    return found.classes, found.ranks


def test_the_packed_network_gives_the_same_answers(trained, tmp_path):
    job, outcome, _ = trained
    again = runner.test(outcome.checkpoint, replace(job, work_dir=tmp_path), packed=True)
    assert again.metrics == outcome.metrics
    assert again.cost == outcome.cost
    assert again.predictions.name == "test_packed_predictions.npz"
    for a, b in zip(answers(again), answers(outcome), strict=True):
        assert (a != b).float().mean() < 0.05


def test_a_packed_file_gives_the_same_answers(trained, tmp_path):
    job, outcome, file = trained
    again = runner.test_packed_file(file, replace(job, backbone="", work_dir=tmp_path))
    assert again.metrics == outcome.metrics
    assert (again.cost, again.epochs, again.checkpoint) == (outcome.cost, 0, file)
    for a, b in zip(answers(again), answers(outcome), strict=True):
        assert (a != b).float().mean() < 0.05


def test_files_that_do_not_fit_are_refused(trained, tmp_path):
    job, _, _ = trained
    job = replace(job, backbone="", work_dir=tmp_path)
    network, _ = packed.load(trained[2])
    name, options = "resnet18_w8_reactnet", dict(out_indices=(3,), stem="cifar")
    bare = packed.save(network.backbone, packed.description(name, **options), tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match="without classifier"):
        runner.test_packed_file(bare, job)
    other = packed.save(Classifier(network.backbone, 3), packed.description(name, 3, **options), tmp_path / "3.st")
    with pytest.raises(InputError, match="knows 3 classes, mini-cifar10 has 10"):
        runner.test_packed_file(other, job)


def test_the_command(trained, data, capsys):
    _, outcome, file = trained
    common = ["--dataset", "mini-cifar10", "--data", str(data)]
    top1 = f"top1        {outcome.metrics['top1']:.4f}"
    for arguments in (["--checkpoint", str(outcome.checkpoint), "--packed"], ["--checkpoint", str(file)]):
        assert cli.main(["test", "classification", *common, *arguments]) == 0
        said = capsys.readouterr().out
        assert top1 in said
        assert "packed, on the CPU" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backbone", "resnet18"], "leave out --backbone"),
        (["--config", "net.py", "--packed"], "it scores checkpoints of this suite and packed files"),
    ],
)
def test_wrong_options_get_one_line(trained, data, capsys, arguments, message):
    common = ["--dataset", "mini-cifar10", "--data", str(data), "--checkpoint", str(trained[2])]
    assert cli.main(["test", "classification", *common, *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_real_valued_network_has_no_packed_form(job):
    outcome = runner.train(job(cfg_options={"train_cfg.max_epochs": 1}))
    with pytest.raises(InputError, match="no 1-bit convolution to pack"):
        runner.test(outcome.checkpoint, job(backbone=""), packed=True)
