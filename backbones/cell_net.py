"""Networks of searched 1-bit cells: the evaluation networks of DCP-NAS and of our own searches."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from backbones.backbone import Backbone, check_choice
from backbones.binarization import BINARIZERS, Binarizer, get_binarizer
from backbones.cell_ops import CellStyle, Halve, Preprocess, operation
from backbones.cells import load_cell
from backbones.genotype import INPUT_NODES, INTERMEDIATE_NODES, Edge, Genotype
from backbones.registry import MODELS, Family, register_family
from commons.errors import InputError

#: Width C of the evaluation networks, DCP-NAS paper, section 4.1.
WIDTHS = {"s": 54, "m": 72, "l": 108}
#: Cells of an evaluation network.
LAYERS = 10


class Cell(nn.Module):
    """One cell: preprocessing of its two inputs, then four nodes that sum their incoming edges.

    Args:
        nodes: the incoming edges of each intermediate node.
        older_channels, newer_channels: of the outputs of the cell before the last and of the last.
        channels: of every node; the output has four times as many.
        reduction: the edges from the input nodes have stride 2.
        halve_older: the older input is twice as high and wide as the newer one.
    """

    def __init__(
        self,
        nodes: Sequence[Sequence[Edge]],
        older_channels: int,
        newer_channels: int,
        channels: int,
        reduction: bool,
        halve_older: bool,
        style: CellStyle,
    ) -> None:
        super().__init__()
        fit_older = Halve if halve_older else Preprocess
        self.preprocess_older = fit_older(older_channels, channels, style)
        self.preprocess_newer = Preprocess(newer_channels, channels, style)
        self.nodes = nn.ModuleList()
        for edges in nodes:
            self.nodes.append(
                nn.ModuleDict(
                    {
                        f"from{source}": operation(
                            name, channels, 2 if reduction and source < INPUT_NODES else 1, style
                        )
                        for name, source in edges
                    }
                )
            )
        self.sources = [[source for _, source in edges] for edges in nodes]

    def forward(self, older: Tensor, newer: Tensor) -> Tensor:
        """Two maps [N, C_i, H_i, W_i] to one of 4 ``channels`` channels, halved by a reduction."""
        states = [self.preprocess_older(older), self.preprocess_newer(newer)]
        for sources, edges in zip(self.sources, self.nodes, strict=True):
            incoming = (edges[f"from{source}"](states[source]) for source in sources)
            states.append(reduce(torch.add, incoming))
        return torch.cat(states[INPUT_NODES:], dim=1)


@MODELS.register_module()
class CellNet(Backbone):
    """A network of 1-bit cells as a backbone.

    Cells at the positions floor(L/3) and floor(2L/3) of L, counted from 0, are reduction cells and
    double the width C. The stem, batch norms and PReLUs are real-valued. Scales, with ``stem`` set
    to ``imagenet``: the stem after two of its three stride-2 convolutions (stride 4, C channels),
    the last cell before the first reduction (8, 4C), the last before the second (16, 8C) and the
    last cell (32, 16C). With ``cifar`` the stem is one 3x3 convolution to 3C channels, and the
    strides are 1, 1, 2 and 4 with 3C, 4C, 8C and 16C channels.

    Args:
        arch: a name (``dcp_nas_s``, ``dcp_nas_m``, ``dcp_nas_l``, or ``dcp_nas_c16`` for C = 16),
            a :class:`Genotype`, what :meth:`Genotype.to_dict` gives, or the path of a genotype's
            JSON file.
        channels: C, an even number; by default that of ``arch``, or 54 (S) for a genotype.
        layers: L, at least 3.
        stem: ``imagenet`` or ``cifar``.
        shortcut: add its input to the output of a stride-1 separable or dilated block.
        binarizer: of the 1-bit convolutions, a name or a :class:`Binarizer`; None makes the whole
            network real-valued. The papers use MCN.
        out_indices: the scales to return, ascending. Cells after the last one are not built.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and what the first k scales need
            (for 1 that is the stem again): no gradients, batch norm in eval mode.
        norm_eval: keep every batch norm in eval mode during training.
        init_cfg: mmengine's, e.g. ``dict(type='Pretrained', checkpoint=...)``.

    Attributes:
        genotype: the cell.
        feature_channels, feature_strides: of the returned maps, one per out_index.

    Raises:
        InputError: an argument out of range, or a genotype that cannot be read.
    """

    def __init__(
        self,
        arch: str | os.PathLike | Genotype | Mapping = "dcp_nas_s",
        channels: int | None = None,
        layers: int = LAYERS,
        stem: str = "imagenet",
        shortcut: bool = True,
        binarizer: str | Binarizer | None = "mcn",
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(4, out_indices, frozen_stages, norm_eval, init_cfg)
        check_choice("stem", stem, ("imagenet", "cifar"))
        self.genotype, width = _resolve(arch)
        channels = width if channels is None else channels
        if (
            isinstance(channels, bool)
            or not isinstance(channels, int)
            or channels < 2
            or channels % 2
        ):
            raise InputError(f"channels {channels!r}: expected a positive even number")
        if isinstance(layers, bool) or not isinstance(layers, int) or layers < 3:
            raise InputError(f"layers {layers!r}: expected a number of cells of at least 3")
        style = CellStyle(None if binarizer is None else get_binarizer(binarizer), shortcut)

        self.stem = stem_layers(stem, channels)
        reductions = (layers // 3, 2 * layers // 3)
        # The index of the last cell of each scale but the stem's.
        self.last_cells = (reductions[0] - 1, reductions[1] - 1, layers - 1)
        built = 0 if self.out_indices == (0,) else self.last_cells[self.out_indices[-1] - 1] + 1
        cells = []
        stem_channels = channels if stem == "imagenet" else 3 * channels
        older = newer = stem_channels
        width, halve_older = channels, stem == "imagenet"
        for position in range(built):
            reduction = position in reductions
            width *= 2 if reduction else 1
            nodes = self.genotype.reduce if reduction else self.genotype.normal
            cells.append(Cell(nodes, older, newer, width, reduction, halve_older, style))
            older, newer = newer, INTERMEDIATE_NODES * width
            halve_older = reduction
        self.cells = nn.ModuleList(cells)
        if not cells:
            del self.stem[1]

        all_channels = (stem_channels, 4 * channels, 8 * channels, 16 * channels)
        all_strides = (4, 8, 16, 32) if stem == "imagenet" else (1, 1, 2, 4)
        self.feature_channels = tuple(all_channels[i] for i in self.out_indices)
        self.feature_strides = tuple(all_strides[i] for i in self.out_indices)
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images [N, 3, H, W] to one map [N, C_i, ceil(H / s_i), ceil(W / s_i)] per out_index."""
        if x.device.type == "cpu":  # narrow and depthwise convolutions are several times faster so
            x = x.contiguous(memory_format=torch.channels_last)
        older = self.stem[0](x)
        scales = {0: older}
        newer = self.stem[1](older) if self.cells else older
        for position, cell in enumerate(self.cells):
            older, newer = newer, cell(older, newer)
            if position in self.last_cells:
                scales[1 + self.last_cells.index(position)] = newer
        return tuple(scales[i] for i in self.out_indices)

    def frozen_modules(self, stages: int) -> list[nn.Module]:
        last = self.last_cells[stages - 2] + 1 if stages > 1 else 0
        return [self.stem, *self.cells[:last]]


