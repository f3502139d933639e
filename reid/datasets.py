"""torchreid's own readers of the datasets, behind checks.

torchreid downloads Market-1501 and DukeMTMC-reID when their folder is missing, reads images in an
endless loop until it succeeds, takes the order of the file system for the order of the images, and
can leave CUHK03 half extracted. The subclasses here do none of that; the reading is torchreid's.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scipy.io.matlab import MatReadError

from onebit.commons.datasets import get_dataset, resolve_code
from onebit.commons.errors import InputError, WorkError
from onebit.commons.files import dataset_checksum, disk_error_message, write_atomic
from onebit.commons.images import read_image
from onebit.reid.torchreid_adapter import CUHK03, MSMT17, DukeMTMCreID, ImageDataset, Market1501, register_dataset

#: What torchreid, h5py and scipy raise over a .mat file that holds something else.
_LAYOUT_ERRORS = (KeyError, IndexError, TypeError, ValueError, AttributeError, AssertionError, MatReadError)

_MARKET_NAME = re.compile(r"(-1|\d{4})_c([1-6])s\d+_\d+_\d+\.jpg")
_DUKE_NAME = re.compile(r"(\d{4})_c([1-8])_f\d+\.jpg")
#: ``0000/0000_000_01_0303morning_0015_0.jpg 0``: folder and identity, number, camera, ...
_MSMT_LINE = re.compile(r"(\d{4}/\d{4}_\d{3}_(\d{2})_\S+\.jpg) (\d+)")


def torchreid_root(dataset: str, data_root: str | os.PathLike) -> tuple[str, Path]:
    """Check that ``dataset`` is there; say how torchreid is to be asked for it.

    Args:
        dataset: a re-ID dataset of :data:`onebit.commons.datasets.DATASETS`.
        data_root: the folder below which it is looked for.

    Returns:
        the name for ``ImageDataManager(sources=...)``, and its ``root``.

    Raises:
        InputError: unknown or of another task, missing or incomplete. Nothing is ever downloaded.
    """
    entry = get_dataset(dataset, task="reid")
    name = f"onebit_{entry.name}"
    register_dataset(name, resolve_code(entry.reader))
    return name, entry.find(data_root)


class Checked:
    """What the readers share. Goes before torchreid's class among the bases.

    Attributes:
        counts: images of the dataset that are no queries' matches and not trained on, by kind.
    """

    @property
    def counts(self) -> dict[str, int]:
        return {}

    def download_dataset(self, dataset_dir: str, dataset_url: str | None) -> None:
        """Raise InputError where torchreid would download."""
        if not os.path.isdir(dataset_dir):
            raise InputError(f"dataset not found: expected the folder {dataset_dir}; nothing is downloaded for you")

    def check_before_run(self, required_files: str | list[str]) -> None:
        """Raise InputError for the first file or folder that is missing."""
        for path in [required_files] if isinstance(required_files, str) else required_files:
            if not os.path.exists(path):
                raise InputError(f"dataset is incomplete: expected {path}")

    def __getitem__(self, index: int) -> dict:
        """torchreid's item; an image that cannot be decoded raises InputError."""
        path, pid, camera, dataset_id = self.data[index]
        image = read_image(path)
        if self.transform is not None:
            image = self._transform_image(self.transform, self.k_tfm, image)
        return {"img": image, "pid": pid, "camid": camera, "impath": path, "dsetid": dataset_id}


def _refuse_shared(train: Iterable, test: Iterable, where: str) -> None:
    """Raise InputError where an identity is both trained on and tested on."""
    shared = sorted(set(train) & set(test))
    if shared:
        names = ", ".join(map(str, shared[:5])) + (", ..." if len(shared) > 5 else "")
        raise InputError(
            f"expected training and test identities to be disjoint, found {len(shared)} in both of {where}: {names}"
        )


