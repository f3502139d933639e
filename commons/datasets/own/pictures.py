"""Pictures of one's own for re-ID and classification: `reid:PLACE` and `folder:PLACE` become datasets like any other.

They are listed (:mod:`onebit.commons.datasets.own.listing`), looked at, shared out, and kept as a list with links below
the cache folder. The dataset's name, ``reid-TITLE-HASH`` or ``folder-TITLE-HASH``, follows from the list.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from onebit.commons.datasets.dataset import SMALL_SIDE, Dataset
from onebit.commons.datasets.own import listing
from onebit.commons.datasets.own.listing import Kind, Labelled
from onebit.commons.errors import InputError, WorkError
from onebit.commons.files import cache_folder, dataset_checksum, disk_error_message, write_atomic

#: One picture of a class in so many is scored where nothing says which.
ONE_IN = 5
_ABOUT, _LIST, _IMAGES = "about.json", "pictures.json", "images"

PEOPLE = Kind(
    label="identity",
    parts={"train": "train", "query": "query", "gallery": "gallery", "test": "test"},
    cameras=True,
    form="reid:FOLDER[?pattern=REGEX] or reid:FILE.csv",
)
CLASSES = Kind(
    label="class",
    parts={"train": "train", "val": "val", "valid": "val", "test": "val"},
    cameras=False,
    form="folder:FOLDER[?pattern=REGEX] or folder:FILE.csv",
)


@dataclass(frozen=True)
class OwnPictures(Dataset):
    """Pictures of one's own, as :func:`own_pictures` prepares them.

    Attributes:
        counts: what was met, and how many there are of what.
    """

    counts: Mapping[str, int] = field(default_factory=dict)

    def find(self, data_root: Any) -> Path:
        """The prepared folder, wherever ``data_root`` is.

        Raises:
            InputError: the pictures are no longer where they were.
        """
        folder = _folder(self.board, self.name)
        for path in _files(folder):
            if not path.is_file():
                raise InputError(
                    f"dataset {self.name}: its picture {os.path.realpath(path)} is no longer there: name its pictures "
                    f"again, {_KINDS[self.board].kind.form}"
                )
        return folder

    def is_there(self, data_root: Any) -> bool:
        """Whether all its pictures are where they were."""
        return all(path.is_file() for path in _files(_folder(self.board, self.name)))

    def checksum_of(self, folder: Path, cached: bool = True) -> str:
        """Over the list and the pictures."""
        return dataset_checksum([folder / _LIST, *_files(folder)], folder, cached)


#: What ``reid-...`` is, but for its name, its protocol and its split.
OWN_PEOPLE = OwnPictures(
    name="reid",
    title="own people",
    task="reid",
    folders=(".",),
    required=(_LIST, _IMAGES),
    how_to_get=f"Name its pictures: {PEOPLE.form}.",
    reader="onebit.reid.datasets:OwnPeople",
    split="",
    protocol="market",
    recipe="small",
)


def share_people(pictures: Sequence[Labelled]) -> tuple[list[Labelled], str]:
    """Who is trained on, and which pictures are queries; the rule in words.

    Half of the people are scored, those whose names have the smallest SHA-256, unless the labels say who. Of a scored
    person, the picture with the smallest SHA-256 of every camera is a query, as long as every query keeps a match in
    the gallery: another picture, under another camera where cameras are known. All the others are the gallery.

    Raises:
        InputError: too few people, an identity both to train on and to score, or nothing to find.
    """
    people = sorted({picture.label for picture in pictures})
    given = bool(pictures[0].part)
    if given:
        parts = {picture.part for picture in pictures}
        for needed in ({"train"}, {"query", "test"}, {"gallery", "test"}):
            if not parts & needed:
                raise InputError(f"expected people to {'train on' if 'train' in needed else 'score'}: no {min(needed)}")
        trained = {picture.label for picture in pictures if picture.part == "train"}
        if both := sorted(trained & {picture.label for picture in pictures if picture.part != "train"}):
            raise InputError(f"expected each identity in one part, found {both[0]} to train on and to score")
    else:
        trained = set(listing.by_hash(people)[len(people) // 2 :])
    if len(trained) < 2:
        raise InputError(f"expected at least {2 if given else 3} identities, two to train on, found {len(people)}")
    shared = {p.name: p.part if p.part not in ("", "test") else "gallery" for p in pictures}
    shared |= {p.name: "train" for p in pictures if p.label in trained}
    for person in sorted(set(people) - trained):
        for name in _queries([p for p in pictures if p.label == person and p.part in ("", "test")]):
            shared[name] = "query"
    found = listing.with_parts(pictures, shared)
    if not any(picture.part == "query" for picture in found):
        raise InputError(
            "no scored person has two pictures"
            + (" under different cameras" if pictures[0].camera is not None else "")
            + ": nothing could be found"
        )
    who = "as labelled" if given else "1 in 2 -> 1 in 2 of the people, by SHA-256 of names"
    if given and "test" not in parts:
        return found, f"{who}: train -> query, gallery"
    return found, f"{who}; one query for each camera, by SHA-256 of file names"


def _queries(pictures: Sequence[Labelled]) -> list[str]:
    """The queries among one person's pictures."""
    named = {picture.name: picture for picture in pictures}
    rest = listing.by_hash([*named])
    queries: list[str] = []

    def keeps_match(query: str, gallery: Sequence[str]) -> bool:
        camera = named[query].camera
        return any(camera is None or named[name].camera != camera for name in gallery)

    for camera in sorted({picture.camera for picture in pictures}, key=str):
        chosen = next(name for name in rest if named[name].camera == camera)
        gallery = [name for name in rest if name != chosen]
        if all(keeps_match(query, gallery) for query in (*queries, chosen)):
            queries.append(chosen)
            rest = gallery
    return queries


