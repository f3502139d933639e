import errno
import os

import pytest

from onebit.commons import files
from onebit.commons.errors import WorkError
from onebit.commons.files import dataset_checksum, sha256_file, write_atomic


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


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("ONEBIT_CACHE", str(path))
    return path


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


@pytest.fixture
def settled(folder):
    """The same files, old enough to be remembered."""
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))
    return folder


@pytest.fixture
def files_read(monkeypatch):
    read = []

    def spy(path):
        read.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(files, "sha256_file", spy)
    return read


def test_files_that_did_not_change_are_not_read_again(settled, files_read):
    first = checksum(settled)
    assert files_read == ["1", "2", "b"]
    assert checksum(settled) == first
    assert len(files_read) == 3
    assert dataset_checksum([settled / "a", settled / "b"], settled, cached=False) == first
    assert len(files_read) == 6


@pytest.mark.parametrize("change", ["size", "time", "name"])
def test_a_changed_file_is_read_again(settled, files_read, change):
    first = checksum(settled)
    path = settled / "a" / "1"
    if change == "name":
        path.rename(settled / "a" / "3")
    else:
        path.write_text("A/1" if change == "time" else "longer")
        if change == "size":
            os.utime(path, (1e9, 1e9))
    assert checksum(settled) != first
    assert len(files_read) == 6


def test_what_only_reading_can_find_is_found_without_the_memory(settled):
    first = checksum(settled)
    (settled / "b").write_text("B")
    os.utime(settled / "b", (1e9, 1e9))
    assert checksum(settled) == first
    assert dataset_checksum([settled / "a", settled / "b"], settled, cached=False) != first


def test_files_that_changed_just_now_are_not_remembered(folder, cache):
    checksum(folder)
    assert list(cache.iterdir()) == []


def test_parts_of_one_folder_are_remembered_apart(settled, files_read):
    whole, part = checksum(settled), dataset_checksum([settled / "b"], settled)
    assert whole != part
    assert (checksum(settled), dataset_checksum([settled / "b"], settled)) == (whole, part)
    assert len(files_read) == 4


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"state": 1}', "\x00"])
def test_a_broken_memory_is_ignored(settled, cache, content):
    first = checksum(settled)
    (memory,) = cache.iterdir()
    memory.write_text(content)
    assert checksum(settled) == first


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(settled, cache, monkeypatch):
    (cache / "file").write_text("")
    monkeypatch.setenv("ONEBIT_CACHE", str(cache / "file" / "below"))
    assert checksum(settled) == checksum(settled)


def test_the_cache_lies_where_the_user_keeps_caches(monkeypatch):
    monkeypatch.delenv("ONEBIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert str(files.cache_folder()) == "/x/onebit/checksums"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert str(files.cache_folder()) == "/home/me/.cache/onebit/checksums"


def test_remove_stale_takes_only_what_write_atomic_left(tmp_path):
    stale = [tmp_path / f".a.json.x1{files.TEMPORARY_SUFFIX}", tmp_path / "in" / f".b.y2{files.TEMPORARY_SUFFIX}"]
    kept = [tmp_path / "a.json", tmp_path / ".hidden", tmp_path / f"visible{files.TEMPORARY_SUFFIX}"]
    for path in stale + kept:
        write_atomic(path, "x")
    assert files.remove_stale(tmp_path, "c.json") == []
    assert files.remove_stale(tmp_path, "a.json") == stale[:1]
    assert files.remove_stale(tmp_path, deep=True) == stale[1:]
    assert all(path.exists() for path in kept)


def test_a_killed_write_leaves_what_remove_stale_finds(tmp_path):
    child = os.fork()
    if not child:
        files.os.replace = lambda *_: os.kill(os.getpid(), 9)
        write_atomic(tmp_path / "a.json", "x")
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    assert files.remove_stale(tmp_path, "a.json") == [left]
