"""Mini Market-1501, DukeMTMC-reID and CUHK03: drawn pedestrians in the real datasets' layouts.

An identity is what a person wears: the pattern on the torso, sleeves, trousers or skirt, a bag, a
hat. A camera has its own colour response, light, background and blur. Colours therefore say which
camera took a picture and hardly who is in it: raw pixels and untrained networks match people of
one camera with each other and fail; a network that learned to look at clothes succeeds on people
it never saw. All of it is ours; nothing is taken from a real image.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 128, 64  # pixels: the size of every image of Market-1501
PATTERNS = ("plain", "horizontal", "vertical", "diagonal", "checks")
LEGS = ("trousers", "shorts", "skirt", "striped")
BAGS = ("none", "backpack", "shoulder", "hand")


@dataclass(frozen=True)
class Person:
    """What does not change from image to image. Colours are RGB in [0, 1]."""

    pattern: str
    coarse: bool
    legs: str
    bag: str
    hat: bool
    long_sleeves: bool
    torso_light: np.ndarray
    torso_dark: np.ndarray
    light_first: bool
    legs_color: np.ndarray
    skin: np.ndarray
    hair: np.ndarray

    @property
    def outfit(self) -> tuple:
        """The part of the appearance that every camera shows alike."""
        return (self.pattern, self.coarse, self.legs, self.bag, self.hat, self.long_sleeves, self.light_first)


@dataclass(frozen=True)
class Camera:
    """What does not change from image to image of one camera."""

    mix: np.ndarray  # [3, 3] colour response
    gain: float
    gamma: float
    tint: np.ndarray  # [3]
    backdrop: np.ndarray  # [HEIGHT + 32, WIDTH + 32, 3]
    light: np.ndarray  # [HEIGHT, WIDTH, 1]
    blur: bool
    noise: float


def draw_people(rng: np.random.Generator, count: int) -> list[Person]:
    """``count`` people; any two differ in at least two parts of the outfit."""
    people: list[Person] = []
    while len(people) < count:
        person = Person(
            pattern=str(rng.choice(PATTERNS)),
            coarse=bool(rng.integers(2)),
            legs=str(rng.choice(LEGS)),
            bag=str(rng.choice(BAGS)),
            hat=bool(rng.integers(2)),
            long_sleeves=bool(rng.integers(2)),
            torso_light=rng.uniform(0.65, 1.0, 3),
            torso_dark=rng.uniform(0.0, 0.3, 3),
            light_first=bool(rng.integers(2)),
            legs_color=rng.uniform(0.0, 1.0, 3),
            skin=np.array([0.85, 0.65, 0.5]) * rng.uniform(0.5, 1.0),
            hair=rng.uniform(0.0, 0.5, 3),
        )
        different = [sum(a != b for a, b in zip(person.outfit, p.outfit, strict=True)) for p in people]
        if all(d >= 2 for d in different):
            people.append(person)
    return people


def draw_cameras(rng: np.random.Generator, count: int) -> list[Camera]:
    """``count`` cameras with different colours, light and background."""
    y, x = np.mgrid[0 : HEIGHT + 32, 0 : WIDTH + 32].astype(float)
    cameras = []
    for index in range(count):
        angle = 2 * np.pi * index / count + rng.uniform(-0.2, 0.2)
        direction, period = rng.uniform(0, np.pi), rng.uniform(12, 40)
        wave = np.sin(2 * np.pi * (x * np.cos(direction) + y * np.sin(direction)) / period)
        backdrop = rng.uniform(0.1, 0.9, 3) + 0.15 * wave[..., None] * rng.uniform(-1, 1, 3)
        for _ in range(6):
            top, left = rng.integers(0, HEIGHT), rng.integers(0, WIDTH)
            height, width = rng.integers(8, 50), rng.integers(6, 30)
            backdrop[top : top + height, left : left + width] = rng.uniform(0, 1, 3)
        side = rng.uniform(-0.35, 0.35, 2)
        light = 1 + side[0] * (x / x.max() - 0.5) + side[1] * (y / y.max() - 0.5)
        cameras.append(
            Camera(
                mix=_hue_rotation(angle),
                gain=rng.uniform(0.5, 1.0),
                gamma=rng.uniform(0.7, 1.6),
                tint=rng.uniform(-0.12, 0.12, 3),
                backdrop=backdrop.clip(0, 1),
                light=light[:HEIGHT, :WIDTH, None],
                blur=bool(index % 2),
                noise=rng.uniform(0.01, 0.03),
            )
        )
    return cameras


def _hue_rotation(angle: float) -> np.ndarray:
    """Rotation of RGB space about the grey axis (Rodrigues' formula)."""
    axis = np.full(3, 3**-0.5)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def draw_image(person: Person | None, camera: Camera, rng: np.random.Generator, misplaced: float = 0.0) -> np.ndarray:
    """One box as a detector would cut it.

    Args:
        person: None draws background only.
        camera: whose colours and background.
        rng: pose, position and light of this image.
        misplaced: how far the box may be off, as a fraction of its size (junk has much).

    Returns:
        uint8 image [128, 64, 3], RGB.
    """
    top, left = rng.integers(0, 32, 2)
    image = camera.backdrop[top : top + HEIGHT, left : left + WIDTH].copy()
    if person is not None:
        _paint(image, person, rng, misplaced)
    image = image * camera.light * rng.uniform(0.85, 1.15)
    image = (image - 0.5) @ camera.mix.T + 0.5
    image = camera.gain * image.clip(0, 1) ** camera.gamma + camera.tint
    if camera.blur:
        image = (image + np.roll(image, 1, 0) + np.roll(image, 1, 1) + np.roll(image, (1, 1), (0, 1))) / 4
    image = image + rng.normal(0, camera.noise, image.shape)
    return (image.clip(0, 1) * 255).round().astype(np.uint8)


def _paint(image: np.ndarray, person: Person, rng: np.random.Generator, misplaced: float) -> None:
    """Paint ``person`` over ``image`` [128, 64, 3] in place."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    size = rng.uniform(106, 116)
    # Body coordinates: v runs from the crown (0) to the soles (1), u sideways, both in body heights.
    v = (y - rng.uniform(4, 10) - misplaced * HEIGHT * rng.uniform(-1, 1)) / size
    u = (x - WIDTH / 2 - rng.uniform(-3, 3) - misplaced * WIDTH * rng.uniform(-1, 1)) / size
    u = u / rng.uniform(0.85, 1.1)  # seen more or less from the side
    stride = rng.uniform(0.0, 0.05)

    def fill(mask: np.ndarray, color: np.ndarray) -> None:
        image[mask] = color[mask] if color.ndim == 3 else color

    shirt = _cloth(person, u, v + rng.uniform(-0.01, 0.01))
    torso = (v > 0.16) & (v < 0.5) & (abs(u) < 0.125)
    arms = (v > 0.17) & (v < 0.48) & (abs(u) >= 0.125) & (abs(u) < 0.18)
    spread = 0.055 + stride * (v - 0.5) / 0.45
    legs = (v >= 0.5) & (v < 0.94) & (abs(abs(u) - spread) < 0.045)

    fill(arms, person.skin)
    fill(arms if person.long_sleeves else arms & (v < 0.27), shirt)
    fill(torso, shirt)
    fill(legs, person.skin)
    if person.legs == "trousers":
        fill(legs, person.legs_color)
    elif person.legs == "shorts":
        fill(legs & (v < 0.68), person.legs_color)
    elif person.legs == "skirt":
        fill((v >= 0.5) & (v < 0.74) & (abs(u) < 0.11 + 0.2 * (v - 0.5)), person.legs_color)
    else:
        stripes = np.sin(2 * np.pi * v / 0.12)[..., None] > 0
        fill(legs, np.where(stripes, person.legs_color, 1 - person.legs_color))
    fill((v >= 0.94) & (v < 0.98) & (abs(abs(u) - spread) < 0.055), person.hair)

    head = (u / 0.06) ** 2 + ((v - 0.085) / 0.078) ** 2 < 1
    fill(head, person.skin)
    fill(head & (v < 0.05), person.hair)
    if person.hat:
        fill((v > 0.0) & (v < 0.05) & (abs(u) < 0.085), person.torso_light)
    leather = 1 - person.torso_light if person.light_first else 1 - person.torso_dark
    if person.bag == "backpack":
        fill((v > 0.16) & (v < 0.42) & (abs(abs(u) - 0.075) < 0.022), leather)
    elif person.bag == "shoulder":
        fill(torso & (abs(u - 0.75 * (v - 0.33)) < 0.025), leather)
        fill((abs(u - 0.15) < 0.06) & (v > 0.46) & (v < 0.6), leather)
    elif person.bag == "hand":
        fill((abs(u + 0.17) < 0.06) & (v > 0.5) & (v < 0.68), leather)


def _cloth(person: Person, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The shirt's colour everywhere, [128, 64, 3]."""
    period = 0.17 if person.coarse else 0.085
    across, down = np.sin(2 * np.pi * u / period) > 0, np.sin(2 * np.pi * v / period) > 0
    second = {
        "plain": np.zeros(u.shape, bool),
        "horizontal": down,
        "vertical": across,
        "diagonal": np.sin(2 * np.pi * (u + v) * 0.71 / period) > 0,
        "checks": across ^ down,
    }[person.pattern]
    second = second if person.light_first else ~second
    return np.where(second[..., None], person.torso_dark, person.torso_light)


def _jpeg(image: np.ndarray, size: tuple[int, int] | None = None) -> bytes:
    picture = Image.fromarray(image)
    if size:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=92)
    return stream.getvalue()


