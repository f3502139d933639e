"""Teachers: whose they can be, and what a student's loss is."""

import copy
from dataclasses import replace

import pytest
import torch

from onebit.classification import runner as classification
from onebit.classification.distillation import Distillation
from onebit.commons.engine import load_row, read_foreign_checkpoint
from onebit.commons.errors import InputError

STUDENT = "resnet18_w8_reactnet"


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory):
    """The checkpoint of a network trained for one epoch."""
    from onebit.commons.task import Job

    options = {"train_cfg.max_epochs": 1, "train_dataloader.batch_size": 40}
    folder = tmp_path_factory.mktemp("teacher")
    job = Job("mini-cifar10", "resnet18_w8", "mini", 0, data, folder, False, options)
    return classification.train(job).checkpoint


def test_kl_is_that_of_the_formula(teacher):
    t = 3.0
    distance = Distillation(10, str(teacher), temperature=t)
    images, logits = torch.randn(4, 3, 32, 32), torch.randn(4, 10, requires_grad=True)
    p = (distance._network(images) / t).softmax(1)
    q = (logits / t).softmax(1)
    expected = (p * (p.log() - q.log())).sum(1).mean() * t**2
    torch.testing.assert_close(distance(logits, images), expected)
    assert distance(distance._network(images), images).abs() < 1e-6
    assert not any(p.requires_grad for p in distance._network.parameters())


def test_mse_is_that_of_the_logits(teacher):
    distance = Distillation(10, str(teacher), loss="mse")
    images = torch.randn(2, 3, 32, 32)
    wanted = distance._network(images)
    torch.testing.assert_close(distance(wanted + 2, images), torch.tensor(4.0))


def test_weight_shares_the_loss_with_the_cross_entropy(teacher, config):
    torch.manual_seed(0)
    plain = classification.MODELS.build(config(backbone="resnet18_w8").model)
    student = copy.deepcopy(plain)
    images, labels = torch.randn(8, 3, 32, 32), torch.randint(0, 10, (8,))
    for weight in (1.0, 0.25):
        student.distillation = Distillation(10, str(teacher), weight=weight)
        losses = student(images, labels, mode="loss")
        entropy = plain(images, labels, mode="loss")["loss"]
        distance = student.distillation(plain(images), images)
        if weight == 1:
            assert set(losses) == {"loss"}
        total = sum(losses.values())
        torch.testing.assert_close(total, (1 - weight) * entropy + weight * distance)


def test_record_says_whose_student_it_is_and_its_checkpoint_needs_no_teacher(teacher, job):
    from onebit.commons.files import sha256_file

    copied = job().work_dir.parent / "teacher.pth"
    copied.write_bytes(teacher.read_bytes())
    options = {"train_cfg.max_epochs": 1, "distillation.teacher": str(copied)}
    outcome = classification.train(job(backbone=STUDENT, cfg_options=options))
    digest = sha256_file(teacher)
    assert outcome.details["teacher"] == dict(
        backbone="resnet18_w8", file="teacher.pth", sha256=digest, dataset="mini-cifar10", recipe="mini"
    )
    assert digest in outcome.config
    assert str(copied) not in outcome.config
    _, weights = load_row(outcome.checkpoint)
    assert not [name for name in weights if "distillation" in name]
    copied.unlink()
    scored = classification.test(outcome.checkpoint, job(name="t", backbone="", recipe="", cfg_options={}))
    assert scored.metrics == outcome.metrics
    assert scored.details["options_left_out"] == ["distillation.teacher"]  # a file is never told which file to read


def test_teacher_does_not_change_how_a_student_begins(teacher, job):
    options = {"train_cfg.max_epochs": 1}
    alone = classification.train(job(backbone=STUDENT, cfg_options=options))
    taught = classification.train(
        job(name="b", backbone=STUDENT, cfg_options={**options, "distillation.teacher": str(teacher)})
    )
    assert alone.untrained == taught.untrained
    assert alone.details["loss_curve"] != taught.details["loss_curve"]


