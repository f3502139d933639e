"""Mini faces: drawn heads in the layouts of CASIA-WebFace, LFW, CFP and AgeDB-30.

An identity is the shape of what is in a face: head, hair, brows, eyes, nose, mouth, beard, a mole.
Skin, light, background and colour cast are drawn anew for every image, so that colours say nothing
about who it is. The head is a cylinder that turns: in CFP's profile images by about 50 degrees. Age
greys the hair and lines the face. All of it is ours; nothing is taken from a real image.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 64  # pixels, height and width

#: The parts of an identity. Any two people differ in at least two of them.
PARTS = {
    "head": ("round", "long", "square"),
    "hair": ("bald", "short", "fringe", "parting", "long"),
    "brows": ("flat", "arched", "slanted", "thick"),
    "eyes": ("round", "narrow", "wide_set", "large"),
    "nose": ("short", "long", "wide"),
    "mouth": ("wide", "narrow", "full"),
    "beard": ("none", "moustache", "goatee", "full"),
    "mole": ("none", "left", "right"),
}
_SYLLABLES = ("ba", "do", "fe", "gu", "ka", "li", "mo", "na", "ri", "so", "tu", "ve")


@dataclass(frozen=True)
class Face:
    """What does not change from image to image."""

    head: str
    hair: str
    brows: str
    eyes: str
    nose: str
    mouth: str
    beard: str
    mole: str


def draw_people(rng: np.random.Generator, count: int) -> list[Face]:
    """``count`` people; any two differ in at least two parts."""
    people: list[Face] = []
    while len(people) < count:
        face = Face(**{part: str(rng.choice(choices)) for part, choices in PARTS.items()})
        if all(sum(getattr(face, f.name) != getattr(p, f.name) for f in fields(Face)) >= 2 for p in people):
            people.append(face)
    return people


def person_name(number: int) -> str:
    """A first and a last name, different for every number below 20736, as LFW writes them."""
    first, last = divmod(number, 144)
    return "_".join((_SYLLABLES[n // 12 % 12] + _SYLLABLES[n % 12]).capitalize() for n in (first, last))


def draw_image(face: Face, rng: np.random.Generator, yaw: float = 0.0, age: float = 0.3) -> np.ndarray:
    """One crop of a head.

    Args:
        face: who.
        rng: everything that changes from image to image.
        yaw: how far the head is turned, radians.
        age: 0 (young) to 1 (old).

    Returns:
        uint8 image [64, 64, 3], RGB.
    """
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(float)
    scale = rng.uniform(25, 28)
    x = (x - SIZE / 2 - rng.uniform(-2, 2)) / scale
    y = (y - SIZE / 2 - rng.uniform(-2, 2)) / scale
    tilt = rng.uniform(-0.1, 0.1)
    x, y = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)

    wide, high, power = {"round": (0.8, 0.95, 2.0), "long": (0.66, 1.08, 2.2), "square": (0.78, 0.98, 4.0)}[face.head]
    head = abs(x / wide) ** power + abs(y / high) ** power < 1
    # The angle around the cylinder at which a pixel looks, from the middle of the face.
    u = np.arcsin((x / wide).clip(-1, 1)) - yaw
    v = y / high

    background = rng.uniform(0.1, 0.9, 3) + rng.uniform(-0.25, 0.25, 3) * x[..., None]
    image = background + rng.uniform(-0.25, 0.25, 3) * y[..., None]
    skin = np.array([0.85, 0.65, 0.52]) * rng.uniform(0.6, 1.1)
    hair = np.array([0.3, 0.2, 0.12]) * rng.uniform(0.3, 1.0)
    hair = hair + (0.75 - hair) * (0.8 * age)

    def fill(mask: np.ndarray, colour) -> None:
        image[mask] = colour

    if face.hair == "long":
        fill((abs(x) < wide * 1.15) & (y > -high * 0.7) & (y < high * 0.9), hair)
    fill(head, skin)
    _hair(fill, face.hair, head, u, v, hair)
    _features(fill, face, head, u, v, hair, rng)
    if age > 0.5:
        for line in (-0.5, -0.42):
            fill(head & (abs(v - line) < 0.015) & (abs(u) < 0.5), skin * 0.7)
        fill(head & (abs(abs(u) - 0.55 - 0.3 * (v - 0.3)) < 0.03) & (abs(v - 0.35) < 0.15), skin * 0.75)
    image *= 1 + rng.uniform(-0.3, 0.3) * x[..., None] + rng.uniform(-0.15, 0.15) * y[..., None]
    image = image * rng.uniform(0.7, 1.2, 3) + rng.uniform(-0.08, 0.08, 3)
    image = image + rng.normal(0, rng.uniform(0.01, 0.03), image.shape)
    return (image.clip(0, 1) * 255).round().astype(np.uint8)


def _hair(fill, style: str, head, u, v, colour) -> None:
    if style == "bald":
        return
    line = {
        "short": np.full(v.shape, -0.72),
        "long": np.full(v.shape, -0.62),
        "fringe": np.full(v.shape, -0.42),
        "parting": -0.72 + 0.22 * (u + 0.5),
    }[style]
    fill(head & (v < line), colour)
    if style == "long":
        fill(head & (abs(u) > 1.15) & (v < 0.6), colour)


def _features(fill, face: Face, head, u, v, hair, rng: np.random.Generator) -> None:
    dark = np.full(3, rng.uniform(0.05, 0.15))
    apart = 0.52 if face.eyes == "wide_set" else 0.4
    eye_w, eye_h = {"round": (0.13, 0.1), "narrow": (0.18, 0.045), "wide_set": (0.13, 0.08), "large": (0.2, 0.13)}[
        face.eyes
    ]
    side = abs(u)
    eye = ((side - apart) / eye_w) ** 2 + ((v + 0.15) / eye_h) ** 2
    fill(head & (eye < 1), np.full(3, 0.95))
    fill(head & (((side - apart) / 0.07) ** 2 + ((v + 0.15) / min(eye_h, 0.08)) ** 2 < 1), dark)

    bend = {"flat": 0.0, "arched": 0.35, "slanted": 0.0, "thick": 0.0}[face.brows]
    slant = 0.35 if face.brows == "slanted" else 0.0
    middle = -0.38 + bend * (side - apart) ** 2 * 4 - slant * (side - apart)
    thick = 0.065 if face.brows == "thick" else 0.03
    fill(head & (abs(side - apart) < 0.22) & (abs(v - middle) < thick), hair * 0.8)

    length, width = {"short": (0.12, 0.09), "long": (0.28, 0.09), "wide": (0.16, 0.2)}[face.nose]
    fill(head & (abs(v - length) < 0.03) & (side < width), dark * 3)
    fill(head & (v > -0.1) & (v < length) & (abs(side - 0.05) < 0.02), dark * 4)

    smile = rng.uniform(-0.3, 0.3)
    lip_w, lip_h = {"wide": (0.42, 0.045), "narrow": (0.2, 0.045), "full": (0.28, 0.1)}[face.mouth]
    lip = ((u / lip_w) ** 2 + ((v - 0.52 + smile * u**2) / lip_h) ** 2) < 1
    if face.beard in ("goatee", "full"):
        fill(head & (v > 0.6) & (side < (0.3 if face.beard == "goatee" else 1.6)), hair)
    if face.beard == "full":
        fill(head & (side > 0.75) & (v > 0.1), hair)
    if face.beard in ("moustache", "full"):
        fill(head & (abs(v - 0.4) < 0.05) & (side < 0.38), hair)
    fill(head & lip, np.array([0.6, 0.2, 0.2]) * rng.uniform(0.8, 1.2))
    if face.mole != "none":
        where = -0.62 if face.mole == "left" else 0.62
        fill(head & (((u - where) / 0.09) ** 2 + ((v - 0.22) / 0.07) ** 2 < 1), dark)


def _save(path: Path, image: np.ndarray) -> None:
    # Not `write_atomic`: whoever asks for the dataset renames the whole folder when it is complete.
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=92)
    path.write_bytes(stream.getvalue())


def write_face(folder: Path, trained: int = 96, images: int = 14, tested: int = 32, pairs: int = 100) -> None:
    """People to train on, and others in three sets of pairs; nobody is in two of the four.

    Args:
        folder: where to write.
        trained: identities to train on.
        images: of each of them.
        tested: identities of each set of pairs.
        pairs: matching pairs in each of ten folds, and as many others.
    """
    rng = np.random.default_rng(1507)
    people = draw_people(rng, trained + 3 * tested)
    for number in range(trained):
        for image in range(images):
            yaw = rng.uniform(-0.9, 0.9) if image % 2 else rng.uniform(-0.25, 0.25)
            path = Path(folder) / "casia-webface" / person_name(number) / f"{image + 1:03d}.jpg"
            _save(path, draw_image(people[number], rng, yaw, rng.uniform(0, 1)))
    groups = [range(trained + k * tested, trained + (k + 1) * tested) for k in range(3)]
    _write_lfw(Path(folder) / "lfw", rng, people, groups[0], pairs)
    _write_cfp(Path(folder) / "cfp-dataset", rng, people, groups[1], pairs)
    _write_agedb(Path(folder) / "agedb_30", rng, people, groups[2], pairs)


def _two_people(rng: np.random.Generator, group: range) -> tuple[int, int]:
    first, second = rng.choice(len(group), 2, replace=False)
    return group[int(first)], group[int(second)]


def _two_images(rng: np.random.Generator, count: int) -> tuple[int, int]:
    first, second = rng.choice(count, 2, replace=False) + 1
    return int(first), int(second)


def _write_lfw(folder: Path, rng, people: list[Face], group: range, pairs: int) -> None:
    """LFW's view 2: ten times matching lines, then others; six images of everybody."""
    count = 6
    for number in group:
        name = person_name(number)
        for image in range(1, count + 1):
            drawn = draw_image(people[number], rng, rng.uniform(-0.35, 0.35))
            _save(folder / name / f"{name}_{image:04d}.jpg", drawn)
    lines = [f"10\t{pairs}"]
    for _ in range(10):
        for _ in range(pairs):
            first, second = _two_images(rng, count)
            lines.append(f"{person_name(group[int(rng.integers(len(group)))])}\t{first}\t{second}")
        for _ in range(pairs):
            one, other = _two_people(rng, group)
            first, second = rng.integers(1, count + 1, 2)
            lines.append(f"{person_name(one)}\t{first}\t{person_name(other)}\t{second}")
    (folder / "pairs.txt").write_text("\n".join(lines) + "\n")