def stem_layers(stem: str, channels: int) -> nn.ModuleList:
    """The stem in two parts, whose outputs are the first cell's older and newer input.

    ``imagenet``: 3x3 stride-2 convolutions from 3 to C/2 to C channels, and a third one from C to
    C; BN after each, ReLU between. ``cifar``: one 3x3 convolution to 3C, BN; the second part passes
    it on.
    """

    def conv_bn(in_channels: int, out_channels: int, stride: int) -> list[nn.Module]:
        conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        return [conv, nn.BatchNorm2d(out_channels)]

    if stem == "imagenet":
        half = channels // 2
        first = [*conv_bn(3, half, 2), nn.ReLU(inplace=True), *conv_bn(half, channels, 2)]
        second = [nn.ReLU(), *conv_bn(channels, channels, 2)]  # not in place: a scale is its input
    else:
        first, second = conv_bn(3, 3 * channels, 1), [nn.Identity()]
    layers = nn.ModuleList([nn.Sequential(*first), nn.Sequential(*second)])
    layers.cost_role = "stem"
    return layers


_NAME = re.compile(
    r"dcp_nas_(?:(?P<size>[sml])|c(?P<channels>[1-9]\d*))(?:_l(?P<layers>[1-9]\d*))?"
    r"(?:_(?P<binarizer>[a-z][a-z0-9]*))?"
)
#: The suffix of the real-valued twins.
_REAL = "real"


def _resolve(arch) -> tuple[Genotype, int]:
    """The genotype of ``arch`` and its default width."""
    if isinstance(arch, Genotype):
        return arch, WIDTHS["s"]
    if isinstance(arch, Mapping):
        return Genotype.from_dict(arch), WIDTHS["s"]
    if isinstance(arch, os.PathLike) or (isinstance(arch, str) and arch.endswith(".json")):
        return Genotype.load(arch), WIDTHS["s"]
    match = _NAME.fullmatch(arch) if isinstance(arch, str) else None
    if match is None or match["binarizer"] is not None or match["layers"] is not None:
        raise InputError(
            f"arch {arch!r}: expected dcp_nas_s, dcp_nas_m, dcp_nas_l, dcp_nas_cNN with a width NN, "
            "a Genotype, or the path of a genotype's .json file"
        )
    width = WIDTHS[match["size"]] if match["size"] else int(match["channels"])
    return load_cell("dcp_nas_imagenet"), width


def _parse(name: str) -> dict | None:
    if name.endswith(".json"):
        return dict(arch=name)
    match = _NAME.fullmatch(name)
    if match is None or match["binarizer"] not in (None, _REAL, *BINARIZERS):
        return None
    arguments = dict(arch=f"dcp_nas_{match['size'] or 'c' + match['channels']}")
    if match["layers"]:
        arguments["layers"] = int(match["layers"])
    if match["binarizer"]:
        arguments["binarizer"] = None if match["binarizer"] == _REAL else match["binarizer"]
    return arguments


def _names() -> list[str]:
    suffixes = [*(name for name in BINARIZERS if name != "mcn"), _REAL]
    sizes = [f"dcp_nas_{size}" for size in (*WIDTHS, "c16", "c8")]
    return [*sizes, *(f"dcp_nas_c8_{suffix}" for suffix in suffixes)]


register_family(Family(type="CellNet", names=_names, parse=_parse))
