"""Features of a folder of images by a trained network: what re-identification is used for."""

from __future__ import annotations

from pathlib import Path

import torch

from onebit.commons.engine import plain_errors
from onebit.commons.errors import InputError
from onebit.commons.files import sha256_file
from onebit.commons.images import read_image
from onebit.reid.checkpoint import load_checkpoint
from onebit.reid.features import Features, extract, relative_names, save
from onebit.reid.recipe import saved_config
from onebit.reid.runner import trained_model
from onebit.reid.torchreid_adapter import test_transform

#: File name endings that are taken for images.
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


class _Folder(torch.utils.data.Dataset):
    """Images as torchreid's loaders give them for testing."""

    def __init__(self, paths: list[Path], height: int, width: int) -> None:
        self.paths = [str(path) for path in paths]
        self.transform = test_transform(height, width)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        path = self.paths[index]
        return {"img": self.transform(read_image(path)), "impath": path}


def features_of_folder(checkpoint: Path, images: Path, out: Path, batch_size: int = 64, workers: int = 0) -> Features:
    """Run a checkpoint over all images below a folder and save the features.

    Images are read, resized and normalized as for testing the row that the checkpoint is of, and
    sorted by their name relative to ``images``.

    Args:
        checkpoint: of :func:`onebit.reid.runner.train`.
        images: a folder; folders below it are looked into.
        out: the ``.safetensors`` file; see :mod:`onebit.reid.features`, its group is ``images``.
        batch_size: images at a time.
        workers: processes that read images; 0 reads them in this one.

    Returns:
        what was saved.

    Raises:
        InputError: not such a checkpoint, no folder, no images, an image that cannot be read, or
            another ending of ``out``.
        WorkError: a feature is not finite, or the file cannot be written.
    """
    checkpoint, images, out = Path(checkpoint), Path(images), Path(out)
    if out.suffix != ".safetensors":
        raise InputError(f"features are written as safetensors: expected FILE.safetensors, found {out}")
    if out.is_dir():
        raise InputError(f"expected a file to write features to, found the folder {out}")
    paths = image_paths(images)
    state = load_checkpoint(checkpoint)
    cfg, _ = saved_config(state["config"], checkpoint)
    model = trained_model(cfg, state, checkpoint)
    loader = torch.utils.data.DataLoader(
        _Folder(paths, cfg.height, cfg.width), batch_size=batch_size, num_workers=workers
    )
    with plain_errors(out.parent):
        found = extract(model, loader, "images", cfg.flip_features)
    features = Features(found["features"], relative_names(found["impath"], images))
    facts = dict(
        backbone=cfg.backbone,
        dataset=cfg.dataset,
        epochs=len(state["losses"]),
        height=cfg.height,
        width=cfg.width,
        flip_features=cfg.flip_features,
        checkpoint=checkpoint.name,
        checkpoint_sha256=sha256_file(checkpoint),
    )
    save(out, dict(images=features), facts)
    return features


def image_paths(folder: Path) -> list[Path]:
    """All images below ``folder``, sorted by their relative name.

    Raises:
        InputError: no such folder, or no images in it.
    """
    if not folder.is_dir():
        raise InputError(f"expected a folder of images, found no folder {folder}")
    found = [p for p in folder.rglob("*") if p.suffix.lower() in IMAGES and p.is_file()]
    if not found:
        raise InputError(f"expected images ({', '.join(IMAGES)}) below {folder}, found none")
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())
