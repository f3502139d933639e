"""Every task fulfils the interface by which the leaderboards know it."""

import inspect
from pathlib import Path

import pytest

from onebit.commons import mini
from onebit.commons.datasets import DATASETS
from onebit.commons.errors import InputError
from onebit.commons.file_options import Schema, StatedOptions
from onebit.commons.task import TASKS, Job, Task, common_options, require_offered
from onebit.leaderboards import cli
from onebit.leaderboards.boards import runner

FUNCTIONS = {name: value for name, value in vars(Task).items() if inspect.isfunction(value) and name[0] != "_"}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_task_can_be_called_as_declared(task, name):
    declared = list(inspect.signature(FUNCTIONS[name]).parameters.values())[1:]  # without self
    positional = [p.name for p in declared if p.kind is p.POSITIONAL_ONLY]
    named = {p.name: p.default for p in declared if p.kind is not p.POSITIONAL_ONLY}
    offered = inspect.signature(getattr(runner(task), name))
    offered.bind(*positional, **named)
    offered.bind(*positional, **{k: v for k, v in named.items() if v is inspect.Parameter.empty})
    offered.bind(*(p.name for p in declared if p.default is p.empty))  # by position, in the declared order
    for key, default in named.items():
        if key in offered.parameters and default is not inspect.Parameter.empty:
            assert offered.parameters[key].default == default


@pytest.mark.parametrize("task", TASKS)
def test_a_task_states_what_is_data(task):
    module = runner(task)
    assert isinstance(module.FILE_OPTIONS, Schema)
    dataset, options = module.TRIAL
    assert DATASETS[dataset].task == task
    assert options


@pytest.mark.parametrize("task", TASKS)
def test_what_a_task_lacks_is_said_by_the_interface(task):
    module = runner(task)
    assert module.LACKS.keys() <= {*FUNCTIONS, "show_score", "import_options", "detector"}
    for name, sentence in module.LACKS.items():
        with pytest.raises(InputError) as error:
            require_offered(module, name)
        assert str(error.value) == sentence
        if name in FUNCTIONS:
            with pytest.raises(InputError) as error:
                getattr(module, name)(Path("x"), None)
            assert str(error.value) == sentence
    for name in {*FUNCTIONS} - module.LACKS.keys():
        require_offered(module, name)


def _job(tmp_path, task, options):
    dataset = runner(task).TRIAL[0]
    list(mini.write(tmp_path, [dataset]))
    return Job(dataset, "resnet18_w8", "mini", 0, tmp_path, tmp_path / "work", cfg_options=options)


@pytest.mark.parametrize("task", TASKS)
def test_the_options_of_every_task_reach_its_config(task, tmp_path):
    options = common_options(runner(task), {}, epochs=3, batch=6, lr=0.0625, size=48)
    job = _job(tmp_path, task, options)
    folder = DATASETS[job.dataset].find(tmp_path)
    text, epochs = runner(task).config_of(job, folder)
    assert epochs == 3
    for expected in ("0.0625", "48"):
        assert expected in text
    assert "batch_size=6" in text or "batch_size_train=6" in text
    assert common_options(runner(task), {"a": 1}) == {"a": 1}
    taken = StatedOptions(options, "a file").taken(runner(task).FILE_OPTIONS)  # as a record states them
    assert {*taken, *taken.left_out} == {*options}
    assert {*runner(task).size_options(48, 48)} <= {*taken}


def test_a_size_is_the_size_that_is_trained_and_scored(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ONEBIT_DATA", raising=False)
    list(mini.write(tmp_path / "data", ["mini-cifar10"]))
    few = ["train_dataloader.num_batch_per_epoch=2", "test_dataloader.num_batch_per_epoch=1"]
    command = ["train", "classification", "--dataset", "mini-cifar10", "--backbone", "resnet18_w8", "--work-dir", "w"]
    asked = ["--epochs", "1", "--batch", "16", "--lr", "0.001", "--size", "24"]
    assert cli.main([*command, *asked, "--cfg-options", *few]) == 0, capsys.readouterr().err
    assert "24x24 pixels" in capsys.readouterr().out
    command = ["test", "classification", "--checkpoint", "w/epoch_1.pth", "--dataset", "mini-cifar10"]
    assert cli.main([*command, "--cfg-options", few[1]]) == 0, capsys.readouterr().err
    assert "24x24 pixels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--size", "24", "32"], "square"),
        (["--size", "24", "32", "3"], "size takes height and width"),
        (["--epochs", "2", "--cfg-options", "train_cfg.max_epochs=3"], "leave out one"),
    ],
)
def test_options_that_contradict(tmp_path, capsys, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ONEBIT_DATA", raising=False)
    list(mini.write(tmp_path / "data", ["mini-cifar10"]))
    assert cli.main(["train", "classification", "--dataset", "mini-cifar10", "--backbone", "resnet18_w8", *more]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "work_dirs").exists()


def test_a_detector_is_an_option_of_detection_alone():
    detection = runner("detection")
    assert common_options(detection, {"a": 1}, detector="fcos") == {"detector": "fcos", "a": 1}
    assert common_options(detection, {}, detector="faster_rcnn") == {}  # the rows that there were before
    with pytest.raises(InputError, match="leave out one"):
        common_options(detection, {"detector": "fcos"}, detector="faster_rcnn")
    for task in ("reid", "classification"):
        with pytest.raises(InputError, match=f"--detector is for detection, not for {task}"):
            common_options(runner(task), {}, detector="fcos")


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"epochs": True},
        {"batch": 1.5},
        {"lr": -1},
        {"size": ()},
        {"size": 0.5},
        {"size": (8, 8, 8)},
        {"size": 0},
    ],
)
def test_values_out_of_range(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        common_options(runner("reid"), {}, **wrong)
