"""Learning from a trained, real-valued network: knowledge distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor, nn

from onebit.backbones.conv import binarize_weights
from onebit.backbones.file_schema import network_schema
from onebit.backbones.registry import MODELS
from onebit.commons import guards
from onebit.commons.checkpoints import require_asked, require_fit, require_row, row_of
from onebit.commons.config_options import with_options
from onebit.commons.datasets import ImageFolder, get_dataset
from onebit.commons.engine import ROW, load_weights, read_foreign_checkpoint
from onebit.commons.errors import InputError
from onebit.commons.files import sha256_file

LOSSES = ("kl", "mse")
_PARTS = ("backbone.", "classifier.")


class Distillation:
    """A teacher and the distance of a student's logits from its.

    ``kl``: T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over the batch (Hinton et
    al., 2015, Section 2). With T = 1 and weight 1 it is ReActNet's distributional loss (Liu et al.,
    ECCV 2020, Section 4.3). ``mse``: mean squared difference of the logits (Ba and Caruana, 2014).

    Not a module: the teacher is no part of the student, its weights are in no checkpoint of it.

    Args:
        num_classes: the student's.
        load_from: the teacher's file: a checkpoint of this suite's classification, or any state
            dict with the names of our backbones (torchvision's ResNets have them) and
            ``classifier`` or ``fc``.
        backbone: name of the teacher's; a checkpoint says it itself.
        loss: ``kl`` or ``mse``.
        temperature: T of ``kl``.
        weight: share of this loss; the rest, 1 - weight, is the cross-entropy's.
        stem: of the teacher's backbone: the student's, since both see the same images.
        sha256: of the teacher's file, where it is known: another file is refused.
        dataset: the student's, where it is known: a checkpoint that knows other classes is refused.

    Attributes:
        about: backbone, file, sha256, dataset and recipe of the teacher, for a record.

    Raises:
        InputError: no such file, a teacher of other classes, or an argument out of range.
    """

    def __init__(
        self,
        num_classes: int,
        load_from: str | None,
        backbone: str | None = None,
        loss: str = "kl",
        temperature: float = 1.0,
        weight: float = 1.0,
        stem: str = "cifar",
        sha256: str | None = None,
        dataset: str | None = None,
    ) -> None:
        self.loss = guards.choice("distillation.loss", loss, LOSSES)
        self.weight = guards.number("distillation.weight", weight, above=0, most=1)
        self.temperature = guards.number("distillation.temperature", temperature, above=0)
        path = _file(load_from, backbone)
        digest = sha256_file(path)
        if sha256 and digest != sha256:
            raise InputError(f"teacher {path}: expected SHA-256 {sha256}, found {digest}")
        row, weights = _read(path)
        if row:
            require_asked(path, row, backbone=backbone or "")
        name = row["backbone"] if row else backbone
        if name is None:
            raise InputError(
                f"teacher {path} does not say its backbone: give distillation.teacher=NAME "
                f"distillation.checkpoint={path}"
            )
        self.about: dict[str, Any] = dict(backbone=name, file=path.name, sha256=digest)
        if row and dataset and _classes(row["dataset"]) != _classes(dataset):
            raise InputError(f"teacher {path} knows the classes of {row['dataset']}, not those of {dataset}")
        if row:
            self.about.update(dataset=row["dataset"], recipe=row["recipe"])
        classes = len(weights.get("classifier.bias", ()))
        if classes != num_classes:
            raise InputError(f"teacher {path} knows {classes or 'no'} classes, the student {num_classes}")
        # What building draws must not change how the student is initialized.
        with torch.random.fork_rng(devices=[]):
            with torch.device("meta"):
                require_fit(_build(name, row, num_classes, stem), weights, path)
            network = _build(name, row, num_classes, stem)
        load_weights(network, weights, path)
        if row and row.get("binarize") == "activations":  # of a stage before the last
            binarize_weights(network, False)
        self._network = network.eval().requires_grad_(False)

    def __deepcopy__(self, memo) -> Distillation:
        return self  # averaging copies the student; the teacher does not change

    def __call__(self, logits: Tensor, inputs: Tensor) -> Tensor:
        """The loss of a student's ``logits`` [N, classes] on ``inputs`` [N, 3, H, W], a scalar."""
        if next(self._network.parameters()).device != inputs.device:
            self._network.to(inputs.device)
        with torch.no_grad():
            wanted = self._network(inputs)
        if self.loss == "mse":
            return F.mse_loss(logits.float(), wanted.float())
        t = self.temperature
        student, wanted = (F.log_softmax(x.float() / t, 1) for x in (logits, wanted))
        return F.kl_div(student, wanted, log_target=True, reduction="batchmean") * t**2


def _classes(dataset: str) -> tuple:
    """The same for datasets that have the same classes, as releases of one do."""
    found = get_dataset(dataset, "classification")
    return found.board, found.kind == "drawn", found.name if isinstance(found, ImageFolder) else None


def _file(load_from: str | None, backbone: str | None) -> Path:
    if load_from is None:
        raise InputError(
            f"teacher {backbone}: expected its weights as distillation.checkpoint=FILE: a checkpoint "
            f"of `onebit train classification --backbone {backbone}`, or a state dict"
        )
    path = Path(load_from).expanduser()
    if not path.is_file():
        raise InputError(f"teacher: expected a checkpoint, found no file {path}")
    return path


def _read(path: Path) -> tuple[dict | None, dict[str, Tensor]]:
    """The row of a checkpoint, None if it is not this suite's; weights of backbone and classifier."""
    content, weights = read_foreign_checkpoint(path)
    if ROW not in content:
        own = {
            f"classifier.{k[3:]}" if k.startswith("fc.") else k if k.startswith(_PARTS) else f"backbone.{k}": v
            for k, v in weights.items()
        }
        return None, own
    row = row_of(content, path)
    require_row(path, row, "dataset", "recipe", "seed", "backbone")
    require_asked(f"teacher {path}", row, task="classification")
    return row, {k: v for k, v in weights.items() if k.startswith(_PARTS)}


def _build(name: str, row: dict | None, num_classes: int, stem: str) -> nn.Module:
    backbone = dict(type="onebit.create_backbone", name=name, out_indices=(3,), stem=stem)
    cfg = Config(dict(model=dict(type="onebit.ImageClassifier", num_classes=num_classes, backbone=backbone)))
    start = "model.backbone."
    network = row["cfg_options"].taken(network_schema(r"model\.backbone\."), below=start) if row else {}
    built = MODELS.build(with_options(cfg, network, free=(start,)).model)
    built.feature_losses = nn.ModuleList()
    return built
