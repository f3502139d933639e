"""IDX files: read as torchvision reads them, and refused in one line when they are not what they say."""

import gzip
import hashlib
import resource
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from onebit.classification import idx
from onebit.classification.config import build_config
from onebit.classification.datasets import InMemoryImages, read_images
from onebit.commons.datasets import DATASETS, get_dataset
from onebit.commons.errors import InputError
from onebit.commons.mini import classification, draw

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    (root / "mini-fashion-mnist").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classification, "FASHION_TRAIN", 40)
        patch.setattr(classification, "FASHION_TEST", 20)
        draw("mini-fashion-mnist", root / "mini-fashion-mnist")
    return root


@pytest.fixture
def folder(drawn, tmp_path):
    """The files of a mini-fashion-mnist that may be damaged."""
    for path in (drawn / "mini-fashion-mnist").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def unpack(folder: Path, target: Path) -> Path:
    """torchvision's layout of the same files."""
    target.mkdir(parents=True)
    for path in folder.glob("*.gz"):
        (target / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    return target


@pytest.mark.parametrize("split", ["train", "test"])
def test_plain_and_packed_files_are_what_torchvision_reads(folder, tmp_path, split):
    from torchvision.datasets import FashionMNIST

    raw = unpack(folder, tmp_path / "FashionMNIST" / "raw")
    theirs = FashionMNIST(str(tmp_path), train=split == "train")
    for there in (folder, raw):
        images, labels = idx.read_idx(there, split)
        assert torch.equal(images.squeeze(1), theirs.data)
        assert torch.equal(labels, theirs.targets)
        assert images.dtype == torch.uint8


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_package_of_debian_is_the_published_data(tmp_path):
    dataset = get_dataset("fashion-mnist")
    found = dataset.find(tmp_path)
    assert found == DEBIAN
    images, labels = read_images(found, "train", "fashion-mnist")
    assert images.shape == (60000, 1, 28, 28)
    assert labels.bincount().tolist() == [6000] * 10
    mean, deviation = dataset.statistics
    assert (images.float().mean() - mean[0]).abs() < 0.01
    assert (images.float().std() - deviation[0]).abs() < 0.01
    assert len(read_images(found, "test", "fashion-mnist")[1]) == 10000
    # torchvision's layout below the data root comes first, and is the same data.
    unpack(DEBIAN, tmp_path / "FashionMNIST" / "raw")
    assert dataset.find(tmp_path) == tmp_path / "FashionMNIST" / "raw"
    assert dataset.checksum(tmp_path) == dataset.checksum_of(DEBIAN) == dataset.known_checksum


def test_other_content_than_the_published_is_refused(folder):
    with pytest.raises(InputError, match=f"{IMAGES} is not the published file: expected content with MD5 f4a8712d"):
        idx.read_fashion_mnist(folder, "train")


def test_what_is_published_is_read(folder, monkeypatch):
    known = {p.stem: hashlib.md5(gzip.decompress(p.read_bytes())).hexdigest() for p in folder.glob("*.gz")}
    monkeypatch.setattr(idx, "FASHION_MNIST_MD5", known)
    assert len(idx.read_fashion_mnist(folder, "test")[1]) == 20


def header(*sizes, kind=8):
    return struct.pack(f">{1 + len(sizes)}I", kind * 256 + len(sizes), *sizes)


BAD = {
    "empty": (b"", "is no IDX file of bytes: it begins with nothing"),
    "text": (b"<html>not found</html>", "is no IDX file of bytes: it begins with 3c 68 74 6d"),
    "floats": (header(1, 2, 2, kind=13) + bytes(16), "is no IDX file of bytes: it begins with 00 00 0d 03"),
    "header cut off": (header(40, 28, 28)[:9], "is no IDX file of bytes"),
    "truncated": (header(40, 28, 28) + bytes(28 * 28 * 39), "announces 31,376 bytes, it holds 30,592"),
    "longer": (header(40, 28, 28) + bytes(28 * 28 * 41), "announces 31,376 bytes, it holds more"),
    "a lie": (header(2**32 - 1, 2**32 - 1, 2**32 - 1), "bytes, more than any dataset of this kind has"),
    "a small lie": (header(60000, 28, 28) + bytes(100), "announces 47,040,016 bytes, it holds 116"),
    "other axes": (header(40) + bytes(40), r"expected train images \[N, H, W\] and N labels, found \[40\] and \[40\]"),
    "other number": (header(3, 28, 28) + bytes(3 * 784), r"found \[3, 28, 28\] and \[40\]"),
}


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "plain"])
@pytest.mark.parametrize("case", BAD)
def test_a_file_that_lies_is_named_and_nothing_is_allocated(folder, case, packed):
    content, message = BAD[case]
    (folder / IMAGES).unlink()
    name = IMAGES if packed else IMAGES.removesuffix(".gz")
    (folder / name).write_bytes(gzip.compress(content) if packed else content)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=message):
            idx.read_idx(folder, "train")
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b[:50] + b"\xff" * 8 + b[58:], lambda b: b"no gzip"])
def test_a_damaged_archive_is_named(folder, damage):
    path = folder / IMAGES
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=f"cannot read {path}: "):
        idx.read_idx(folder, "train")


