"""`mini.write` itself, on two datasets cut down to a few images."""

import errno
import hashlib
import json
import os

import pytest

from onebit.commons import mini
from onebit.commons.datasets import DATASETS
from onebit.commons.errors import InputError, WorkError
from onebit.commons.mini import classification

NAMES = ["mini-cifar10", "mini-imagenet"]
#: Of the cut-down mini-cifar10 below. It must be the same on every machine.
CIFAR_SHA256 = "e94fcea7cbfde0bd6c6712f24f113eb39b8437728793eedc469bc5de4dd0defb"


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    for name, value in (("CIFAR_TRAIN", 50), ("CIFAR_TEST", 10), ("IMAGENET_TRAIN", 2), ("IMAGENET_VAL", 1)):
        monkeypatch.setattr(classification, name, value)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_two_writes_are_the_same_byte_for_byte(tmp_path):
    for part in ("a", "b"):
        assert list(mini.write(tmp_path / part, NAMES)) == [(name, True) for name in NAMES]
    first = contents(tmp_path / "a")
    assert len(first) == 7 + 30 + 2
    assert first == contents(tmp_path / "b")


def test_mini_cifar10_is_the_same_on_every_machine(tmp_path):
    list(mini.write(tmp_path, ["mini-cifar10"]))
    digest = hashlib.sha256()
    for name in sorted(DATASETS["mini-cifar10"].required):
        digest.update((tmp_path / "mini-cifar10" / name).read_bytes())
    assert digest.hexdigest() == CIFAR_SHA256


def test_written_datasets_are_found_and_match_their_manifest(tmp_path):
    list(mini.write(tmp_path, NAMES))
    for name in NAMES:
        folder = DATASETS[name].find(tmp_path)
        manifest = json.loads((folder / mini.MANIFEST).read_text())
        assert manifest["checksum"] == DATASETS[name].checksum(tmp_path)


def test_complete_dataset_is_kept(tmp_path):
    list(mini.write(tmp_path, NAMES))
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert list(mini.write(tmp_path, NAMES)) == [(name, False) for name in NAMES]
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("damage", ["changed", "missing", "outdated", "empty"])
def test_damaged_or_outdated_dataset_is_drawn_again(tmp_path, monkeypatch, damage):
    list(mini.write(tmp_path, ["mini-cifar10"]))
    good = contents(tmp_path)
    batch = tmp_path / "mini-cifar10" / "cifar-10-batches-py" / "data_batch_2"
    if damage == "changed":
        batch.write_bytes(batch.read_bytes()[:-9])
    elif damage == "missing":
        batch.unlink()
    elif damage == "outdated":
        manifest = tmp_path / "mini-cifar10" / mini.MANIFEST
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "generator": "old"}))
    else:
        for path in sorted(tmp_path.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (tmp_path / "mini-cifar10").mkdir()
    assert list(mini.write(tmp_path, ["mini-cifar10"])) == [("mini-cifar10", True)]
    assert contents(tmp_path) == good
    assert os.listdir(tmp_path) == ["mini-cifar10"]


def test_unknown_name_is_refused_before_anything_is_drawn(tmp_path):
    with pytest.raises(InputError, match="unknown mini dataset 'cifar10'; did you mean mini-cifar10"):
        mini.write(tmp_path, ["mini-cifar10", "cifar10"])
    assert not os.listdir(tmp_path)


def test_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "mini-cifar10").mkdir()
    (tmp_path / "mini-cifar10" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="was not drawn by this command"):
        list(mini.write(tmp_path, ["mini-cifar10"]))
    assert contents(tmp_path / "mini-cifar10")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [True, False])
def test_failure_in_the_middle_leaves_nothing_behind(tmp_path, monkeypatch, error, existing):
    root = tmp_path / "root"
    if existing:
        list(mini.write(root, ["mini-cifar10"]))
        (root / "mini-cifar10" / "cifar-10-batches-py" / "test_batch").write_bytes(b"damaged")
    before = contents(tmp_path)

    def broken(folder):
        (folder / "cifar-10-batches-py").mkdir()
        (folder / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"half")
        raise error

    monkeypatch.setattr(classification, "write_mini_cifar10", broken)
    expected = WorkError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="the disk is full" if expected is WorkError else None):
        list(mini.write(root, ["mini-cifar10"]))
    assert contents(tmp_path) == before
    assert os.listdir(root) == (["mini-cifar10"] if existing else [])


def test_images_of_a_class_differ_and_use_the_whole_range(tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    images = np.stack([classification.draw(label, rng, 32) for label in range(10) for _ in "ab"])
    assert images.shape == (20, 32, 32, 3)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 20
    assert images.min() < 20
    assert images.max() > 235