def test_weights_of_torchvisions_names_make_a_teacher(teacher, tmp_path):
    weights = read_foreign_checkpoint(teacher)[1]
    names = {k: k.replace("backbone.", "").replace("classifier.", "fc.") for k in weights}
    torch.save({names[k]: v for k, v in weights.items()}, tmp_path / "weights.pth")
    images = torch.randn(2, 3, 32, 32)
    found = Distillation(10, str(tmp_path / "weights.pth"), backbone="resnet18_w8")
    expected = Distillation(10, str(teacher))
    torch.testing.assert_close(found._network(images), expected._network(images))
    with pytest.raises(InputError, match="does not say its backbone"):
        Distillation(10, str(tmp_path / "weights.pth"))
    with pytest.raises(InputError, match="do not fit this network"):
        Distillation(10, str(tmp_path / "weights.pth"), backbone="resnet18_w16")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(teacher="{none}"), "teacher: expected a checkpoint, found no file"),
        (dict(teacher="{text}"), "is not a checkpoint that can be read"),
        (dict(teacher="resnet34"), r"expected its weights as distillation.checkpoint=FILE"),
        (dict(teacher="resnet34", checkpoint="{own}"), "is a checkpoint of resnet18_w8, not of resnet34"),
        (dict(teacher="{own}", loss="ce"), r"distillation.loss 'ce': expected one of kl, mse"),
        (dict(teacher="{own}", temperature=0), r"distillation.temperature 0"),
        (dict(teacher="{own}", weight=0), r"distillation.weight 0"),
        (dict(teacher="{own}", factor=2), r"expected a dict with checkpoint, loss"),
        (dict(loss="kl"), r"distillation.teacher: expected a checkpoint or"),
    ],
)
def test_teacher_that_cannot_be_is_refused_before_anything_is_written(teacher, job, tmp_path, change, message):
    (tmp_path / "text.pth").write_text("weights")
    files = {"{own}": teacher, "{none}": tmp_path / "none.pth", "{text}": tmp_path / "text.pth"}
    options = {f"distillation.{k}": str(files.get(v, v)) if isinstance(v, str) else v for k, v in change.items()}
    asked = job(backbone=STUDENT, cfg_options=options)
    with pytest.raises(InputError, match=message):
        classification.train(asked)
    assert not asked.work_dir.exists()


def test_weights_of_other_classes_are_refused(teacher, job, tmp_path):
    torch.save(read_foreign_checkpoint(teacher)[1], tmp_path / "weights.pth")
    options = dict(teacher="resnet18_w8", checkpoint=str(tmp_path / "weights.pth"))
    options = {f"distillation.{key}": value for key, value in options.items()}
    asked = job("cifar10-jpeg", recipe="small", cfg_options=options)
    with pytest.raises(InputError, match=r"weights.pth knows 10 classes, the student 3"):
        classification.train(asked)
    assert not asked.work_dir.exists()


def test_teacher_of_another_dataset_with_as_many_classes_is_refused(teacher, job):
    asked = job("mini-imagenet", cfg_options={"distillation.teacher": str(teacher)})
    message = "epoch_1.pth knows the classes of mini-cifar10, not those of mini-imagenet"
    with pytest.raises(InputError, match=message):
        classification.train(asked)
    assert not asked.work_dir.exists()


def test_record_says_the_teacher_of_every_stage_where_they_differ(teacher, job):
    first = dict(epochs=1, binarize="activations", distillation=dict(teacher=str(teacher)))
    asked = job(backbone=STUDENT)
    asked = replace(asked, cfg_options={"stages": [first, dict(epochs=1)]})
    details = classification.train(asked).details
    assert "teacher" not in details
    (taught, alone) = details["teachers"]
    assert (taught["backbone"], alone) == ("resnet18_w8", None)


def test_another_file_than_the_one_named_is_refused(teacher):
    with pytest.raises(InputError, match="expected SHA-256 0000, found"):
        Distillation(10, str(teacher), sha256="0000")


def test_teacher_is_in_evaluation_mode_in_every_training_step(teacher, config):
    student = classification.MODELS.build(config(backbone="resnet18_w8").model).train()
    student.distillation = Distillation(10, str(teacher))
    modes = []
    for module in student.distillation._network.modules():
        module.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    images, labels = torch.randn(4, 3, 32, 32), torch.randint(0, 10, (4,))
    sum(student(images, labels, mode="loss").values()).backward()
    assert student.training
    assert modes
    assert not any(modes)
