"""Atomic writes and checksums."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from commons.errors import WorkError

#: How the hidden files end that :func:`write_atomic` writes before it renames them.
TEMPORARY_SUFFIX = ".onebit-tmp"
#: Above this many bytes a dataset is identified by its listing (paths and sizes), not its content.
CONTENT_CHECKSUM_LIMIT = 2**30


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
        descriptor, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX
        )
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


def dataset_checksum(paths: Iterable[Path], root: Path) -> str:
    """Identify a dataset by the files below ``paths``, named relative to ``root``.

    Returns ``content:<sha256>`` over names and contents, or ``listing:<sha256>`` over names and
    sizes when the files exceed ``CONTENT_CHECKSUM_LIMIT`` bytes: the prefix says which.
    """
    files: list[Path] = []
    for path in paths:
        files += [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    files = sorted(set(files))
    sizes = [p.stat().st_size for p in files]
    by_content = sum(sizes) <= CONTENT_CHECKSUM_LIMIT
    digest = hashlib.sha256()
    for path, size in zip(files, sizes, strict=True):
        mark = sha256_file(path) if by_content else str(size)
        digest.update(f"{path.relative_to(root).as_posix()}\0{mark}\n".encode())
    return f"{'content' if by_content else 'listing'}:{digest.hexdigest()}"
