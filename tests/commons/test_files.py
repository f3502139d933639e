import errno
import os

import pytest

from commons import files
from commons.errors import WorkError
from commons.files import dataset_checksum, sha256_file, write_atomic


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_write_atomic_writes_bytes_and_text_into_new_folders(tmp_path):
    assert write_atomic(tmp_path / "a" / "b", b"\x00\xff").read_bytes() == b"\x00\xff"
    assert write_atomic(tmp_path / "a" / "c", "ä").read_bytes() == "ä".encode()


def test_write_atomic_makes_files_as_readable_as_open_does(tmp_path):
    (tmp_path / "plain").write_text("x")
    write_atomic(tmp_path / "atomic", "x")
    modes = [(tmp_path / name).stat().st_mode for name in ("plain", "atomic")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("step", ["fsync", "replace", "fdopen"])
def test_full_disk_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch, step):
    target = write_atomic(tmp_path / "record.json", "old")
    monkeypatch.setattr(files.os, step, full_disk)
    with pytest.raises(WorkError, match=r"the disk is full: could not write .*record.json"):
        write_atomic(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["record.json"]


def test_interrupt_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    target = write_atomic(tmp_path / "record.json", "old")
    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["record.json"]


def test_file_in_place_of_the_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorkError, match=r"could not write .*: (Not a directory|File exists)"):
        write_atomic(tmp_path / "file" / "a", "x")


def test_sha256_of_a_file_with_and_without_file_digest(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "abc", "abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(path) == known
    monkeypatch.delattr(files.hashlib, "file_digest", raising=False)
    assert sha256_file(path) == known


@pytest.fixture
def folder(tmp_path):
    for name in ("a/1", "a/2", "b"):
        write_atomic(tmp_path / name, name)
    return tmp_path


def checksum(folder):
    return dataset_checksum([folder / "a", folder / "b"], folder)


def test_checksum_of_content_does_not_depend_on_the_place(folder, tmp_path_factory):
    first = checksum(folder)
    assert first.startswith("content:")
    moved = tmp_path_factory.mktemp("other") / "data"
    folder.rename(moved)
    assert checksum(moved) == first


def test_checksum_follows_content_names_and_number(folder):
    seen = {checksum(folder)}
    write_atomic(folder / "a" / "1", "A/1")
    seen.add(checksum(folder))
    (folder / "a" / "1").rename(folder / "a" / "3")
    seen.add(checksum(folder))
    (folder / "a" / "3").unlink()
    seen.add(checksum(folder))
    assert len(seen) == 4


def test_checksum_of_much_data_is_of_the_listing(folder, monkeypatch):
    monkeypatch.setattr(files, "CONTENT_CHECKSUM_LIMIT", 5)
    first = checksum(folder)
    assert first.startswith("listing:")
    write_atomic(folder / "b", "B")
    assert checksum(folder) == first
    write_atomic(folder / "b", "longer")
    assert checksum(folder) != first
