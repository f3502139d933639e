"""Face images: an identity folder to train on, and three lists of pairs in their original formats.

LFW's ``pairs.txt`` (Huang et al., 2007), CFP's ``Protocol`` folder (Sengupta et al., WACV 2016), and
AgeDB-30 (Moschoglou et al., CVPR Workshops 2017) as ``agedb_30_ann.txt``, lines of ``1 image image``
(one person) or ``0 image image``, ten folds one after the other. Pickled ``.bin`` files hold the same
pairs and are not read, because nothing is unpickled.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onebit.commons.errors import InputError
from onebit.reid.datasets import Checked
from onebit.reid.torchreid_adapter import ImageDataset

FOLDS = 10
TRAIN = "casia-webface"
IMAGES = (".jpg", ".jpeg", ".png", ".bmp")
#: ``0_MariaCallas_35_f.jpg``: number, name, age, sex; as AgeDB's own files are called.
_AGEDB_NAME = re.compile(r"\d+_(.+)_\d+_[fm]\.\w+")


@dataclass(frozen=True)
class Pairs:
    """Pairs of images.

    Attributes:
        name: ``lfw``, ``cfp`` or ``agedb``.
        first, second: N paths each.
        same: [N] bool, whether a pair shows one person.
        folds: [N] from 0.
        people: names of the people, as far as the files tell.
    """

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    same: np.ndarray
    folds: np.ndarray
    people: frozenset[str]


def read_pairs(root: Path) -> list[Pairs]:
    """All three lists below ``root``.

    Raises:
        InputError: a line does not parse, contradicts itself, or names an image that is missing.
    """
    return [read_lfw(root / "lfw"), read_cfp_fp(root / "cfp-dataset"), read_agedb_30(root / "agedb_30")]


def read_lfw(folder: Path) -> Pairs:
    """``pairs.txt``: number of folds and of pairs; per fold so many lines ``name n n``, then ``name n name n``."""
    path = folder / "pairs.txt"
    lines = _lines(path)
    header = lines[0].split()
    if len(header) != 2 or not all(n.isdigit() and int(n) > 0 for n in header):
        raise InputError(f"expected the numbers of folds and of pairs per fold in line 1 of {path}, found {lines[0]!r}")
    folds, count = map(int, header)
    if len(lines) != 1 + 2 * folds * count:
        raise InputError(
            f"expected {folds} folds of 2 x {count} pairs in {path}, found {len(lines) - 1} lines of pairs"
        )
    found, people = [], set()
    for number, line in enumerate(lines[1:], start=2):
        fold, position = divmod(number - 2, 2 * count)
        same, parts = position < count, line.split()
        numbers = parts[1:] if same else parts[1::2]
        if len(parts) != (3 if same else 4) or not all(n.isdigit() for n in numbers):
            wanted = "name n n" if same else "name n name n"
            raise InputError(f"expected `{wanted}` in line {number} of {path}, found {line!r}")
        names = (parts[0], parts[0] if same else parts[2])
        if not same and names[0] == names[1]:
            raise InputError(f"expected two people in line {number} of {path}, found {line!r}")
        images = [folder / name / f"{name}_{int(n):04d}.jpg" for name, n in zip(names, numbers, strict=True)]
        found.append((*_existing(images, path, number), same, fold))
        people.update(names)
    return _pairs("lfw", found, people)


def read_cfp_fp(folder: Path) -> Pairs:
    """Frontal-profile: ``Protocol/Split/FP/<fold>/{same,diff}.txt`` with numbers in ``Pair_list_F`` and ``_P``."""
    protocol = folder / "Protocol"
    lists = [_numbered(protocol / f"Pair_list_{kind}.txt") for kind in "FP"]
    splits = sorted(p for p in (protocol / "Split" / "FP").iterdir() if p.is_dir())
    found = []
    for fold, split in enumerate(splits):
        for name, same in (("same", True), ("diff", False)):
            path = split / f"{name}.txt"
            for number, line in enumerate(_lines(path), start=1):
                parts = line.replace(" ", "").split(",")
                if len(parts) != 2 or any(p not in known for p, known in zip(parts, lists, strict=True)):
                    raise InputError(
                        f"expected `number,number` of images in Pair_list_F.txt and Pair_list_P.txt in "
                        f"line {number} of {path}, found {line!r}"
                    )
                images = [known[p] for p, known in zip(parts, lists, strict=True)]
                if (images[0].parts[-3] == images[1].parts[-3]) != same:
                    wanted = "one person" if same else "two people"
                    raise InputError(f"expected {wanted} in line {number} of {path}, found {line!r}")
                found.append((*_existing(images, path, number), same, fold))
    return _pairs("cfp", found, ())


def _numbered(path: Path) -> dict[str, Path]:
    """``1 ../Data/Images/001/frontal/01.jpg``: number to path."""
    images = {}
    for number, line in enumerate(_lines(path), start=1):
        parts = line.split(maxsplit=1)
        if len(parts) != 2 or not parts[0].isdigit() or len(Path(parts[1]).parts) < 3:
            raise InputError(
                f"expected `number path` with a path like ../Data/Images/001/frontal/01.jpg in line "
                f"{number} of {path}, found {line!r}"
            )
        images[parts[0]] = Path(os.path.normpath(path.parent / parts[1]))
    return images


def read_agedb_30(folder: Path) -> Pairs:
    """``agedb_30_ann.txt``: lines of ``label image image``, images relative to ``folder``; ten folds in order."""
    path = folder / "agedb_30_ann.txt"
    lines = _lines(path)
    if len(lines) % FOLDS:
        raise InputError(f"expected {FOLDS} folds of equal size in {path}, found {len(lines)} lines")
    found, people = [], set()
    for number, line in enumerate(lines, start=1):
        parts = line.split()
        if len(parts) != 3 or parts[0] not in ("0", "1"):
            raise InputError(f"expected `1 image image` or `0 image image` in line {number} of {path}, found {line!r}")
        same = parts[0] == "1"
        names = [_AGEDB_NAME.fullmatch(Path(image).name) for image in parts[1:]]
        if all(names) and (names[0][1] == names[1][1]) != same:
            wanted = "one person" if same else "two people"
            raise InputError(f"expected {wanted} in line {number} of {path}, found {line!r}")
        people.update(name[1] for name in names if name)
        images = [folder / image for image in parts[1:]]
        found.append((*_existing(images, path, number), same, (number - 1) * FOLDS // len(lines)))
    return _pairs("agedb", found, people)


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"expected a text file with pairs, found {path}: {error}") from error
    lines = [line for line in lines if line]
    if not lines:
        raise InputError(f"expected pairs in {path}, found none")
    return lines


def _existing(images: Iterable[Path], path: Path, number: int) -> list[str]:
    for image in images:
        if not image.is_file():
            raise InputError(f"expected the image {image}, which line {number} of {path} names")
    return [str(image) for image in images]


def _pairs(name: str, found: list[tuple], people: Iterable[str]) -> Pairs:
    first, second, same, folds = zip(*found, strict=True)
    return Pairs(name, first, second, np.array(same), np.array(folds), frozenset(people))


def person_key(name: str) -> str | None:
    """A name in a form to compare by; None for a number, which means another person in every dataset."""
    key = re.sub(r"[^a-z0-9]", "", name.lower())
    return None if not key or key.isdigit() or re.fullmatch(r"[a-z]?\d+", key) else key


class FaceDataset(Checked, ImageDataset):
    """Trained on ``casia-webface/<identity>/``; every image of the three lists of pairs is a query.

    Attributes:
        pairs: the three lists.
        counts: ``train_identities_compared_by_name``: how many training identities have a name that
            can be looked for among the people of the pairs; CASIA-WebFace's are numbers, of which
            nothing can be said.
    """

    read_pairs = staticmethod(read_pairs)

    def __init__(self, root: str = "", **kwargs) -> None:
        root = Path(os.path.abspath(root))
        train = sorted(p for p in (root / TRAIN).iterdir() if p.is_dir() and p.name[0] != ".")
        self.pairs = read_pairs(root)
        tested = {person_key(name) for pairs in self.pairs for name in pairs.people} - {None}
        keys = {person_key(folder.name): folder.name for folder in train}
        keys.pop(None, None)
        self._compared = len(keys)
        shared = sorted(keys[key] for key in tested & keys.keys())
        if shared:
            names = ", ".join(shared[:5]) + (", ..." if len(shared) > 5 else "")
            raise InputError(f"expected nobody of the test pairs in {root / TRAIN}, found {len(shared)}: {names}")
        images = []
        for label, folder in enumerate(train):
            own = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGES)
            if not own:
                raise InputError(f"expected images ({', '.join(IMAGES)}) in {folder}, found none")
            images += [(str(path), label, 0) for path in own]
        if len(train) < 2:
            raise InputError(f"expected folders of images, one per identity, in {root / TRAIN}")
        tested = sorted({path for pairs in self.pairs for path in (*pairs.first, *pairs.second)})
        query = [(path, number, 0) for number, path in enumerate(tested)]
        # torchreid wants a gallery; nothing is looked for in it.
        super().__init__(images, query, query[:1], **kwargs)

    @property
    def counts(self) -> dict[str, int]:
        return dict(train_identities_compared_by_name=self._compared)
