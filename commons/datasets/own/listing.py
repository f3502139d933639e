"""Pictures with a label each, of one's own: folders named after the labels, file names of a pattern, or a CSV file.

What they have in common, whether a label is a class or a person. A label, a camera and a part are texts.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onebit.commons import guards
from onebit.commons.datasets.own.form import PICTURES, TURNED, kind_of
from onebit.commons.errors import InputError
from onebit.commons.images import open_image
from onebit.commons.labels import read_text, require_name

_LONGEST = 200


@dataclass(frozen=True)
class Labelled:
    """One picture.

    Attributes:
        name: its path below the folder, with forward slashes.
        label: its class or identity.
        where: what lists it, for messages.
        camera: None where none is known.
        part: what it is for, such as ``train``; empty where a rule has to say it.
    """

    name: str
    label: str
    where: str
    camera: str | None = None
    part: str = ""


@dataclass(frozen=True)
class Kind:
    """What labels mean.

    Attributes:
        label: ``class`` or ``identity``: a group of a pattern, a column of a CSV file.
        parts: folders, or values of the column ``split``, to what they are for.
        cameras: whether pictures may have a camera.
        form: how such data is named.
    """

    label: str
    parts: Mapping[str, str]
    cameras: bool
    form: str


def read(text: str, kind: Kind) -> tuple[Path, list[Labelled]]:
    """Read ``FOLDER``, ``FOLDER?pattern=REGEX`` or ``FILE.csv``.

    Returns:
        the folder, and its pictures in the order of their names.

    Raises:
        InputError: not of this form, nothing there, or an entry that cannot be.
    """
    place, asked, pattern = text.partition("?pattern=")
    path = Path(place)
    if path.suffix.lower() == ".csv":
        if asked:
            raise InputError(f"{kind.form}: a CSV file takes no pattern")
        folder, found = path.absolute().parent, _read_csv(path, kind)
    else:
        folder, found = path.absolute(), _read_folder(path, _compiled(pattern, kind) if asked else None, kind)
    if not found:
        raise InputError(f"{place}: expected pictures ({', '.join(PICTURES)}), found none")
    for picture in found:
        _check_text(kind.label, picture.label, picture.where)
    cameras = {picture.camera is None for picture in found}
    if len(cameras) > 1:
        without = next(picture for picture in found if picture.camera is None)
        raise InputError(f"{without.where}: expected a camera, as other pictures have; found none")
    parts = {picture.part == "" for picture in found}
    if len(parts) > 1:
        without = next(picture for picture in found if not picture.part)
        raise InputError(f"{without.where}: expected a split, as other pictures have; found none")
    return folder, sorted(found, key=lambda picture: picture.name)


def looked_at(folder: Path, pictures: Sequence[Labelled]) -> tuple[Counter[str], set[tuple[int, int]]]:
    """What is unusual about the pictures, counted, and their sizes (width, height); their pixels are not decoded.

    Raises:
        InputError: one is missing or no picture.
    """
    counts: Counter[str] = Counter()
    sizes = set()
    for picture in pictures:
        path = folder / picture.name
        if not path.is_file():
            raise InputError(f"{picture.where}: picture missing: expected {path}")
        try:
            with open_image(path) as image:
                kind, orientation = kind_of(image)
                sizes.add(image.size)
        except Exception as error:  # a decoder may raise anything at a broken file
            raise InputError(f"{picture.where}: unreadable picture {path} ({error})") from error
        counts.update(f"pictures {kind}" for _ in range(kind is not None))
        counts["pictures turned by EXIF, taken as they lie in the file"] += orientation in TURNED
    return +counts, sizes


def by_hash(names: Sequence[str]) -> list[str]:
    """In the order of their SHA-256, which nobody chose, and in which a name keeps its place beside others."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())


def state_of(folder: Path, pictures: Sequence[Labelled]) -> str:
    """Changes when a picture or its label does."""
    digest = hashlib.sha256()
    for picture in pictures:
        line = [picture.name, picture.label, picture.camera, picture.part]
        try:
            stat = (folder / picture.name).stat()
            digest.update(f"{line} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{line} missing\n".encode())  # said when it is looked at
    return digest.hexdigest()