def _save(path: Path, content: bytes) -> None:
    # Not `write_atomic`: whoever asks for the dataset renames the whole folder when it is complete.
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _split(rng: np.random.Generator, ids: int, train: int) -> tuple[list[int], list[int]]:
    """Indices of the training and of the test identities: disjoint, mixed as in the real sets."""
    order = rng.permutation(ids)
    return sorted(order[:train].tolist()), sorted(order[train:].tolist())


def write_market1501(folder: Path) -> None:
    """64 identities to train on and 24 to test, six cameras, distractors (0000) and junk (-1)."""
    rng = np.random.default_rng(1501)
    people, cameras = draw_people(rng, 88), draw_cameras(rng, 6)
    strangers = draw_people(rng, 24)
    train, test = _split(rng, len(people), 64)
    root = Path(folder) / "market1501" / "Market-1501-v15.09.15"
    frame = 100

    def write(part: str, person: Person | None, pid: int, camera: int, misplaced: float) -> None:
        nonlocal frame
        frame += int(rng.integers(5, 40))
        label = "-1" if pid < 0 else f"{pid:04d}"
        name = f"{label}_c{camera + 1}s1_{frame:06d}_{int(rng.integers(1, 4)):02d}.jpg"
        _save(root / part / name, _jpeg(draw_image(person, cameras[camera], rng, misplaced)))

    for index in train:
        for camera in range(6):
            for _ in range(2):
                write("bounding_box_train", people[index], index + 1, camera, 0.03)
    for index in test:
        for camera in range(6):
            write("query", people[index], index + 1, camera, 0.03)
            for _ in range(2):
                write("bounding_box_test", people[index], index + 1, camera, 0.03)
            if camera == index % 6:
                write("bounding_box_test", people[index], -1, camera, 0.4)
    for number, stranger in enumerate(strangers):
        write("bounding_box_test", stranger if number % 4 else None, 0, number % 6, 0.3)


