"""The two MATLAB file formats in which CUHK03 comes, byte for byte reproducible."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np

_CREATED = b"Created on: Thu Jan  1 00:00:00 1970"


def release_mat(cells: Mapping[str, Sequence], testsets: Sequence[Sequence[tuple[int, int]]]) -> bytes:
    """The content of ``cuhk-03.mat``: a MATLAB 7.3 file, i.e. HDF5 behind a 512-byte header.

    MATLAB stores arrays in column-major order, so every HDF5 shape is the reverse of MATLAB's:
    an image of 128 x 64 x 3 is [3, 64, 128], a cell array of P x 10 is [10, P].

    Args:
        cells: ``detected`` and ``labeled``; each a list of camera pairs of lists of people of lists
            of ten uint8 images [height, width, 3], None where there is none.
        testsets: the twenty test sets of the old protocol, (camera pair, person), both from 1.
    """
    import h5py

    stream = io.BytesIO()
    # libver "earliest" and no times: the bytes depend on nothing but the content.
    with h5py.File(stream, "w", libver="earliest", userblock_size=512, track_order=False) as file:
        refs = file.create_group("#refs#")

        def store(value: np.ndarray, matlab_class: str) -> h5py.Reference:
            dataset = refs.create_dataset(f"r{len(refs):06d}", data=value, track_times=False)
            dataset.attrs["MATLAB_class"] = np.bytes_(matlab_class)
            return dataset.ref

        def cell(references: list, shape: tuple[int, ...]) -> np.ndarray:
            array = np.empty(len(references), dtype=h5py.ref_dtype)
            array[:] = references
            return array.reshape(shape)

        def store_top(name: str, references: list) -> None:
            value = cell(references, (1, len(references)))
            dataset = file.create_dataset(name, data=value, dtype=h5py.ref_dtype, track_times=False)
            dataset.attrs["MATLAB_class"] = np.bytes_("cell")

        nothing = store(np.zeros(2, np.uint64), "double")  # MATLAB's way to write []
        for kind, pairs in cells.items():
            references = []
            for people in pairs:
                images = [
                    nothing if image is None else store(image.transpose(2, 1, 0), "uint8")
                    for person in people
                    for image in person
                ]
                grid = cell(images, (len(people), 10)).T
                dataset = refs.create_dataset(f"r{len(refs):06d}", data=grid, dtype=h5py.ref_dtype, track_times=False)
                dataset.attrs["MATLAB_class"] = np.bytes_("cell")
                references.append(dataset.ref)
            store_top(kind, references)
        store_top("testsets", [store(np.array(t, float).T, "double") for t in testsets])
    content = bytearray(stream.getvalue())
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, " + _CREATED + b" HDF5 schema 1.00 ."
    content[:128] = header.ljust(124) + b"\x00\x02IM"
    return bytes(content)


def split_mat(
    names: Sequence[str],
    labels: Sequence[int],
    cameras: Sequence[int],
    train: np.ndarray,
    query: np.ndarray,
    gallery: np.ndarray,
) -> bytes:
    """The content of ``cuhk03_new_protocol_config_*.mat`` (Zhong et al., CVPR 2017).

    Args:
        names: file name of each image.
        labels: identity of each image, from 1.
        cameras: view of each image, 1 or 2.
        train, query, gallery: boolean masks over the images.
    """
    from scipy.io import savemat

    def column(values) -> np.ndarray:
        return np.asarray(values, np.uint16).reshape(-1, 1)

    stream = io.BytesIO()
    filelist = np.empty((len(names), 1), dtype=object)
    filelist[:, 0] = names
    savemat(
        stream,
        {
            "camId": column(cameras),
            "filelist": filelist,
            "gallery_idx": column(np.flatnonzero(gallery) + 1),
            "labels": column(labels),
            "query_idx": column(np.flatnonzero(query) + 1),
            "train_idx": column(np.flatnonzero(train) + 1),
        },
    )
    content = bytearray(stream.getvalue())
    # The first 116 bytes are free text, into which scipy writes the time.
    content[:116] = (b"MATLAB 5.0 MAT-file, Platform: GLNXA64, " + _CREATED).ljust(116)
    return bytes(content)