def share_classes(pictures: Sequence[Labelled]) -> tuple[list[Labelled], str]:
    """Which pictures are trained on and scored; the rule in words.

    One in five of every class is scored, those whose paths have the smallest SHA-256, unless the labels say which.

    Raises:
        InputError: fewer than two classes, or a class that one of both lacks.
    """
    labels = sorted({picture.label for picture in pictures})
    if len(labels) < 2:
        raise InputError(f"expected at least two classes, found {', '.join(labels)} alone")
    given = bool(pictures[0].part)
    parts = {picture.name: picture.part for picture in pictures}
    if not given:
        for label in labels:
            names = listing.by_hash([picture.name for picture in pictures if picture.label == label])
            if len(names) < 2:
                raise InputError(
                    f"class {label} has one picture, {names[0]}: expected one to train on and one to score"
                )
            scored = set(names[: max(round(len(names) / ONE_IN), 1)])
            parts.update({name: "val" if name in scored else "train" for name in names})
    found = listing.with_parts(pictures, parts)
    for part in ("train", "val"):
        if missing := sorted(set(labels) - {picture.label for picture in found if picture.part == part}):
            raise InputError(f"class {missing[0]} has no picture to {'train on' if part == 'train' else 'score'}")
    return found, (
        "train -> val, as labelled"
        if given
        else f"{ONE_IN - 1} in {ONE_IN} -> 1 in {ONE_IN} of every class, by SHA-256 of file names"
    )


def _about_people(pictures: Sequence[Labelled], sizes: set[tuple[int, int]]) -> dict[str, Any]:
    parts = Counter(f"{picture.part} images" for picture in pictures)
    cameras = {picture.camera for picture in pictures}
    people = {
        part: {p.label for p in pictures if (p.part == "train") is (part == "train")} for part in ("train", "test")
    }
    known = cameras != {None}
    return dict(
        protocol="market" if known else "no-cameras",
        counts={
            **parts,
            **{f"{part} identities": len(of) for part, of in people.items()},
            "cameras": len(cameras) * known,
        },
    )


def _about_classes(pictures: Sequence[Labelled], sizes: set[tuple[int, int]]) -> dict[str, Any]:
    side = min(sizes)[0] if len(sizes) == 1 and len({*min(sizes)}) == 1 else None
    return dict(
        image_size=side if side and side <= SMALL_SIDE else None,
        counts={**Counter(f"{picture.part} images" for picture in pictures), "sizes of pictures": len(sizes)},
    )


@dataclass(frozen=True)
class _Prepared:
    """What one kind of data is made of."""

    kind: Kind
    template: Callable[[], OwnPictures]
    share: Callable[[Sequence[Labelled]], tuple[list[Labelled], str]]
    about: Callable[[Sequence[Labelled], set[tuple[int, int]]], dict[str, Any]]
    fields: tuple[str, ...]


def _of_classes() -> OwnPictures:
    from onebit.commons.datasets.classification import OWN_FOLDER

    return replace(
        OWN_PEOPLE,
        name=OWN_FOLDER.board,
        board=OWN_FOLDER.board,
        task="classification",
        required=("train", "val"),
        how_to_get=f"Name its pictures: {CLASSES.form}.",
        reader="folder",
        protocol="",
        metrics=OWN_FOLDER.metrics,
        recipe=OWN_FOLDER.recipe,
    )


