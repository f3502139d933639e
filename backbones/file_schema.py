"""What a file may say of a backbone: see :mod:`onebit.commons.file_options`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onebit.backbones.cells.genotype import Genotype
from onebit.commons.file_options import Kind, Schema, quantity, up_to, word


def _genotype(field: str, value: Any) -> None:
    Genotype.from_dict(value)


#: Arguments of networks that are names; each network looks them up among what is registered or ships.
_NAMES = "name|stem|binarizer|arch|cell|macro|structure|node_combination|binarize_preprocess|binarize_depthwise"


def network_kinds(prefix: str = "") -> dict[str, Kind]:
    """Kinds of the arguments of networks, whose names begin with ``prefix`` (a pattern).

    Numbers and switches are those of any network, another package's, too: it checks them itself.
    """
    return {rf"{prefix}({_NAMES})": word, rf"{prefix}layers": up_to(256), rf"{prefix}[a-z]\w*": quantity}


def network_wholes(prefix: str = "") -> dict[str, Kind]:
    """A cell that is given as a genotype."""
    return {rf"{prefix}(arch|cell)": _genotype}


def network_schema(prefix: str = "") -> Schema:
    return Schema(network_kinds(prefix), network_wholes(prefix), unused=(rf"{prefix}init_cfg\b",))


def named_backbone(row: Mapping[str, Any], **options: Any) -> tuple[str, dict[str, Any]]:
    """A checkpoint's backbone: its name, and ``options`` with what the row changed of its config over them.

    Raises:
        InputError: an option that no file may set.
    """
    from mmengine.config import Config

    start = "model.backbone."
    cfg = Config(dict(model=dict(backbone=dict(name=row["backbone"], **options))))
    cfg.merge_from_dict(dict(row["cfg_options"].taken(network_schema(r"model\.backbone\."), below=start)))
    found = cfg.model.backbone.to_dict()
    found.pop("init_cfg", None)  # where training began; the weights are the checkpoint's
    return found.pop("name"), found