def write_dukemtmcreid(folder: Path) -> None:
    """64 identities to train on and 20 to test, eight cameras, 12 only one camera ever saw."""
    rng = np.random.default_rng(1404)
    people, cameras = draw_people(rng, 96), draw_cameras(rng, 8)
    train, test = _split(rng, len(people), 64)
    root = Path(folder) / "dukemtmc-reid" / "DukeMTMC-reID"
    frame = 40_000

    def write(part: str, index: int, camera: int) -> None:
        nonlocal frame
        frame += int(rng.integers(5, 40))
        name = f"{index + 1:04d}_c{camera + 1}_f{frame:07d}.jpg"
        # Unlike Market's, Duke's boxes come in the size in which they were cut.
        size = (int(rng.integers(48, 80)), int(rng.integers(110, 170)))
        image = draw_image(people[index], cameras[camera], rng, 0.03)
        _save(root / part / name, _jpeg(image, size))

    for index in train:
        for camera in range(8):
            for _ in range(2 if (index + camera) % 2 else 1):
                write("bounding_box_train", index, camera)
    for index in test[:20]:
        for camera in range(8):
            write("query", index, camera)
            for _ in range(2 if (index + camera) % 2 else 1):
                write("bounding_box_test", index, camera)
    for index in test[20:]:
        for _ in range(3):
            write("bounding_box_test", index, index % 8)


def write_cuhk03(folder: Path, per_pair: int = 18) -> None:
    """90 identities in five camera pairs; two thirds to train on, by the new protocol.

    Args:
        folder: where to write.
        per_pair: identities per camera pair.
    """
    from onebit.commons.mini.cuhk03_files import release_mat, split_mat

    rng = np.random.default_rng(1467)
    pairs = 5
    people, cameras = draw_people(rng, pairs * per_pair), draw_cameras(rng, 2)
    _, test = _split(rng, len(people), len(people) * 2 // 3)
    root = Path(folder) / "cuhk03"
    cells: dict[str, list] = {}
    for kind, misplaced in (("detected", 0.04), ("labeled", 0.01)):
        cells[kind] = [
            [
                [
                    draw_image(people[pair * per_pair + pid], cameras[slot // 5], rng, misplaced)
                    if _has_image(pid, slot)
                    else None
                    for slot in range(10)
                ]
                for pid in range(per_pair)
            ]
            for pair in range(pairs)
        ]
    testsets = [
        sorted((i // per_pair + 1, i % per_pair + 1) for i in rng.choice(len(people), 10, False)) for _ in range(20)
    ]
    _save(root / "cuhk03_release" / "cuhk-03.mat", release_mat(cells, testsets))
    for kind in cells:
        names, labels, cams, query = [], [], [], []
        for identity in range(len(people)):
            pair, pid = divmod(identity, per_pair)
            for slot in range(10):
                if _has_image(pid, slot):
                    names.append(f"{pair + 1}_{pid + 1:03d}_{slot // 5 + 1}_{slot + 1:02d}.png")
                    labels.append(identity + 1)
                    cams.append(slot // 5 + 1)
                    query.append(slot in (1, 6))
        is_test = np.isin(labels, [t + 1 for t in test])
        content = split_mat(names, labels, cams, ~is_test, is_test & query, is_test & ~np.array(query))
        _save(root / f"cuhk03_new_protocol_config_{kind}.mat", content)


def _has_image(pid: int, slot: int) -> bool:
    """CUHK03 has at most five boxes of a person in each of two views; the other cells are empty."""
    return slot % 5 < (4 if pid % 3 else 5)
