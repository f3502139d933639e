"""What a classifier put out on the scored images, small enough to keep with every row.

For every image, in the order of the data: the classes that could be in its top 5, and their ranks.
The labels are not in the file. Scoring takes them from the data, so a file cannot call its own
answers right.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from onebit.commons.errors import InputError
from onebit.commons.files import require_archive, write_atomic

#: How many ranks are kept.
KEPT = 5
#: Bytes of a file, unpacked: 50,000 images of ImageNet have one million.
_LARGEST = 2**27
#: Rank of a class that is not among those kept.
UNRANKED = 2**31 - 1
_NONE = -1


def leading(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The classes of each image that rank below :data:`KEPT`.

    The rank of a class is the number of other classes that score at least as high, so tied classes
    are all given the worst place they could have; the images of a network that puts out one value
    for everything have no leading class. Ours.

    Args:
        logits: [N, classes]. An image with a score that is not finite has no leading class.

    Returns:
        classes and ranks, int32 [N, KEPT], -1 where there are fewer.
    """
    n, classes = logits.shape
    scores, order = logits.sort(1, descending=True)
    scores, order = scores[:, : KEPT + 1].contiguous(), order[:, : KEPT + 1]
    # Scores are in descending order: those at least as high end with the last equal one.
    ranks = (scores.unsqueeze(1) >= scores.unsqueeze(2)).sum(2) - 1
    kept = (ranks < KEPT) & logits.isfinite().all(1, keepdim=True)
    ranks, order = ranks.masked_fill(~kept, _NONE), order.masked_fill(~kept, _NONE)
    padded = logits.new_full((2, n, KEPT), _NONE, dtype=torch.int32)
    width = min(KEPT, classes)
    padded[0, :, :width], padded[1, :, :width] = order[:, :width], ranks[:, :width]
    return padded[0], padded[1]


def ranks_of(labels: Tensor, classes: Tensor, ranks: Tensor) -> Tensor:
    """The rank of each image's label, :data:`UNRANKED` where it is not among the leading classes.

    Args:
        labels: [N].
        classes, ranks: int32 [N, KEPT], see :func:`leading`.
    """
    found = classes == labels.view(-1, 1)
    own = torch.where(found, ranks, torch.full_like(ranks, _NONE)).amax(1)
    return torch.where(found.any(1), own, torch.full_like(own, UNRANKED))


def top_k(ranks: Tensor, ks: Sequence[int]) -> dict[str, float]:
    """Share of images whose label's rank is below k, as fractions under the names ``top<k>``."""
    return {f"top{k}": int((ranks < k).sum()) / len(ranks) for k in ks}


@dataclass
class Predictions:
    """The leading classes of all scored images.

    Attributes:
        classes, ranks: int32 [N, KEPT], see :func:`leading`.
        num_classes: how many classes the network told apart.
    """

    classes: Tensor
    ranks: Tensor
    num_classes: int

    def save(self, path: Path) -> Path:
        """Write a compressed NumPy archive; the same predictions give the same bytes."""
        stream = io.BytesIO()
        np.savez_compressed(
            stream,
            classes=self.classes.cpu().numpy().astype(np.int32),
            ranks=self.ranks.cpu().numpy().astype(np.int8),
            num_classes=np.int32(self.num_classes),
        )
        return write_atomic(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what :meth:`save` wrote; nothing is unpickled.

        Raises:
            InputError: missing, damaged, or something else.
        """
        try:
            require_archive(path, _LARGEST)
            with np.load(path, allow_pickle=False) as content:
                arrays = {name: content[name] for name in ("classes", "ranks", "num_classes")}
        except InputError:
            raise
        except Exception as error:  # a damaged archive can raise nearly anything
            raise InputError(f"{path} is not a file of class predictions: {error}") from error
        classes, ranks, num_classes = arrays.values()
        expected = f"expected integers `classes` and `ranks` [N, {KEPT}]"
        if not (
            all(a.dtype.kind == "i" for a in arrays.values())
            and classes.shape == ranks.shape == (len(classes), KEPT)
            and num_classes.shape == ()
        ):
            shapes = ", ".join(f"{k} {a.dtype}{list(a.shape)}" for k, a in arrays.items())
            raise InputError(f"{path}: {expected}, found {shapes}")
        found = cls(
            torch.from_numpy(classes.astype(np.int32)), torch.from_numpy(ranks.astype(np.int32)), int(num_classes)
        )
        found._check(path)
        return found

    def _check(self, path: Path) -> None:
        """No image may name a class twice, or claim better places than its classes can have."""
        none = self.classes == _NONE
        outside = (self.classes < _NONE) | (self.classes >= self.num_classes)
        if bool(outside.any()) or bool((none != (self.ranks == _NONE)).any()):
            raise InputError(f"{path}: a class or rank is out of range")
        # Sorted, the i-th leading class has i classes before it: its rank is at least i.
        ranks = self.ranks.masked_fill(none, KEPT).sort(1).values
        if bool((ranks < torch.arange(KEPT)).any()) or bool((ranks > KEPT).any()):
            raise InputError(f"{path}: more classes share the first places than there are places")
        ordered = self.classes.sort(1).values
        if bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != _NONE)).any()):
            raise InputError(f"{path}: an image names a class twice")


def agreement(one: Path, other: Path) -> float:
    """The share of images for which two files have the same first class.

    Raises:
        InputError: one of them is not such a file, or they are of different images or classes.
    """
    first, second = Predictions.load(one), Predictions.load(other)
    if (len(first.classes), first.num_classes) != (len(second.classes), second.num_classes):
        raise InputError(f"{one} and {other} are predictions of different data")
    return float((first.classes[:, 0] == second.classes[:, 0]).float().mean())
