"""Every task fulfils the interface by which the leaderboards know it."""

import inspect
from pathlib import Path

import pytest

from onebit.commons.datasets import DATASETS
from onebit.commons.errors import InputError
from onebit.commons.file_options import Schema
from onebit.commons.task import TASKS, Task, require_offered
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
    assert module.LACKS.keys() <= {*FUNCTIONS, "show_score"}
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
