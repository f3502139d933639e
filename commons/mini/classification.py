"""`mini-cifar10`, `mini-fashion-mnist` and `mini-imagenet`: ten classes of shapes and textures.

Class is shape or texture, never colour: colours, background, position, size, rotation and clutter
are drawn at random for every image. Only +, -, *, /, square roots and comparisons of float64 are
used on uniform random numbers, all of which IEEE 754 defines exactly, so the pixels are the same on
every machine; ``mini-cifar10`` is so byte for byte, ``mini-fashion-mnist`` up to the packer, and
``mini-imagenet`` up to the JPEG encoder.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

CLASSES = ("disc", "ring", "square", "frame", "triangle", "cross", "slashed", "across", "checker", "twins")
#: ImageNet's folders are WordNet ids; these are no real ones.
WNIDS = tuple(f"n9000000{i}" for i in range(10))

CIFAR_TRAIN, CIFAR_TEST = 3000, 500
FASHION_TRAIN, FASHION_TEST, FASHION_SIZE = 3000, 500, 28
IMAGENET_TRAIN, IMAGENET_VAL, IMAGENET_SIZE = 300, 30, 64


def write_mini_cifar10(folder: Path) -> None:
    """Write ``cifar-10-batches-py/`` with 5 x 600 training and 500 test images of 32x32 pixels."""
    rng = np.random.default_rng(10)
    target = folder / "cifar-10-batches-py"
    target.mkdir(parents=True, exist_ok=True)
    part = CIFAR_TRAIN // 5
    parts = [(f"data_batch_{i}", f"training batch {i} of 5", part) for i in range(1, 6)]
    for file, batch_label, count in [*parts, ("test_batch", "testing batch 1 of 1", CIFAR_TEST)]:
        labels = rng.permutation(np.arange(count) % 10).tolist()
        images = np.stack([draw(label, rng, 32) for label in labels])
        batch = {
            "batch_label": batch_label,
            "labels": labels,
            "data": images.transpose(0, 3, 1, 2).reshape(count, 3072),  # rows: R plane, G, B
            "filenames": [f"{CLASSES[label]}_s_{i:06d}.png" for i, label in enumerate(labels)],
        }
        (target / file).write_bytes(dump_python2_pickle(batch))
    meta = {"num_cases_per_batch": part, "label_names": list(CLASSES), "num_vis": 3072}
    (target / "batches.meta").write_bytes(dump_python2_pickle(meta))


def write_mini_imagenet(folder: Path) -> None:
    """Write ``train/<wnid>/*.JPEG`` and ``val/<wnid>/*.JPEG``: 64x64 pixels, ten classes."""
    from PIL import Image

    rng = np.random.default_rng(1000)
    for split, count in (("train", IMAGENET_TRAIN), ("val", IMAGENET_VAL)):
        for label, wnid in enumerate(WNIDS):
            (folder / split / wnid).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                name = f"{wnid}_{i}.JPEG" if split == "train" else f"ILSVRC2012_val_{label * count + i + 1:08d}.JPEG"
                image = Image.fromarray(draw(label, rng, IMAGENET_SIZE))
                image.save(folder / split / wnid / name, format="JPEG", quality=90)


def write_mini_fashion_mnist(folder: Path) -> None:
    """Write the four ``*-ubyte.gz`` files: 3000 training and 500 test images of 28x28 gray pixels."""
    rng = np.random.default_rng(28)
    for part, count in (("train", FASHION_TRAIN), ("t10k", FASHION_TEST)):
        labels = rng.permutation(np.arange(count) % 10).astype(np.uint8)
        images = np.stack([_gray(draw(int(label), rng, FASHION_SIZE)) for label in labels])
        for what, values in (("images-idx3", images), ("labels-idx1", labels)):
            write_idx(folder / f"{part}-{what}-ubyte.gz", values)


def _gray(image: np.ndarray) -> np.ndarray:
    """The channel that varies most: in another one shape and background may be equally bright."""
    flat = image.reshape(-1, 3).astype(np.int64)
    spread = len(flat) * (flat**2).sum(0) - flat.sum(0) ** 2
    return image[..., int(spread.argmax())]


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write bytes in the IDX format of MNIST: four bytes of magic, one size per axis, the values; gzipped."""
    header = struct.pack(f">{1 + values.ndim}I", 0x0800 + values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes(), mtime=0))


def draw(label: int, rng: np.random.Generator, size: int) -> np.ndarray:
    """One image of class ``label``: uint8 [size, size, 3]."""
    step = 2.0 / size
    axis = (np.arange(size) + 0.5) * step - 1.0  # pixel centres in [-1, 1]
    y, x = np.meshgrid(axis, axis, indexing="ij")
    background = _background(rng, x, y)
    image = _clutter(background, rng, x, y, step)

    radius = rng.uniform(0.45, 0.68)
    centre_x, centre_y = rng.uniform(-0.3, 0.3, 2)
    # A rotation by at most 23 degrees without sine and cosine, whose last bit libraries disagree on.
    t = rng.uniform(-0.2, 0.2)
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    dx, dy = (x - centre_x) / radius, (y - centre_y) / radius
    u, v = cosine * dx + sine * dy, cosine * dy - sine * dx
    # Signed distance to the shape's border, in pixels; the clip is one pixel of antialiasing.
    cover = np.clip(_distance(label, u, v, rng) * radius / step + 0.5, 0.0, 1.0)[..., None]
    mean = background.reshape(-1, 3)[:: max(1, size // 8)].mean(0)
    colour = _contrasting_colour(rng, mean)
    image = image * (1 - cover) + colour * cover
    image = image + rng.uniform(-0.06, 0.06, image.shape)
    return (np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _distance(label: int, u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positive inside the shape, in units of its radius."""
    length = np.sqrt(u * u + v * v)
    disc = 0.95 - length
    square = 0.85 - np.maximum(abs(u), abs(v))
    name = CLASSES[label]
    if name == "disc":
        return disc
    if name == "ring":
        return np.minimum(disc, length - 0.55)
    if name == "square":
        return square
    if name == "frame":
        return np.minimum(square, np.maximum(abs(u), abs(v)) - 0.5)
    if name == "triangle":
        return np.minimum(0.7 - v, (v + 1.0 - 2.0 * abs(u)) * 0.447)
    if name == "cross":
        return np.minimum(0.95 - np.maximum(abs(u), abs(v)), 0.3 - np.minimum(abs(u), abs(v)))
    if name == "twins":
        return 0.42 - np.sqrt((abs(u) - 0.5) ** 2 + v * v)
    # The three textures fill the same disc: only their grain tells them apart.
    period = rng.uniform(0.5, 0.62)
    phase_u, phase_v = rng.uniform(0.0, 1.0, 2)
    wave_u = _triangle_wave(u / period + phase_u) * period / 2
    wave_v = _triangle_wave(v / period + phase_v) * period / 2
    if name == "slashed":
        return np.minimum(disc, wave_u)
    if name == "across":
        return np.minimum(disc, wave_v)
    return np.minimum(disc, np.where(wave_u * wave_v > 0, 1, -1) * np.minimum(abs(wave_u), abs(wave_v)))


def _triangle_wave(x: np.ndarray) -> np.ndarray:
    """Period 1, from -1/2 to 1/2."""
    return abs(2.0 * (x - np.floor(x)) - 1.0) - 0.5


def _background(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth random gradient: [H, W, 3] in [0, 1]."""
    base, slope_x, slope_y = rng.uniform(0.15, 0.85, 3), *rng.uniform(-0.2, 0.2, (2, 3))
    return np.clip(base + x[..., None] * slope_x + y[..., None] * slope_y, 0.0, 1.0)


def _clutter(image: np.ndarray, rng: np.random.Generator, x, y, step: float) -> np.ndarray:
    """Four faint blots, too small to be taken for the shape."""
    for _ in range(4):
        centre_x, centre_y = rng.uniform(-1.0, 1.0, 2)
        half_x, half_y = rng.uniform(0.06, 0.22, 2)
        inside = np.minimum(half_x - abs(x - centre_x), half_y - abs(y - centre_y)) / step
        cover = (np.clip(inside + 0.5, 0.0, 1.0) * 0.6)[..., None]
        image = image * (1 - cover) + rng.uniform(0.0, 1.0, 3) * cover
    return image


def _contrasting_colour(rng: np.random.Generator, background: np.ndarray) -> np.ndarray:
    while True:
        colour = rng.uniform(0.0, 1.0, 3)
        if abs(colour - background).max() > 0.4:
            return colour


def dump_python2_pickle(value) -> bytes:
    """Pickle dicts, lists, ints, ASCII strings and 2-D uint8 arrays as CIFAR-10's authors did.

    CIFAR-10's files were written by Python 2 at protocol 2: their strings are byte strings (which
    ``pickle.load(..., encoding='bytes')`` must return as bytes) and their arrays name NumPy's old
    modules. Python 3's pickler can write neither, and what it writes follows the NumPy version.
    """
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value) -> bytes:
    if isinstance(value, dict):
        return b"}(" + b"".join(_opcodes(k) + _opcodes(v) for k, v in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_opcodes, value)) + b"e"
    if isinstance(value, int):
        return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
    if isinstance(value, str):
        return _byte_string(value.encode("ascii"))
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        rows, columns = value.shape
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _byte_string(b"b") + b"\x87R"
        dtype = b"cnumpy\ndtype\n" + _byte_string(b"u1") + b"K\x00K\x01\x87R"
        dtype += b"(K\x03" + _byte_string(b"|") + b"NNN" + _opcodes(-1) * 2 + b"K\x00tb"
        shape = _opcodes(rows) + _opcodes(columns) + b"\x86"
        return empty + b"(K\x01" + shape + dtype + b"\x89" + _byte_string(value.tobytes()) + b"tb"
    raise TypeError(f"no CIFAR-10 file holds a {type(value).__name__}")


def _byte_string(value: bytes) -> bytes:
    if len(value) < 256:
        return b"U" + bytes([len(value)]) + value
    return b"T" + struct.pack("<i", len(value)) + value
