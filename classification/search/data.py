"""The images of a search: the training set, divided into what each part of a method may see.

The test set is never opened: an architecture that was chosen by it would be trained on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from mmengine.dist import get_rank, get_world_size
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, Subset

from onebit.classification.augmentation import BatchAugmentation
from onebit.classification.datasets import InMemoryImages, StreamedImages, collate_images
from onebit.commons import guards
from onebit.commons.errors import InputError

#: Parts of the training set, in the order in which it is dealt out.
PARTS = ("train", "valid", "evaluation")


class SearchData:
    """Three disjoint parts of a training set, each an iterable of batches on one device.

    Which images go where follows from ``seed`` alone. Batches of ``train`` and ``valid`` are
    shuffled by torch's global generator and augmented; with several processes, each gets its share
    of every batch, and all must have drawn the same from the generator before. ``evaluation`` is
    the same in every process, whole, in one order that follows from ``seed``, and not augmented.

    Args:
        data_root, layout: see :class:`onebit.classification.datasets.InMemoryImages`; ``imagenet`` images are
            streamed.
        seed: of the division.
        image_size: side in pixels; small images are brought to it by averaging areas.
        images: how many training images to use; None for all.
        train, valid, evaluation: shares of these images.
        batch_size: of each process.
        evaluation_batch_size: of the part that is evaluated, in each process.
        num_workers: of the loaders, for streamed images.
        augmentation: ``padding``, ``flip`` and ``cutout`` of
            :class:`onebit.classification.augmentation.BatchAugmentation`.
        min_crop_area: of streamed images.

    Attributes:
        train, valid, evaluation: :class:`Batches`.

    Raises:
        InputError: an argument out of range, or images that cannot be read.
    """

    def __init__(
        self,
        data_root: str,
        layout: str,
        seed: int,
        image_size: int,
        images: int | None,
        train: float,
        valid: float,
        evaluation: float,
        batch_size: int,
        evaluation_batch_size: int,
        num_workers: int,
        augmentation: Mapping,
        min_crop_area: float,
    ) -> None:
        shares = (train, valid, evaluation)
        check_shares(shares)
        if layout == "imagenet":
            source = StreamedImages(data_root, "train", image_size, min_crop_area)
            plain = StreamedImages(data_root, "train", image_size, min_crop_area)
            scored = StreamedImages(data_root, "test", image_size, min_crop_area)
            plain.folder.transform = scored.folder.transform  # resize and centre crop
        else:
            source = plain = InMemoryImages(data_root, layout, "train", resize=image_size)
        total = len(source)
        if images is not None and not 0 < images <= total:
            raise InputError(
                f"data.images {images}: expected a number of images from 1 to {total}, which "
                f"{Path(data_root).name} has for training"
            )
        order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
        order = order[: images or total]
        ends = [round(sum(shares[: i + 1]) * len(order)) for i in range(len(shares))]
        starts = [0, *ends[:-1]]
        for name, start, end in zip(PARTS, starts, ends, strict=True):
            # In the order of the draw: folders list their images class by class, and a batch of one
            # class has batch statistics (supernets use these in evaluation, too) of its own.
            chosen = Subset(plain if name == "evaluation" else source, order[start:end].tolist())
            shuffle = name != "evaluation"
            size = batch_size if shuffle else evaluation_batch_size
            loader = _loader(chosen, size, shuffle, num_workers if layout == "imagenet" else 0)
            setattr(self, name, Batches(loader, augmentation if shuffle else {}, name))

    def require(self, names: Sequence[str]) -> None:
        """Raises InputError where a part in ``names`` has no image."""
        for name in names:
            getattr(self, name).require_images()

    def to(self, device: torch.device) -> SearchData:
        """Let all parts hand out their batches on ``device``."""
        for name in PARTS:
            getattr(self, name).device = device
        return self


class Batches:
    """Batches of one part; every iteration begins anew.

    Attributes:
        loader: what reads them.
        device: where they go.
        before: called at the beginning of every iteration.
    """

    def __init__(self, loader: DataLoader, augmentation: Mapping, name: str) -> None:
        self.loader = loader
        self.name = name
        self.device = torch.device("cpu")
        self.before = None
        # CP-NAS, section 3.1: color intensities are normalized to [-1, 1].
        self._prepare = BatchAugmentation((127.5,) * 3, (127.5,) * 3, **augmentation)
        self._augment = bool(augmentation)

    @property
    def images(self) -> int:
        """Images of this part, in all processes together."""
        return len(self.loader.dataset)

    def __len__(self) -> int:
        return len(self.loader)

    def require_images(self) -> None:
        """Raises InputError where there is no batch."""
        if not len(self.loader):
            raise InputError(
                f"the {self.name} part of the data has {self.images} images, too few for a batch; "
                f"raise data.{self.name} or data.images, or lower data.batch_size"
            )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images [N, 3, H, W] float32 in [-1, 1] and labels [N]."""
        self.require_images()
        if self.before is not None:
            self.before()
        self._prepare.to(self.device)
        for batch in self.loader:
            data = self._prepare(batch, training=self._augment)
            yield data["inputs"], data["labels"]


class SharedShuffle(Sampler[int]):
    """A new order every time, from torch's global generator; each process takes its share of it.

    What is left over when the images are dealt out evenly is left out this time.
    """

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length // get_world_size()

    def __iter__(self) -> Iterator[int]:
        processes = get_world_size()
        order = torch.randperm(self.length)
        yield from order[get_rank() : len(self) * processes : processes].tolist()


def _loader(chosen: Subset, batch_size: int, shuffle: bool, workers: int) -> DataLoader:
    sampler = SharedShuffle(len(chosen)) if shuffle else None
    return DataLoader(
        chosen,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate_images,
        # A last small batch makes poor batch statistics; where it is the only one, it stays.
        drop_last=shuffle and len(sampler) >= batch_size,
    )


def check_shares(shares: tuple[float, ...]) -> None:
    """Raises InputError where ``shares`` cannot be parts of a training set."""
    for part, share in zip(PARTS, shares, strict=True):
        guards.fraction(f"data.{part}, a share of the training set,", share)
    if sum(shares) > 1 + 1e-9 or not shares[0]:
        raise InputError(
            f"data.train, data.valid and data.evaluation are shares of the training set: expected "
            f"a sum of at most 1, the first above 0; found {', '.join(map(str, shares))}"
        )
