"""Macro-architectures of cell networks: how many cells, how wide, and how they are built.

Names of cell networks are read here: a macro-architecture, then its size or a width, a number of
cells, and a binarizer, each of them optional where there is a default: ``dcp_nas_s``,
``cp_nas_c16_l6_reactnet``, ``bnas_real``. In the place of a macro-architecture may stand a cell, by
the path of its file or by its name if a search of ours found it and it ships; its network is
built by the rules of ``dcp_nas``: ``cell.json``, ``runs/cell.json_c8_l6``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onebit.backbones.binarization import BINARIZERS
from onebit.backbones.cells import list_cells
from onebit.commons.errors import InputError

#: In place of a binarizer: the one that the macro-architecture's paper uses.
DEFAULT = "default"
#: The suffix of the real-valued twins.
REAL = "real"


@dataclass(frozen=True)
class Macro:
    """The rules of a macro-architecture.

    Attributes:
        source: the paper and the section that states them.
        cell: a cell that ships, the paper's own or, if ``own_cell`` is False, a stand-in.
        layers: number of cells.
        channels: width C of the first cells, unless a size or a width is named.
        sizes: named widths; where there are any, a name has to have a size or a width.
        further: more names to list, parts behind the macro-architecture's.
        binarizer: a name, or None for a real-valued network.
        structure, node_combination, binarize_preprocess, binarize_depthwise: see
            :class:`onebit.backbones.CellNet`.
    """

    source: str
    cell: str
    layers: int
    channels: int
    own_cell: bool = True
    sizes: Mapping[str, int] = field(default_factory=dict)
    further: tuple[str, ...] = ()
    binarizer: str | None = "mcn"
    structure: str = "onebit"
    node_combination: str = "concatenate"
    binarize_preprocess: str = "weights"
    binarize_depthwise: str = "weights"


MACROS = {
    "dcp_nas": Macro(
        source="DCP-NAS, section 4.1",
        cell="dcp_nas_imagenet",
        layers=10,
        channels=54,
        sizes={"s": 54, "m": 72, "l": 108},
    ),
    # Width 102 is the network for ImageNet. The cell was not published.
    "cp_nas": Macro(
        source="CP-NAS, section 3.1",
        cell="dcp_nas_imagenet",
        own_cell=False,
        layers=10,
        channels=56,
        sizes={"s": 56, "m": 72, "l": 112},
        further=("c102",),
    ),
    # The networks for CIFAR-10; 44 and 48 channels are the "larger" ones. The cell was not published.
    "bnas": Macro(
        source="BNAS, section 4.1",
        cell="dcp_nas_imagenet",
        own_cell=False,
        binarizer="bnasxnorw1a32",
        layers=20,
        channels=36,
        further=("c44", "c48"),
        binarize_preprocess="both",
        binarize_depthwise="both",
    ),
    # The network for ImageNet: preprocessing and depthwise convolutions real-valued, nodes summed.
    "bnas_imagenet": Macro(
        source="BNAS, sections 4.1 and 4.3",
        cell="dcp_nas_imagenet",
        own_cell=False,
        binarizer="bnasxnorw1a32",
        layers=14,
        channels=64,
        node_combination="sum",
        binarize_preprocess="none",
        binarize_depthwise="none",
    ),
    "darts_v2": Macro(
        source="Liu et al., DARTS, ICLR 2019, appendix A",
        cell="darts_v2",
        layers=20,
        channels=36,
        further=("c48_l14",),  # for ImageNet
        binarizer=None,
        structure="darts",
    ),
    "pc_darts_cifar": Macro(
        source="Xu et al., PC-DARTS, ICLR 2020, section 4.2",
        cell="pc_darts_cifar",
        layers=20,
        channels=36,
        binarizer=None,
        structure="darts",
    ),
    "pc_darts_imagenet": Macro(
        source="Xu et al., PC-DARTS, ICLR 2020, section 4.3",
        cell="pc_darts_imagenet",
        layers=14,
        channels=48,
        binarizer=None,
        structure="darts",
    ),
}

_ARCH = re.compile(
    rf"(?P<macro>{'|'.join(sorted(MACROS, key=len, reverse=True))})"
    r"(?:_(?:(?P<size>[sml])|c(?P<channels>[1-9]\d*)))?"
)
_NAME = re.compile(rf"(?P<arch>{_ARCH.pattern})(?:_l(?P<layers>[1-9]\d*))?(?:_(?P<binarizer>[a-z][a-z0-9]*))?")
#: By whose rules the network of a cell is built that is named by itself.
CELL_MACRO = "dcp_nas"
_CELL_FILE = re.compile(r".*\.json(?=_)")
_CELL_SUFFIX = re.compile(
    r"(?:_(?:(?P<size>[sml])|c(?P<channels>[1-9]\d*)))?"
    r"(?:_l(?P<layers>[1-9]\d*))?(?:_(?P<binarizer>[a-z][a-z0-9]*))?"
)


@dataclass(frozen=True)
class Arch:
    """A macro-architecture with a width."""

    macro: Macro
    channels: int


def parse_arch(text: str) -> Arch:
    """Read a macro-architecture's name with its size or width.

    Raises:
        InputError: it is none.
    """
    match = _ARCH.fullmatch(text)
    arch = None if match is None else _arch(match)
    if arch is None:
        names = [f"{name}_{size}" for name, macro in MACROS.items() for size in macro.sizes]
        names += [name for name, macro in MACROS.items() if not macro.sizes]
        raise InputError(
            f"arch {text!r}: expected {', '.join(names)}, one of them with a width instead of the "
            "size (dcp_nas_c16), a Genotype, or the path of a genotype's .json file"
        )
    return arch


def _arch(match: re.Match) -> Arch | None:
    macro = MACROS[match["macro"]]
    if match["size"]:
        return Arch(macro, macro.sizes[match["size"]]) if macro.sizes else None
    if match["channels"]:
        return Arch(macro, int(match["channels"]))
    return None if macro.sizes else Arch(macro, macro.channels)


def parse_name(name: str) -> dict | None:
    """A backbone's name as arguments of ``CellNet``; None if it is of another family."""
    if name.endswith(".json"):
        return dict(arch=name)
    match = _NAME.fullmatch(name)
    if match is None:
        return _parse_cell_name(name)
    arch = _arch(match)
    if arch is None or match["binarizer"] not in (None, *_suffixes(arch.macro)):
        return None
    arguments: dict[str, Any] = dict(arch=match["arch"])
    if match["layers"]:
        arguments["layers"] = int(match["layers"])
    if match["binarizer"]:
        arguments["binarizer"] = None if match["binarizer"] == REAL else match["binarizer"]
    return arguments


