"""Labels as YOLO programs write them: one text file a picture, and a YAML file that names classes and folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onebit.commons import guards
from onebit.commons.datasets.own.form import PICTURES, Box, Labels, Part, Picture, require_classes
from onebit.commons.errors import InputError
from onebit.commons.labels import read_text

FORM = "yolo:data.yaml"
#: Coordinates are fractions of the picture; rounding may lead a little beyond.
_SLACK = 0.01


def read(text: str) -> Labels:
    """Read the YAML file: ``names``, ``train``, ``val`` (or ``valid``, ``test``) and, if need be, ``path``.

    A line of labels is ``class x y width height`` (the box's centre and size, in fractions of the picture's width
    and height), or ``class x1 y1 x2 y2 ...``, a polygon, of which the box around it is taken. A picture without a
    file of labels has no object.

    Raises:
        InputError: no such file, folders outside the file's own, or labels that are malformed.
    """
    import yaml

    path = Path(text)
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise InputError(f"malformed YAML: {path} ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or "train" not in content or "names" not in content:
        raise InputError(f"{path}: expected the keys names and train")
    categories = _names(content["names"], path)
    if (count := content.get("nc")) not in (None, len(categories)):
        raise InputError(f"{path}: nc is {guards.shown(count)}, but there are {len(categories)} names")
    here = path.absolute().parent
    root = _below(here, content["path"], path) if content.get("path") else here
    scored = next((content[key] for key in ("val", "valid", "test") if content.get(key)), None)
    train = Part(here, _pictures(here, root, content["train"], path, len(categories)))
    val = (
        Part(here, _pictures(here, root, scored, path, len(categories)))
        if scored and scored != content["train"]
        else None
    )
    return Labels(categories, train, val, here.name if path.stem in ("data", "dataset") else path.stem)


def _names(names: Any, path: Path) -> dict[int, str]:
    table = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(table, dict) or sorted(map(str, table)) != sorted(map(str, range(len(table)))) or not table:
        raise InputError(f"{path}: expected names as a list, or by number from 0 on")
    found = {key: str(table[key]) for key in range(len(table))}
    require_classes([*found.values()], path)
    return found


def _below(root: Path, place: Any, path: Path) -> Path:
    """A folder or file that the YAML file names, which may not lie outside the folder of that file."""
    if not isinstance(place, str):
        raise InputError(f"{path}: expected a path, found {guards.shown(place)}")
    here = path.absolute().parent.resolve()
    # Exporting programs write paths as seen from elsewhere: `../train/images` for what lies beside the file.
    tail = place
    while tail.startswith(("../", "./")):
        tail = tail.removeprefix("../").removeprefix("./")
    for candidate in ((root / place).resolve(), (root / tail).resolve()):
        if candidate.is_relative_to(here) and candidate.exists():
            return here / candidate.relative_to(here)
    raise InputError(f"{path} names {place}: expected a path below {here}, found nothing there")


def _pictures(here: Path, root: Path, places: Any, path: Path, classes: int) -> tuple[Picture, ...]:
    files: list[Path] = []
    for place in places if isinstance(places, list) else [places]:
        found = _below(root, place, path)
        if found.is_dir():
            files += sorted(p for p in found.rglob("*") if p.suffix.lower() in PICTURES)
        else:
            files += [
                _below(found.parent, line.strip(), path) for line in read_text(found).splitlines() if line.strip()
            ]
    if not files:
        raise InputError(f"{path}: there is no picture in {guards.shown(places)}")
    base = here.resolve()
    return tuple(_picture(base, file, classes) for file in dict.fromkeys(files))


def _picture(here: Path, file: Path, classes: int) -> Picture:
    parts = list(file.parts)
    if "images" in parts:  # the last one, as YOLO programs do
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    labels = Path(*parts).with_suffix(".txt")
    if not labels.is_file():
        labels = file.with_suffix(".txt")
    boxes = []
    if labels.is_file():
        lines = read_text(labels).splitlines()
        boxes = [_box(line, f"{labels}, line {at}", classes) for at, line in enumerate(lines, start=1) if line.strip()]
    return Picture(file.relative_to(here).as_posix(), str(labels), tuple(boxes), relative=True)


def _box(line: str, where: str, classes: int) -> Box:
    words = line.split()
    try:
        label, *numbers = int(words[0]), *map(float, words[1:])
    except ValueError:
        raise InputError(f"{where}: expected a class and numbers, found {guards.shown(line)}") from None
    if not 0 <= label < classes:
        raise InputError(f"{where}: class {label} is out of range, there are classes 0 to {classes - 1}")
    if not (len(numbers) == 4 or (len(numbers) >= 6 and len(numbers) % 2 == 0)):
        raise InputError(
            f"{where}: expected x, y, width, height or the corners of a polygon, found {len(numbers)} numbers"
        )
    if not all(-_SLACK <= number <= 1 + _SLACK for number in numbers):
        raise InputError(f"{where}: expected fractions of the picture from 0 to 1, found {guards.shown(line)}")
    if len(numbers) == 4:
        x, y, width, height = numbers
        return Box((x - width / 2, y - height / 2, x + width / 2, y + height / 2), label, where)
    return Box((min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])), label, where)
