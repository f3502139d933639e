"""Reading label files: COCO's JSON and VOC's XML, whoever wrote them."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from onebit.commons.errors import InputError


def read_bytes(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"expected a file, found something else at {path}")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"file missing: expected {path}") from error
    except (OSError, ValueError) as error:  # ValueError: what no file name can hold
        raise InputError(f"cannot read {path}: {error}") from error


def read_text(path: Path) -> str:
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {path}: {error}") from error


def read_xml(path: Path) -> ElementTree.Element:
    """The ``<annotation>`` of a VOC file.

    Raises:
        InputError: missing, no XML, with entities of its own, or of another kind.
    """
    content = read_bytes(path)
    try:
        if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
            raise ValueError("it declares entities, which annotations do not have")
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last: of its encoding
        raise InputError(f"malformed XML: {path} ({error})") from error
    if root.tag != "annotation":
        raise InputError(f"{path}: expected an <annotation>, found <{root.tag[:40]}>")
    return root


def xml_number(node: ElementTree.Element, tag: str, where: str | Path) -> float:
    text = node.findtext(tag)
    try:
        return float(text or "")
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: expected a number in <{tag}>, found {short(text)}") from error


def xml_integer(node: ElementTree.Element, tag: str, where: str | Path) -> int:
    text = node.findtext(tag)
    try:
        return int(text or "")
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: expected an integer in <{tag}>, found {short(text)}") from error


def read_coco(path: Path) -> dict[str, Any]:
    """The content of a COCO annotation file, which has its three lists.

    Raises:
        InputError: missing, no JSON, an object with a key twice, or a list is missing.
    """
    text = read_text(path)
    try:
        content = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise InputError(f"malformed JSON: {path} ({error})") from error
    tables = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(t), list) for t in tables):
        raise InputError(f"{path}: expected COCO's lists {', '.join(tables)}")
    return content


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {key!r} occurs twice in one object")
    return found


def by_id(rows: list, fields: tuple[str, ...], where: str) -> dict[Any, dict]:
    """Index a COCO table by ``id``.

    Raises:
        InputError: a row without one of ``fields``, or an id that is no integer or occurs twice.
    """
    table: dict[Any, dict] = {}
    for at, row in enumerate(rows):
        missing = [f for f in ("id", *fields) if not isinstance(row, dict) or f not in row]
        if missing:
            raise InputError(f"{where} number {at + 1} of the list: expected a field {missing[0]!r}")
        if type(row["id"]) is not int:
            raise InputError(
                f"{where} number {at + 1} of the list: expected an integer as id, found {short(row['id'])}"
            )
        if row["id"] in table:
            raise InputError(f"{where} {row['id']}: this id occurs twice")
        table[row["id"]] = row
    return table


def is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 2**53
    return type(value) is float and math.isfinite(value)


def whole_id(value: Any) -> int | None:
    """An id, or None, which is nobody's."""
    return value if type(value) is int else None


def require_name(name: str, where: str) -> None:
    """Raise InputError for a name of an image that leads out of its folder, or that nobody could read.

    Annotations come with a download: what they name is opened, so it has to lie in the dataset.
    """
    parts = re.split(r"[/\\\\]", name)
    if not name.isprintable() or len(name) > 255 or not parts[0] or ".." in parts or re.match("[A-Za-z]:", name):
        raise InputError(f"{where}: expected the name of an image below its folder, found {ascii(name)[:60]}")


def short(value: Any) -> str:
    return repr(value)[:60]