_KINDS = {
    "reid": _Prepared(PEOPLE, lambda: OWN_PEOPLE, share_people, _about_people, ("protocol",)),
    "folder": _Prepared(CLASSES, _of_classes, share_classes, _about_classes, ("image_size",)),
}


def is_named(name: str) -> bool:
    """Whether ``name`` names pictures, or a dataset that was made of some here."""
    board, colon, _ = name.partition(":")
    if colon:
        return board in _KINDS
    board = name.partition("-")[0]
    return (board == "reid" and name != board) or (board in _KINDS and _is_prepared(board, name))


def own_pictures(name: str) -> OwnPictures:
    """The dataset of pictures (``reid:FOLDER`` and the like), or one that was prepared before (``reid-...``).

    Raises:
        InputError: pictures that cannot be used, or a name that was never prepared here.
        WorkError: the cache folder cannot be written.
    """
    return _prepare(name) if ":" in name else _prepared(name.partition("-")[0], name)


@lru_cache  # the pictures of a run are listed once
def _prepare(text: str) -> OwnPictures:
    from filelock import FileLock

    board, _, place = text.partition(":")
    prepared = _KINDS[board]
    if not place:
        raise InputError(f"dataset {text!r}: expected {prepared.kind.form}")
    base, pictures = listing.read(place, prepared.kind)
    try:
        shared, rule = prepared.share(pictures)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    marks = [[p.name, p.label, p.camera, p.part] for p in shared]
    digest = hashlib.sha256(json.dumps([rule, marks]).encode()).hexdigest()[:8]
    source = Path(place.partition("?")[0])
    called = source.stem if source.suffix.lower() == ".csv" else source.absolute().name
    title = re.sub(r"[^A-Za-z0-9]+", "_", called).strip("_")[:30] or "pictures"
    name = f"{board}-{title}-{digest}"
    seen = dict(rule=rule, base=str(base), state=listing.state_of(base, shared))
    if not _is_current(board, name, seen):
        counts, sizes = listing.looked_at(base, shared)
        found = prepared.about(shared, sizes)
        found["counts"] = {key: count for key, count in {**found["counts"], **counts}.items() if count}
        folder = _folder(board, name)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{folder}.lock").acquire()
        except OSError as error:
            raise WorkError(disk_error_message(error, folder)) from error
        with lock:
            if not _is_current(board, name, seen):  # another process of this training may have been faster
                _write(folder, base, shared, {**seen, **found})
    return _prepared(board, name)


def _is_current(board: str, name: str, seen: Mapping[str, Any]) -> bool:
    """Whether these pictures were prepared, and are as they were."""
    try:
        about = json.loads((_folder(board, name) / _ABOUT).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and all(about.get(key) == value for key, value in seen.items())


def _is_prepared(board: str, name: str) -> bool:
    return bool(re.fullmatch(rf"{board}-\w{{1,30}}-[0-9a-f]{{8}}", name, re.ASCII)) and _folder(board, name).is_dir()


def _prepared(board: str, name: str) -> OwnPictures:
    prepared = _KINDS[board]
    if not _is_prepared(board, name):
        raise InputError(f"dataset {name} was not made on this machine: name its pictures, {prepared.kind.form}")
    try:
        about = json.loads((_folder(board, name) / _ABOUT).read_bytes())
        fields = {key: about[key] for key in prepared.fields}
        return replace(
            prepared.template(),
            name=name,
            title=name,
            split=about["rule"],
            counts=about["counts"],
            board=board,
            **fields,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read {_folder(board, name) / _ABOUT}: {error}") from error


def _folder(board: str, name: str) -> Path:
    return cache_folder() / board / name


def _files(folder: Path) -> list[Path]:
    """The pictures of a prepared folder."""
    try:
        return [folder / path for path, *_ in json.loads((folder / _LIST).read_bytes())]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"cannot read {folder / _LIST}: {error}") from error


def _write(folder: Path, base: Path, pictures: Sequence[Labelled], about: dict[str, Any]) -> None:
    """Links to the pictures, their list, and what is known of them; the last written when all is there."""
    people = "protocol" in about
    listed = []
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if people:
            (folder / _IMAGES).symlink_to(base, target_is_directory=True)
        for at, picture in enumerate(pictures):
            path = f"{_IMAGES}/{picture.name}"
            if not people:  # as a folder of classes
                path = f"{picture.part}/{picture.label}/{at:07}{Path(picture.name).suffix}"
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).symlink_to(base / picture.name)
            listed.append([path, picture.label, picture.camera, picture.part])
    except OSError as error:
        raise WorkError(disk_error_message(error, folder)) from error
    write_atomic(folder / _LIST, json.dumps(listed))
    write_atomic(folder / _ABOUT, json.dumps(about, indent=1))