class _FileNames(Checked):
    """Market and Duke: identity and camera are in the file name."""

    file_name: re.Pattern
    example: str
    #: Identity of boxes that show none of the people, allowed in the gallery only.
    distractor: int | None = None

    def __init__(self, root: str = "", **kwargs) -> None:
        self._people: dict[str, list[int]] = {}
        super().__init__(root, **kwargs)
        train, query, gallery = (self._people[folder] for folder in (self.train_dir, self.query_dir, self.gallery_dir))
        _refuse_shared(train, {*query, *gallery} - {-1, self.distractor}, self.dataset_dir)
        for folder in (self.train_dir, self.query_dir):
            if self.distractor in self._people[folder]:
                raise InputError(
                    f"expected distractors ({self.distractor:04d}) in the gallery only, found one in {folder}"
                )

    @property
    def counts(self) -> dict[str, int]:
        """Junk (-1), which is left out, and distractors (0000), which stay in the gallery."""
        if self.distractor is None:
            return {}
        everybody = [pid for pids in self._people.values() for pid in pids]
        return dict(junk_left_out=everybody.count(-1), distractors=everybody.count(self.distractor))

    def process_dir(self, dir_path: str, relabel: bool = False) -> list[tuple[str, int, int]]:
        """torchreid's list of (path, identity, camera), in the order of the file names.

        Raises:
            InputError: a name does not parse, a link leads nowhere, or there are no images.
        """
        paths = sorted(Path(dir_path).glob("*.jpg"))
        names = [self.file_name.fullmatch(path.name) for path in paths]
        for path, name in zip(paths, names, strict=True):
            if not name:
                raise InputError(f"expected a file name like {self.example}, found {path}")
            if not path.is_file():
                raise InputError(f"expected an image, found a link that leads nowhere: {path}")
        self._people[dir_path] = [int(name[1]) for name in names]
        try:
            images = sorted(super().process_dir(dir_path, relabel=False))
        except AssertionError as error:  # it knows how many identities and cameras there are
            raise InputError(
                f"a file name in {dir_path} has an identity or camera that the dataset does not have"
            ) from error
        if not images:
            raise InputError(f"expected images like {self.example} in {dir_path}, found none")
        for path, pid, camera in images:
            # torchreid searches the whole path: a folder such as `7_c1` would win over the name.
            name = self.file_name.fullmatch(os.path.basename(path))
            if (pid, camera) != (int(name[1]), int(name[2]) - 1):
                raise InputError(
                    f"torchreid takes part of the folder name for identity and camera: {path}; "
                    f"rename or link the folder so that nothing in it looks like `1_c1`"
                )
        if relabel:  # in ascending order; torchreid's own follows the order of the file system
            labels = {pid: i for i, pid in enumerate(sorted({pid for _, pid, _ in images}))}
            images = [(path, labels[pid], camera) for path, pid, camera in images]
        return images


class CheckedMarket1501(_FileNames, Market1501):
    """Market-1501; junk (-1) is left out, distractors (0000) stay in the gallery; both counted."""

    file_name = _MARKET_NAME
    example = "0001_c1s1_000151_01.jpg"
    distractor = 0


class CheckedDukeMTMCreID(_FileNames, DukeMTMCreID):
    """DukeMTMC-reID, where the user already keeps it."""

    file_name = _DUKE_NAME
    example = "0005_c2_f0046985.jpg"


class OwnPeople(Checked, ImageDataset):
    """People of one's own, as :mod:`onebit.commons.datasets.own.pictures` lists them.

    Identities are numbered by their names in alphabetical order, those that are trained on first; so are cameras.
    Without cameras all pictures have camera 0.
    """

    def __init__(self, root: str = "", **kwargs) -> None:
        folder = Path(os.path.abspath(root))
        listed = json.loads((folder / "pictures.json").read_bytes())
        people = sorted({(part != "train", label) for _, label, _, part in listed})
        numbers = {label: number for number, (_, label) in enumerate(people)}
        cameras = {name: number for number, name in enumerate(sorted({camera for *_, camera, _ in listed}, key=str))}
        parts: dict[str, list[tuple[str, int, int]]] = {"train": [], "query": [], "gallery": []}
        for path, label, camera, part in listed:
            parts[part].append((str(folder / path), numbers[label], cameras[camera]))
        super().__init__(parts["train"], parts["query"], parts["gallery"], **kwargs)


class CheckedMSMT17(Checked, MSMT17):
    """MSMT17, first version (``MSMT17_V1``).

    Training and test identities are numbered separately, each from 0: whether somebody is in both
    cannot be told from the files.
    """

    def process_dir(self, dir_path: str, list_path: str) -> list[tuple[str, int, int]]:
        """torchreid's list of (path, identity, camera).

        Raises:
            InputError: a line does not parse, or an image is missing.
        """
        if not os.path.isfile(list_path):
            raise InputError(f"dataset is incomplete: expected {list_path}")
        lines = Path(list_path).read_text().splitlines()
        if not lines:
            raise InputError(f"expected a list of images, found nothing in {list_path}")
        for number, line in enumerate(lines, start=1):
            name = _MSMT_LINE.fullmatch(line)
            if not name or int(name[2]) < 1:
                raise InputError(
                    f"expected a line like `0000/0000_000_01_0303morning_0015_0.jpg 0`, found "
                    f"{line!r} ({list_path}, line {number})"
                )
            if not os.path.isfile(os.path.join(dir_path, name[1])):
                raise InputError(
                    f"expected the image {os.path.join(dir_path, name[1])}, which {list_path} names in line {number}"
                )
        return super().process_dir(dir_path, list_path)


