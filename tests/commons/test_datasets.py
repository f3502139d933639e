from dataclasses import replace
from pathlib import Path

import pytest

from onebit.commons.datasets import DATASETS, FOLDER, default_data_root, get_dataset
from onebit.commons.errors import InputError


def make(root, dataset, folder):
    for relative in dataset.required:
        (root / folder / relative).mkdir(parents=True)


def below_the_root(name):
    """A dataset without the folders of the system, which a test can neither fill nor empty."""
    dataset = DATASETS[name]
    return replace(dataset, folders=tuple(f for f in dataset.folders if not Path(f).is_absolute()))


def test_every_board_has_its_dataset_and_a_mini_of_the_same_layout():
    boards = {dataset.board for dataset in DATASETS.values()}
    assert len(boards) == 11
    for board in boards - {"msmt17", "cifar100"}:  # those without a mini
        real, mini = DATASETS[board], DATASETS[f"mini-{board}"]
        assert (real.kind, mini.kind) == ("real", "drawn")
        assert (real.board, mini.board) == (board, board)
        assert real.required == mini.required
        assert real.task == mini.task


@pytest.mark.parametrize("name", DATASETS)
def test_finds_a_dataset_in_each_of_its_folders(tmp_path, name):
    dataset = below_the_root(name)
    for i, folder in enumerate(dataset.folders):
        make(tmp_path / str(i), dataset, folder)
        assert dataset.find(str(tmp_path / str(i))) == tmp_path / str(i) / folder


@pytest.mark.parametrize("name", DATASETS)
def test_missing_dataset_names_the_path_and_how_to_get_it(tmp_path, name):
    dataset = below_the_root(name)
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


def test_a_folder_below_the_data_root_is_a_dataset(tmp_path):
    dataset = get_dataset("folder-my-pets", "classification")
    assert (dataset.name, dataset.board, dataset.kind) == ("folder-my-pets", FOLDER, "real")
    with pytest.raises(InputError, match=f"expected {tmp_path}/my-pets/train. It needs train/ and"):
        dataset.find(tmp_path)
    for part, there in (("train", "neither"), ("val", None), ("test", "val/ and test/")):
        image = tmp_path / "my-pets" / part / "cat" / "1.png"
        image.parent.mkdir(parents=True)
        image.write_bytes(part.encode())
        if there is None:
            assert dataset.find(tmp_path) == tmp_path / "my-pets"
            before = dataset.checksum(tmp_path)
            image.write_bytes(b"other")
            assert dataset.checksum(tmp_path) != before
        else:
            with pytest.raises(InputError, match=f"expected val/ or test/ in .*, found {there}"):
                dataset.find(tmp_path)


@pytest.mark.parametrize("name", ["folder-", "folder-../x", "folder-a/b", "folder-a--b", "folder-.a"])
def test_folder_names_that_are_no_names_are_refused(name):
    with pytest.raises(InputError, match="expected folder-NAME with a folder NAME below the data"):
        get_dataset(name)


def test_a_folder_is_no_dataset_of_another_task():
    with pytest.raises(InputError, match="unknown dataset 'folder-pets'"):
        get_dataset("folder-pets", "reid")