def own_cells() -> list[str]:
    """Cells that ship and that no macro-architecture is named after: those of our own searches."""
    known = {*MACROS, *(macro.cell for macro in MACROS.values())}
    return [cell for cell in list_cells() if cell not in known]


def _parse_cell_name(name: str) -> dict | None:
    """The same for a name that begins with a cell."""
    for cell in (*sorted(own_cells(), key=len, reverse=True), *_CELL_FILE.findall(name)):
        match = _CELL_SUFFIX.fullmatch(name.removeprefix(cell)) if name.startswith(cell) else None
        if match is None or match["binarizer"] not in (None, *_suffixes(MACROS[CELL_MACRO])):
            continue
        sizes = MACROS[CELL_MACRO].sizes
        channels = int(match["channels"]) if match["channels"] else sizes.get(match["size"])
        arguments = dict(cell=cell, channels=channels, layers=match["layers"] and int(match["layers"]))
        arguments = {key: value for key, value in arguments.items() if value is not None}
        if match["binarizer"]:
            arguments["binarizer"] = None if match["binarizer"] == REAL else match["binarizer"]
        return arguments
    return None


def _suffixes(macro: Macro) -> list[str]:
    """A real-valued macro-architecture is its own real-valued twin."""
    return [*BINARIZERS, *([REAL] if macro.binarizer else [])]


def list_names() -> list[str]:
    """Every macro-architecture in full, and a narrow one with every binarizer."""
    names = []
    for name, macro in MACROS.items():
        names += [f"{name}_{size}" for size in macro.sizes] or [name]
        names += [f"{name}_{part}" for part in macro.further]
        narrow = [f"{name}_c16", f"{name}_c8"] if name == "dcp_nas" else [f"{name}_c8_l6"]
        suffixes = [suffix for suffix in _suffixes(macro) if suffix != macro.binarizer]
        names += [*narrow, *(f"{narrow[-1]}_{suffix}" for suffix in suffixes)]
    for cell in own_cells():
        names += [*(f"{cell}_{size}" for size in MACROS[CELL_MACRO].sizes), f"{cell}_c8_l6"]
    return names
