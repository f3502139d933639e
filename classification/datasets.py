"""Images with labels: the files of CIFAR-10 and CIFAR-100, and folders with one folder per class.

Small images are held in memory as one uint8 tensor and handed out batch by batch, so that loading
never bounds training; larger ones are read from disk by torchvision's `ImageFolder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.registry import DATASETS, FUNCTIONS
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from onebit.commons.checkpoint_reader import read_pickle
from onebit.commons.compat import ensure_torchvision
from onebit.commons.datasets import SMALL_SIDE, get_dataset, resolve_code
from onebit.commons.datasets import Dataset as DatasetValue
from onebit.commons.datasets import ImageFolder as OwnFolder
from onebit.commons.errors import InputError
from onebit.commons.images import read_image
from onebit.commons.progress import Progress

ensure_torchvision()

# ruff: isort: split
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import v2

CIFAR_SIZE = 32


@dataclass(frozen=True)
class CifarFiles:
    """Where a CIFAR release keeps what; both pickle their images as uint8 [N, 3072]."""

    folder: str
    meta: str
    names: bytes
    labels: bytes
    train: tuple[str, ...]
    test: tuple[str, ...]


CIFAR = {
    "cifar10": CifarFiles(
        "cifar-10-batches-py",
        "batches.meta",
        b"label_names",
        b"labels",
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        ("test_batch",),
    ),
    "cifar100": CifarFiles("cifar-100-python", "meta", b"fine_label_names", b"fine_labels", ("train",), ("test",)),
}


@DATASETS.register_module(force=True)
class InMemoryImages(Dataset):
    """Small images of one size as a uint8 tensor; a batch is one indexing operation.

    Args:
        data_root: folder of the dataset.
        layout: ``cifar10`` or ``cifar100`` (the pickled batches of the release), ``folder``
            (``train/<class>/*`` and ``test/<class>/*`` or ``val/<class>/*``), or the name of a dataset that
            brings its reader.
        split: ``train`` or ``test``.
        size: height and width in pixels of the files' images; None takes what is there.
        resize: height and width to bring them to, by averaging areas; None leaves them.
        images: how many to use at most, drawn once and for all (the same ones in every training); None
            for all.

    Items are dicts with ``inputs`` uint8 [N, 3, side, side] and ``labels`` int64 [N]. Gray images are
    held once, and handed out as three equal channels.

    Raises:
        InputError: a file that is missing, broken or of another size, or a label out of range.
    """

    def __init__(
        self,
        data_root: str,
        layout: str,
        split: str,
        size: int | None = None,
        resize: int | None = None,
        images: int | None = None,
    ) -> None:
        root = Path(data_root)
        self.images, self.labels = read_images(root, split, layout, size)
        if images is not None:
            order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(0))
            chosen = order[:images].sort().values
            self.images, self.labels = self.images[chosen], self.labels[chosen]
        if resize not in (None, self.images.shape[-1]):
            parts = (
                F.interpolate(part.float(), (resize, resize), mode="area").round().to(torch.uint8)
                for part in self.images.split(1024)
            )
            self.images = torch.cat(list(parts))
        self.metainfo = dict(classes=class_names(root, layout))

    def to(self, device: torch.device | str) -> InMemoryImages:
        """Hold images and labels on ``device``, from where batches are then taken."""
        self.images, self.labels = self.images.to(device), self.labels.to(device)
        return self

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Called by torch's DataLoader with a whole batch of indices."""
        chosen = torch.as_tensor(indices).to(self.labels.device, non_blocking=True)
        images = self.images[chosen]
        return dict(inputs=images if images.shape[1] == 3 else images.repeat(1, 3, 1, 1), labels=self.labels[chosen])


@DATASETS.register_module(force=True)
class StreamedImages(Dataset):
    """An ImageNet-style folder, decoded and cropped as the batches come.

    Args:
        data_root: folder that holds ``train/`` and ``val/`` (or ``test/``).
        split: ``train`` (random resized crop, flip) or ``test`` (``val/``: resize, centre crop).
        size: height and width of the crop in pixels.
        min_area: least share of the image that a training crop covers.

    Items are dicts with ``inputs`` uint8 [3, size, size] and ``labels`` int; all of these are in the
    attribute ``labels``, int64 [N].

    Raises:
        InputError: an image that cannot be read, when it is read.
    """

    def __init__(self, data_root: str, split: str, size: int, min_area: float) -> None:
        root = Path(data_root)
        if split == "train":
            crop = [v2.RandomResizedCrop(size, scale=(min_area, 1.0), antialias=True), v2.RandomHorizontalFlip()]
        else:
            crop = [v2.Resize(size * 8 // 7, antialias=True), v2.CenterCrop(size)]
        self.folder = ImageFolder(
            str(root / (split if split == "train" else scored_folder(root, "imagenet"))),
            transform=v2.Compose([*crop, v2.PILToTensor()]),
            loader=read_image,
        )
        self.labels = torch.tensor(self.folder.targets)
        self.metainfo = dict(classes=class_names(root, "imagenet"))

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, index: int) -> dict:
        image, label = self.folder[index]
        return dict(inputs=image, labels=label)


@FUNCTIONS.register_module(force=True)
def collate_images(batch: dict | list[dict]) -> dict[str, Tensor]:
    """Stack items; what `__getitems__` gave is a batch already."""
    if isinstance(batch, dict):
        return batch
    return dict(
        inputs=torch.stack([item["inputs"] for item in batch]), labels=torch.tensor([item["labels"] for item in batch])
    )


def hold_on_gpu(loader: DataLoader) -> bool:
    """Move images that are held in memory to the GPU, where there is one and they fill less than half of what is free.

    Batches are then drawn there, and no image travels in a step. Loader processes cannot share a GPU's memory: with
    ``num_workers`` the images stay where they are, as streamed ones do, and come through pinned memory.

    Returns:
        whether they were moved.
    """
    images = loader.dataset
    if not isinstance(images, InMemoryImages) or loader.num_workers or not torch.cuda.is_available():
        return False
    if 2 * images.images.nbytes > torch.cuda.mem_get_info()[0]:
        return False
    images.to("cuda")
    loader.pin_memory = False  # what is on the GPU cannot be pinned
    return True


def class_names(root: Path, layout: str) -> list[str]:
    """Names of the classes in label order.

    Raises:
        InputError: training and test images have other classes, a class is empty, or there is none.
    """
    if layout in CIFAR:
        files = CIFAR[layout]
        path = root / files.folder / files.meta
        meta = _load_pickle(path)
        names = meta.get(files.names) if isinstance(meta, dict) else None
        if not isinstance(names, list) or not all(isinstance(n, bytes) for n in names):
            raise InputError(f"{path}: expected a list {files.names.decode()}")
        return [name.decode() for name in names]
    if layout not in ("folder", "imagenet"):
        return list(get_dataset(layout, "classification").classes)
    test = scored_folder(root, layout)
    found = {}
    for split in ("train", test):
        if not (root / split).is_dir():
            raise InputError(f"{root / split}: expected a folder with one folder per class")
        found[split] = sorted(p.name for p in (root / split).iterdir() if p.is_dir())
        if not found[split]:
            raise InputError(f"{root / split}: expected one folder per class, found none")
        for name in found[split]:
            if next(_images(root / split / name), None) is None:
                raise InputError(f"{root / split / name}: expected images of class {name}, found none")
    if found["train"] != found[test]:
        odd = sorted(set(found["train"]) ^ set(found[test]))
        raise InputError(f"{root}: train/ and {test}/ have different classes; only in one: {', '.join(odd[:5])}")
    return found["train"]


def scored_folder(root: Path, layout: str) -> str:
    """Where the scored images lie below ``root``: ImageNet's are in ``val``, others' in ``test``.

    The other one is taken where only that is there; where neither is, the usual one, so that an
    error names it.
    """
    usual, other = ("val", "test") if layout == "imagenet" else ("test", "val")
    return other if (root / other).is_dir() and not (root / usual).is_dir() else usual


def side_of(dataset: DatasetValue, folder: Path) -> int | None:
    """Height and width of images that are held in memory; None for others.

    Raises:
        InputError: an image of somebody's own folder decides, and cannot be read.
    """
    return small_side(folder) if isinstance(dataset, OwnFolder) else dataset.image_size


def layout_of(dataset: DatasetValue, folder: Path) -> str:
    """How its files lie, see :class:`InMemoryImages`; ``imagenet`` is a folder read as the batches come.

    Raises:
        InputError: see :func:`side_of`.
    """
    if dataset.reader == "folder":
        return "imagenet" if side_of(dataset, folder) is None else "folder"
    return dataset.reader if dataset.reader in CIFAR else dataset.name


def stem_of(dataset: DatasetValue, layout: str) -> str:
    """The stem of a network for images of ``layout``."""
    return dataset.stem or ("imagenet" if layout == "imagenet" else "cifar")


def split_of(dataset: DatasetValue, folder: Path) -> str:
    """Which images are trained on and scored, such as ``train -> test``."""
    return dataset.split or f"train -> {scored_folder(folder, layout_of(dataset, folder))}"


def small_side(root: Path) -> int | None:
    """Height and width of a folder's images where they can be held in memory, else None.

    Read off the first training image: square, and at most :data:`SMALL_SIDE` pixels wide. That the
    others are of its size is checked when all are read.

    Raises:
        InputError: there is no training image, or the first cannot be read.
    """
    first = class_names(root, "folder")[0]
    width, height = read_image(min(_images(root / "train" / first))).size
    return width if width == height <= SMALL_SIDE else None


def _images(folder: Path):
    return (p for p in folder.iterdir() if p.suffix.lower() in IMG_EXTENSIONS)


def read_images(root: Path, split: str, layout: str, size: int | None = None) -> tuple[Tensor, Tensor]:
    """Images that are held in memory: uint8 [N, 1 or 3, side, side], and their labels int64 [N].

    Args:
        layout, split, size: see :class:`InMemoryImages`.

    Raises:
        InputError: a file that is missing or broken, images of another size, or a label out of range.
    """
    if layout == "folder":
        return read_folder(root, split, size)
    if layout in CIFAR:
        return read_cifar(root, split, layout)
    dataset = get_dataset(layout, "classification")
    try:
        images, labels = resolve_code(dataset.reader)(root, split)
    except InputError:
        raise
    except Exception as error:  # whatever another's reader raises over a broken file
        text = " ".join(str(error).split())[:300]
        raise InputError(
            f"{root}: the {split} files of {layout} cannot be read: {type(error).__name__}: {text}"
        ) from error
    side = size or dataset.image_size
    expected = (1 if dataset.gray else 3, side, side)
    if images.dtype != torch.uint8 or images.shape[1:] != expected or labels.shape != images.shape[:1]:
        raise InputError(
            f"{root}: expected {split} images of {dataset.name} as uint8 [N, {', '.join(map(str, expected))}] and as "
            f"many labels, its reader gave {images.dtype} {list(images.shape)} and {list(labels.shape)}"
        )
    if not len(labels) or labels.min() < 0 or labels.max() >= len(dataset.classes):
        found = f"{labels.min()} to {labels.max()}" if len(labels) else "no images"
        raise InputError(f"{root}: expected {split} labels from 0 to {len(dataset.classes) - 1}, found {found}")
    return images, labels.long()


def read_folder(root: Path, split: str, size: int | None = None) -> tuple[Tensor, Tensor]:
    """All images of ``<root>/<split>/<class>/`` as uint8 [N, 3, size, size], and their labels [N].

    Args:
        size: of every image; None for that of the first training image.

    Raises:
        InputError: an image that cannot be read or is not size x size; the message names it.
    """
    names = class_names(root, "folder")
    size = size or small_side(root)
    if size is None:
        raise InputError(f"{root}: expected square images of at most {SMALL_SIDE} pixels")
    folder = root / (split if split == "train" else scored_folder(root, "folder"))
    files = [(p, label) for label, name in enumerate(names) for p in sorted(_images(folder / name))]
    expected = (size, size)
    images = np.empty((len(files), *expected, 3), np.uint8)
    with Progress(f"reading {split} images", total=len(files)) as progress:
        for i, (path, _) in enumerate(files):
            image = read_image(path)
            if image.size != expected:
                raise InputError(f"{path} is {image.width}x{image.height} pixels, expected {size}x{size}")
            images[i] = np.asarray(image)
            progress.advance()
    labels = torch.tensor([label for _, label in files])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels


def read_cifar(root: Path, split: str, release: str = "cifar10") -> tuple[Tensor, Tensor]:
    """The pickled batches of a CIFAR release as uint8 [N, 3, 32, 32] and labels [N].

    Args:
        release: a key of :data:`CIFAR`; CIFAR-100's labels are those of its 100 classes.

    Written for the release's files, and stricter than torchvision's reader: a pickle can run code
    when it is loaded, so only the classes these files need are allowed; no checksum of the
    release is asked for, because `mini-cifar10` has the same format and other content.

    Raises:
        InputError: a file that is missing or not of this format; the message names it.
    """
    files = CIFAR[release]
    classes = len(class_names(root, release))
    width = 3 * CIFAR_SIZE**2
    images, labels = [], []
    for name in files.train if split == "train" else files.test:
        path = root / files.folder / name
        batch = _load_pickle(path)
        data = batch.get(b"data") if isinstance(batch, dict) else None
        label = batch.get(files.labels) if isinstance(batch, dict) else None
        if not isinstance(data, Tensor) or data.dtype != torch.uint8 or data.ndim != 2 or data.shape[1] != width:
            raise InputError(f"{path}: expected `data` as uint8 [N, {width}]")
        if not isinstance(label, list) or len(label) != len(data):
            raise InputError(f"{path}: expected {len(data)} `{files.labels.decode()}`")
        for i, value in enumerate(label):
            if not isinstance(value, int) or not 0 <= value < classes:
                raise InputError(f"{path}: label {value!r} of image {i} is out of range 0 to {classes - 1}")
        images.append(data.reshape(-1, 3, CIFAR_SIZE, CIFAR_SIZE))
        labels += label
    return torch.cat(images), torch.tensor(labels)


def _load_pickle(path: Path):
    """A file of the release: Python 2 wrote texts, which Python 3 has as bytes."""
    content = read_pickle(path, "a file of the CIFAR release")
    if not isinstance(content, dict):
        return content
    found = {_as_bytes(key): value for key, value in content.items()}
    return {key: [*map(_as_bytes, value)] if isinstance(value, list) else value for key, value in found.items()}


def _as_bytes(text):
    return text.encode("latin1", "replace") if isinstance(text, str) else text
