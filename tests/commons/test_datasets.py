from pathlib import Path

import pytest

from commons.datasets import BOARDS, DATASETS, default_data_root, get_dataset
from commons.errors import InputError


def make(root, dataset, folder):
    for relative in dataset.required:
        (root / folder / relative).mkdir(parents=True)


def test_every_board_has_its_dataset_and_a_mini_of_the_same_layout():
    assert len(BOARDS) == 9
    for board in set(BOARDS) - {"msmt17"}:  # the only one without a mini
        real, mini = DATASETS[board], DATASETS[f"mini-{board}"]
        assert (real.mini, mini.mini) == (False, True)
        assert (real.board, mini.board) == (board, board)
        assert real.required == mini.required
        assert real.task == mini.task


@pytest.mark.parametrize("name", DATASETS)
def test_finds_a_dataset_in_each_of_its_folders(tmp_path, name):
    dataset = DATASETS[name]
    for i, folder in enumerate(dataset.folders):
        make(tmp_path / str(i), dataset, folder)
        assert dataset.find(str(tmp_path / str(i))) == tmp_path / str(i) / folder


@pytest.mark.parametrize("name", DATASETS)
def test_missing_dataset_names_the_path_and_how_to_get_it(tmp_path, name):
    dataset = DATASETS[name]
    with pytest.raises(InputError) as caught:
        dataset.find(tmp_path)
    for folder in dataset.folders:
        assert str(tmp_path / folder / dataset.required[0]) in str(caught.value)
    assert dataset.how_to_get in str(caught.value)


def test_incomplete_dataset_names_what_lacks(tmp_path):
    dataset = DATASETS["mini-cifar10"]
    make(tmp_path, dataset, "mini-cifar10")
    lacking = tmp_path / "mini-cifar10" / "cifar-10-batches-py" / "data_batch_3"
    lacking.rmdir()
    with pytest.raises(InputError, match=f"incomplete: expected {lacking}"):
        dataset.find(tmp_path)


def test_unknown_name_gets_near_matches():
    with pytest.raises(InputError, match="'mini-cifar'; did you mean mini-cifar10"):
        get_dataset("mini-cifar")


def test_unknown_name_without_a_near_match_gets_the_names_of_the_task():
    with pytest.raises(InputError) as caught:
        get_dataset("zzz", task="reid")
    assert "market1501" in str(caught.value)
    assert "cifar10" not in str(caught.value)


def test_dataset_of_another_task_is_said_to_be_so():
    with pytest.raises(InputError, match="dataset voc is for detection, not for reid"):
        get_dataset("voc", task="reid")


def test_data_root_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("ONEBIT_DATA", "/somewhere")
    assert default_data_root() == Path("/somewhere")
    monkeypatch.setenv("ONEBIT_DATA", "")
    assert default_data_root() == Path("data")
