"""Atomic writes and checksums."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import json
import os
import stat
import tempfile
import time
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

from onebit.commons.errors import InputError, WorkError

#: How the hidden files end that :func:`write_atomic` writes before it renames them.
TEMPORARY_SUFFIX = ".onebit-tmp"
#: Above this many bytes a dataset is identified by its listing (paths and sizes), not its content.
CONTENT_CHECKSUM_LIMIT = 2**30
#: A file that changed this recently may change again without a new time stamp: not remembered.
_SETTLED_NS = 2 * 10**9


def write_atomic(path: str | os.PathLike, content: bytes | str) -> Path:
    """Write ``content`` to ``path`` so that a reader sees the old file or the whole new one.

    Raises:
        WorkError: the disk is full or the folder cannot be written; no partial file is left.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            raise WorkError(disk_error_message(error, path)) from error
        raise
    return path


def remove_stale(folder: str | os.PathLike, name: str = "*", deep: bool = False) -> list[Path]:
    """Remove what killed calls of :func:`write_atomic` left in ``folder``.

    Only for a caller who knows that nobody is writing there now.

    Args:
        name: pattern of the names that were being written.
        deep: look in the folders below, too.

    Returns:
        what was removed.
    """
    pattern = f".{name}.*{TEMPORARY_SUFFIX}"
    found = Path(folder).rglob(pattern) if deep else Path(folder).glob(pattern)
    removed = []
    for path in sorted(found):
        with contextlib.suppress(OSError):
            path.unlink()
            removed.append(path)
    return removed


def disk_error_message(error: OSError, path: str | os.PathLike) -> str:
    """One line for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: could not write {path}; free some space and run the same command again"
    return f"could not write {path}: {error.strerror or error}"


def unpacked(path: Path, limit: int, chunk: int = 1 << 20) -> Iterator[bytes]:
    """The content of a file in chunks, decompressed where its name ends in ``.gz``.

    Args:
        limit: bytes that the content may have at most; nothing larger than ``chunk`` is ever held.

    Raises:
        InputError: it is missing, no whole gzip file, or its content is longer than ``limit``.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
            while part := stream.read(min(chunk, limit + 1)):
                limit -= len(part)
                if limit < 0:
                    raise InputError(f"{path} holds more than was expected of it")
                yield part
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def read_small(path: str | os.PathLike, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes.

    Raises:
        InputError: no regular file (a device has no end, a pipe waits), or a larger one.
        OSError: it cannot be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise InputError(f"expected a file, found something else at {path}")
    with open(path, "rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise InputError(f"{path} has more than the {limit} bytes that are read of such a file")
    return content


def require_archive(path: str | os.PathLike, limit: int) -> None:
    """Refuse an archive (.npz) whose parts have more than ``limit`` bytes when they are unpacked.

    Raises:
        InputError: so it is.
        OSError, zipfile.BadZipFile: no archive.
    """
    with zipfile.ZipFile(path) as archive:
        total = sum(part.file_size for part in archive.infolist())
    if total > limit:
        raise InputError(f"{path} unpacks to {total} bytes, more than the {limit} that are read of such a file")


def sha256_file(path: str | os.PathLike) -> str:
    """Hex SHA-256 of a file's content."""
    with open(path, "rb") as stream:
        return (
            hashlib.file_digest(stream, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _sha256_stream(stream)
        )


def _sha256_stream(stream) -> str:  # Python 3.10 has no hashlib.file_digest
    digest = hashlib.sha256()
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def dataset_checksum(paths: Collection[Path], root: Path, cached: bool = True) -> str:
    """Identify a dataset by the files below ``paths``, named relative to ``root``.

    The checksum of contents is remembered in the user's cache folder (:func:`cache_folder`) under
    the names, sizes and modification times of all files; when one differs, all are read again.
    Where the cache cannot be written, everything works, slower.

    Args:
        paths: files and folders. A file ``NAME.gz`` among them counts as the file ``NAME`` that it holds:
            packers differ, their content does not.
        cached: False reads every file, whatever is remembered.

    Returns:
        ``content:<sha256>`` over names and contents, or ``listing:<sha256>`` over names and
        sizes when the files exceed ``CONTENT_CHECKSUM_LIMIT`` bytes: the prefix says which.
    """
    files: list[Path] = []
    packed = {path for path in paths if path.suffix == ".gz" and path.is_file()}
    for path in paths:
        files += [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    files = sorted(set(files))
    stats = [p.stat() for p in files]
    names = [p.relative_to(root).as_posix() for p in files]
    if sum(s.st_size for s in stats) > CONTENT_CHECKSUM_LIMIT:
        return f"listing:{_digest(names, [s.st_size for s in stats])}"
    state = _digest(names, [f"{s.st_size} {s.st_mtime_ns}" for s in stats])
    place = _digest([str(root.resolve())], [names])
    memory = cache_folder() / f"{place}.json"
    if cached and (known := _remembered(memory, state)):
        return known
    contents = [_sha256_unpacked(p) if p in packed else sha256_file(p) for p in files]
    plain = [n.removesuffix(".gz") if p in packed else n for n, p in zip(names, files, strict=True)]
    checksum = f"content:{_digest(plain, contents)}"
    newest = max((s.st_mtime_ns for s in stats), default=0)
    if newest < time.time_ns() - _SETTLED_NS:
        with contextlib.suppress(WorkError):  # a read-only home costs time, nothing else
            write_atomic(memory, json.dumps({"state": state, "checksum": checksum}))
    return checksum


def _sha256_unpacked(path: Path) -> str:
    digest = hashlib.sha256()
    for part in unpacked(path, CONTENT_CHECKSUM_LIMIT):
        digest.update(part)
    return digest.hexdigest()


def cache_folder() -> Path:
    """``$ONEBIT_CACHE``, else ``onebit/checksums`` below ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if own := os.environ.get("ONEBIT_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "onebit" / "checksums"


def _remembered(memory: Path, state: str) -> str | None:
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(known, dict) or known.get("state") != state:
        return None
    checksum = known.get("checksum")
    return checksum if isinstance(checksum, str) else None


def _digest(names: list[str], marks: list) -> str:
    digest = hashlib.sha256()
    for name, mark in zip(names, marks, strict=True):
        digest.update(f"{name}\0{mark}\n".encode())
    return digest.hexdigest()