def _compiled(pattern: str, kind: Kind) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"pattern {pattern!r} is no regular expression: {error}") from error
    allowed = {kind.label, "camera"} if kind.cameras else {kind.label}
    if kind.label not in compiled.groupindex or not compiled.groupindex.keys() <= allowed:
        optional = " and, if there are cameras, (?P<camera>...)" if kind.cameras else ""
        raise InputError(f"pattern {pattern!r}: expected a group (?P<{kind.label}>...){optional}")
    return compiled


def _read_folder(folder: Path, pattern: re.Pattern[str] | None, kind: Kind) -> list[Labelled]:
    if not folder.is_dir():
        raise InputError(f"expected a folder or a CSV file, {kind.form}; there is no folder {folder}")
    parts = {path.name: kind.parts[path.name] for path in folder.iterdir() if path.is_dir() and path.name in kind.parts}
    if parts and "train" not in parts.values():
        parts = {}  # labels that are called so
    found = []
    for top, part in parts.items() or {"": ""}.items():
        for name in _pictures(folder / top):
            where = str(folder / top / name)
            label, camera = _of_name(name, pattern, kind, where)
            found.append(Labelled(f"{top}/{name}" if top else name, label, where, camera, part))
    return found


def _pictures(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICTURES and not path.is_dir():
            name = path.relative_to(folder).as_posix()
            if not any(part.startswith(".") for part in name.split("/")):  # of file managers
                yield name


def _of_name(name: str, pattern: re.Pattern[str] | None, kind: Kind, where: str) -> tuple[str, str | None]:
    """Label and camera of a picture by its path."""
    if pattern:
        match = pattern.fullmatch(name)
        if not match or not match[kind.label]:
            raise InputError(f"{where}: its path {name} does not fit the pattern {pattern.pattern}")
        return match[kind.label], match.groupdict().get("camera")
    label, *between = name.split("/")[:-1] or [""]
    if not label:
        raise InputError(f"{where}: expected it in a folder named after its {kind.label}, or a pattern: {kind.form}")
    if kind.cameras and len(between) > 1:
        raise InputError(f"{where}: expected {kind.label}/picture or {kind.label}/camera/picture, or a pattern")
    return label, between[0] if kind.cameras and between else None


def _read_csv(path: Path, kind: Kind) -> list[Labelled]:
    text = read_text(path).removeprefix("\ufeff")
    columns = {"path", kind.label, "split", *(["camera"] if kind.cameras else [])}
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        header = [name.strip() for name in reader.fieldnames or []]
        if len(set(header)) < len(header) or not {"path", kind.label} <= set(header) <= columns:
            raise InputError(
                f"{path}, line 1: expected the columns path, {kind.label}"
                f"{', camera' if kind.cameras else ''} and split (the last {'two' if kind.cameras else 'one'} may be "
                f"missing), found {', '.join(header)[:200]}"
            )
        reader.fieldnames = header
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise InputError(f"{path}: malformed CSV ({error})") from error
    found: dict[str, Labelled] = {}
    for line, row in rows:
        where = f"{path}, line {line}"
        if None in row or None in row.values():
            raise InputError(f"{where}: expected {len(header)} values")
        values = {key: value.strip() for key, value in row.items()}
        require_name(values["path"], where)
        if values["path"] in found:
            raise InputError(
                f"{where}: {values['path']} is listed twice, the first time in {found[values['path']].where}"
            )
        split = values.get("split", "")
        if split and split not in kind.parts:
            raise InputError(f"{where}: expected a split of {', '.join(kind.parts)}, found {guards.shown(split)}")
        found[values["path"]] = Labelled(
            values["path"], values[kind.label], where, values.get("camera") or None, kind.parts.get(split, "")
        )
    return [*found.values()]


def _check_text(what: str, text: str, where: str) -> None:
    if not text.strip() or not text.isprintable() or len(text) > _LONGEST or "/" in text or text in (".", ".."):
        raise InputError(f"{where}: expected a name as {what}, found {guards.shown(text)}")


def with_parts(pictures: Sequence[Labelled], parts: Mapping[str, str]) -> list[Labelled]:
    """The pictures with the part that ``parts`` gives to their names."""
    return [replace(picture, part=parts[picture.name]) for picture in pictures]