class CheckedCUHK03(Checked, CUHK03):
    """CUHK03 under the new protocol.

    torchreid writes every image of ``cuhk-03.mat`` to a PNG file once, below the dataset's folder.
    Here that happens in a folder which gets its name, ``extracted``, only when it is complete. It
    is made again when the .mat files are no longer the ones it came from.
    """

    def __init__(self, root: str = "", split_id: int = 0, **kwargs) -> None:
        splits = 20 if kwargs.get("cuhk03_classic_split") else 1
        if split_id not in range(splits):
            raise InputError(f"split_id {split_id}: CUHK03 has 20 classic splits, counted from 0, and one new one")
        super().__init__(root, split_id, **kwargs)
        if not self.train or not self.query or not self.gallery:
            raise InputError(f"empty training set, query or gallery in {self.split_new_det_mat_path}")
        # torchreid numbers training identities anew: the names of the images say who they are.
        people = ({os.path.basename(path)[:5] for path, *_ in p} for p in (self.train, self.query + self.gallery))
        _refuse_shared(*people, self.dataset_dir)
        # The split files hold the absolute paths of the folder they were first written in.
        for images in (self.train, self.query, self.gallery):
            images[:] = [(self._current(path), *rest) for path, *rest in images]

    def _current(self, path: str) -> str:
        folder, name = os.path.split(path)
        current = os.path.join(self.dataset_dir, "extracted", os.path.basename(folder), name)
        if not os.path.exists(current):
            raise InputError(
                f"the split names an image that {self.raw_mat_path} does not have, or that was "
                f"removed from {os.path.dirname(current)}: {name}. Remove "
                f"{os.path.join(self.dataset_dir, 'extracted')} to have the images extracted again"
            )
        return current

    def preprocess_split(self) -> None:
        """Extract once, whole or not at all.

        Raises:
            InputError: the .mat files are not laid out as CUHK03's, or the folder is read-only.
            WorkError: the disk is full.
        """
        final = Path(self.dataset_dir) / "extracted"
        sources = [Path(p) for p in (self.raw_mat_path, self.split_new_det_mat_path, self.split_new_lab_mat_path)]
        stamp = dataset_checksum(sources, Path(self.dataset_dir))
        if not _is_extracted(final, stamp):
            try:
                with _locked(final.with_name(".extract.lock")):
                    if not _is_extracted(final, stamp):  # another process may have been faster
                        self._extract(final, stamp)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise InputError(
                        f"CUHK03's images have to be extracted once to {final}, but the folder "
                        f"cannot be written: make it writable or copy the dataset"
                    ) from error
                raise WorkError(disk_error_message(error, final)) from error
        self._use(final)

    def _extract(self, final: Path, stamp: str) -> None:
        temporary = final.with_name(".extracting")
        shutil.rmtree(temporary, ignore_errors=True)  # of an interrupted run; we hold the lock
        try:
            temporary.mkdir()
            self._use(temporary)
            try:
                super().preprocess_split()
            except OSError as error:
                # h5py reports a file that is not HDF5 as an OSError without an error number.
                if error.errno is not None and error.errno != errno.ENOENT:
                    raise
                raise self._wrong_layout(error) from error
            except _LAYOUT_ERRORS as error:
                raise self._wrong_layout(error) from error
            write_atomic(temporary / "source.txt", stamp)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _wrong_layout(self, error: Exception) -> InputError:
        return InputError(
            f"expected {self.raw_mat_path} (MATLAB 7.3) with `detected`, `labeled` and `testsets`, and "
            f"{self.split_new_det_mat_path} with `train_idx`, `query_idx`, `gallery_idx`, `labels` and "
            f"`filelist`; found another layout ({type(error).__name__}: {error})"
        )

    def _use(self, folder: Path) -> None:
        """Let torchreid's code read and write below ``folder``."""
        self.imgs_detected_dir = str(folder / "images_detected")
        self.imgs_labeled_dir = str(folder / "images_labeled")
        self.split_classic_det_json_path = str(folder / "splits_classic_detected.json")
        self.split_classic_lab_json_path = str(folder / "splits_classic_labeled.json")
        self.split_new_det_json_path = str(folder / "splits_new_detected.json")
        self.split_new_lab_json_path = str(folder / "splits_new_labeled.json")


def _is_extracted(folder: Path, stamp: str) -> bool:
    source = folder / "source.txt"
    return source.exists() and source.read_text() == stamp


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold ``path`` locked: two processes must not extract the same dataset at once."""
    with open(path, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