def _write_cfp(folder: Path, rng, people: list[Face], group: range, pairs: int) -> None:
    """CFP's frontal-profile protocol: ten frontal images of everybody, four in profile."""
    counts = {"frontal": 10, "profile": 4}
    lists: dict[str, list[str]] = {"frontal": [], "profile": []}
    for index, number in enumerate(group, start=1):
        for kind, count in counts.items():
            for image in range(1, count + 1):
                side = rng.choice((-1.0, 1.0))
                yaw = side * rng.uniform(0.75, 1.0) if kind == "profile" else rng.uniform(-0.2, 0.2)
                inner = f"Data/Images/{index:03d}/{kind}/{image:02d}.jpg"
                _save(folder / inner, draw_image(people[number], rng, yaw))
                lists[kind].append(f"{len(lists[kind]) + 1} ../{inner}")
    protocol = folder / "Protocol"
    protocol.mkdir()
    for kind, lines in lists.items():
        (protocol / f"Pair_list_{kind[0].upper()}.txt").write_text("\n".join(lines) + "\n")
    for fold in range(1, 11):
        split = protocol / "Split" / "FP" / f"{fold:02d}"
        split.mkdir(parents=True)
        for name in ("same", "diff"):
            lines = []
            for _ in range(pairs):
                one, other = rng.choice(len(group), 2, replace=False)
                if name == "same":
                    other = one
                frontal, profile = rng.integers(1, 11), rng.integers(1, 5)
                lines.append(f"{one * 10 + frontal},{other * 4 + profile}")
            (split / f"{name}.txt").write_text("\n".join(lines) + "\n")


def _write_agedb(folder: Path, rng, people: list[Face], group: range, pairs: int) -> None:
    """AgeDB-30: pairs that are at least 30 years apart; three images young, three old."""
    names: dict[int, list[str]] = {}
    for number in group:
        names[number] = []
        for image in range(6):
            age = int(rng.integers(20, 35) if image < 3 else rng.integers(65, 85))
            name = f"{image + number * 6}_{person_name(number).replace('_', '')}_{age}_{'fm'[number % 2]}.jpg"
            drawn = draw_image(people[number], rng, rng.uniform(-0.35, 0.35), (age - 20) / 65)
            _save(folder / "images" / name, drawn)
            names[number].append(f"images/{name}")
    lines = []
    for _ in range(10):
        for _ in range(pairs):
            one = group[int(rng.integers(len(group)))]
            young, old = rng.integers(0, 3), rng.integers(3, 6)
            lines.append(f"1 {names[one][young]} {names[one][old]}")
        for _ in range(pairs):
            one, other = _two_people(rng, group)
            young, old = rng.integers(0, 3), rng.integers(3, 6)
            lines.append(f"0 {names[one][young]} {names[other][old]}")
    (folder / "agedb_30_ann.txt").write_text("\n".join(lines) + "\n")
