"""Options that name a file: a record says which file it was, not where it lay on somebody's machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onebit.commons.errors import InputError
from onebit.commons.files import sha256_file

_NAMED = re.compile(r"[^/\\]+@sha256:[0-9a-f]{64}")


def for_record(options: Mapping[str, Any]) -> dict[str, Any]:
    """``options`` with every path of a file replaced by the file's name and SHA-256.

    Two machines, or two folders, give the same row where the file is the same.

    Raises:
        InputError: a value is an absolute path and there is no file; what a record would keep of it
            holds on one machine only.
    """
    return {key: _portable(key, value) for key, value in options.items()}


def _portable(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _portable(f"{key}.{k}", v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(f"{key}.{i}", v) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value
    path = Path(value).expanduser()
    # A plain word is a word, whatever files lie about.
    if ("/" in value or path.suffix) and path.is_file():
        return f"{path.name}@sha256:{sha256_file(path)}"
    if path.is_absolute():
        raise InputError(f"{key}: expected a file, found none at {value}")
    return value


def short(text: str) -> str:
    """``text`` with twelve digits of every hash of a file."""
    return re.sub(r"(@sha256:[0-9a-f]{12})[0-9a-f]{52}", r"\1", text)


def without_files(options: Mapping[str, Any]) -> dict[str, Any]:
    """A record's options without those that name a file: what was made with it knows it itself."""
    return {key: value for key, value in options.items() if not _holds_file(value)}


def _holds_file(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_file(v) for v in value.values())
    if isinstance(value, list):
        return any(_holds_file(v) for v in value)
    return isinstance(value, str) and _NAMED.fullmatch(value) is not None