def test_a_gzip_bomb_is_left_where_it_exceeds_its_header(folder):
    part = gzip.compress(bytes(2**26), mtime=0)  # members follow each other: 4 GiB in 4 MB
    (folder / IMAGES).write_bytes(gzip.compress(header(40, 28, 28)) + part * 64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"announces 31,376 bytes, it holds more"):
        idx.read_idx(folder, "train")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"


def test_a_bomb_among_the_labels_does_not_hold_up_the_checksum(drawn, tmp_path, monkeypatch):
    from onebit.commons import files

    target = tmp_path / "mini-fashion-mnist"
    target.mkdir()
    for path in (drawn / "mini-fashion-mnist").iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    dataset = get_dataset("mini-fashion-mnist")
    assert dataset.checksum(tmp_path) == dataset.checksum(drawn)
    monkeypatch.setattr(files, "CONTENT_CHECKSUM_LIMIT", 10**6)
    (target / LABELS).write_bytes(gzip.compress(bytes(10**7)))
    with pytest.raises(InputError, match=r"labels-idx1-ubyte.gz holds more than was expected of it"):
        dataset.checksum(tmp_path)


def test_labels_out_of_range_are_refused(folder):
    classification.write_idx(folder / LABELS, np.full(40, 10, np.uint8))
    with pytest.raises(InputError, match="expected train labels from 0 to 9, found 10 to 10"):
        read_images(folder, "train", "mini-fashion-mnist")


def test_images_of_another_size_are_refused(folder):
    classification.write_idx(folder / IMAGES, np.zeros((40, 32, 32), np.uint8))
    with pytest.raises(InputError, match=r"as uint8 \[N, 1, 28, 28\] .* gave torch.uint8 \[40, 1, 32, 32\]"):
        read_images(folder, "train", "mini-fashion-mnist")


def test_a_missing_file_is_named_with_how_to_get_it(folder):
    (folder / LABELS).unlink()
    with pytest.raises(InputError, match=r"train-labels-idx1-ubyte: .*No such file"):
        idx.read_idx(folder, "train")
    with pytest.raises(InputError, match="mini-fashion-mnist not found"):
        DATASETS["mini-fashion-mnist"].find(folder)


def test_gray_is_held_once_and_handed_out_three_times(drawn, job):
    dataset = get_dataset("mini-fashion-mnist")
    cfg = build_config(job(dataset.name, data_root=drawn), dataset, dataset.find(drawn))
    assert (cfg.input_size, cfg.model.num_classes, cfg.model.backbone.stem) == (28, 10, "cifar")
    source = dict(cfg.train_dataloader.dataset)
    assert source.pop("type") == "InMemoryImages"
    images = InMemoryImages(**source)
    assert images.images.shape == (40, 1, 28, 28)
    batch = images.__getitems__([0, 7])["inputs"]
    assert torch.equal(batch, images.images[[0, 7]].repeat(1, 3, 1, 1))
    half = InMemoryImages(**{**source, "resize": 14})
    assert half.images.shape == (40, 1, 14, 14)


def test_a_row_says_that_its_images_are_gray(drawn, job):
    from onebit.classification import runner

    options = {"train_cfg.max_epochs": 1}
    outcome = runner.train(job("mini-fashion-mnist", data_root=drawn, cfg_options=options))
    assert outcome.protocol == ("top-1 and top-5 accuracy, one view of 28x28 pixels, gray as three equal channels")
    assert (outcome.split, outcome.num_classes) == ("train -> test", 10)
