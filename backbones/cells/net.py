"""Networks of searched cells: the evaluation networks of the papers and of our own searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, nn

from onebit.backbones.backbone import MOST_CHANNELS, Backbone
from onebit.backbones.binarization import Binarizer, get_binarizer
from onebit.backbones.capture import symbolic
from onebit.backbones.cells import CellSource, resolve_cell
from onebit.backbones.cells.darts_operations import DartsStyle
from onebit.backbones.cells.genotype import INPUT_NODES, INTERMEDIATE_NODES, Edge, Genotype
from onebit.backbones.cells.macros import DEFAULT, MACROS, Macro, list_names, parse_arch, parse_name
from onebit.backbones.cells.operations import BINARIZED, CellStyle
from onebit.backbones.conv import real_conv, set_role
from onebit.backbones.registry import MODELS, Family, register_family
from onebit.commons import guards
from onebit.commons.errors import InputError

#: How cells are built: of 1-bit operations, or of those of DARTS.
STRUCTURES = ("onebit", "darts")


class Cell(nn.Module):
    """One cell: preprocessing of its two inputs, then four nodes that sum their incoming edges.

    Args:
        nodes: the incoming edges of each intermediate node.
        older_channels, newer_channels: of the outputs of the cell before the last and of the last.
        channels: of every node; the output has four times as many, or as many if it is their sum.
        reduction: the edges from the input nodes have stride 2.
        halve_older: the older input is twice as high and wide as the newer one.
        style: builds the cell's parts.
        node_combination: ``concatenate`` or ``sum``.
    """

    def __init__(
        self,
        nodes: Sequence[Sequence[Edge]],
        older_channels: int,
        newer_channels: int,
        channels: int,
        reduction: bool,
        halve_older: bool,
        style: CellStyle | DartsStyle,
        node_combination: str = "concatenate",
    ) -> None:
        super().__init__()
        fit_older = style.halve if halve_older else style.preprocess
        self.preprocess_older = fit_older(older_channels, channels)
        self.preprocess_newer = style.preprocess(newer_channels, channels)
        self.nodes = nn.ModuleList()
        for edges in nodes:
            self.nodes.append(
                nn.ModuleDict(
                    {
                        f"from{source}": style.operation(name, channels, 2 if reduction and source < INPUT_NODES else 1)
                        for name, source in edges
                    }
                )
            )
        self.sources = [[source for _, source in edges] for edges in nodes]
        self.node_combination = node_combination

    def edges(self, node: int) -> list[tuple[int, nn.Module]]:
        """Source and operation of the edges into an intermediate node, counted from 0."""
        operations = cast(nn.ModuleDict, self.nodes[node])
        return [(source, operations[f"from{source}"]) for source in self.sources[node]]

    def forward(self, older: Tensor, newer: Tensor, drop_path_prob: float = 0.0) -> Tensor:
        """Two maps [N, C_i, H_i, W_i] to one, halved in a reduction cell.

        Args:
            drop_path_prob: with which an edge is dropped in training, for each image by itself;
                identities stay. What remains is scaled up to the same expectation.
        """
        drop = drop_path_prob if self.training else 0.0
        states = [self.preprocess_older(older), self.preprocess_newer(newer)]
        for node in range(len(self.sources)):
            incoming = []
            for source, edge in self.edges(node):
                out = edge(states[source])
                if drop > 0 and not isinstance(edge, nn.Identity):
                    out = drop_path(out, drop)
                incoming.append(out)
            states.append(reduce(torch.add, incoming))
        nodes = states[INPUT_NODES:]
        return reduce(torch.add, nodes) if self.node_combination == "sum" else torch.cat(nodes, 1)


def drop_path(x: Tensor, probability: float) -> Tensor:
    """``x`` [N, C, H, W] with whole images set to 0, the others divided by 1 - ``probability``.

    Larsson et al., FractalNet, ICLR 2017 (local drop path), scaled as in NASNet and DARTS.
    """
    keep = 1 - probability
    mask = x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(keep)
    return x * (mask / keep)


@MODELS.register_module()
class CellNet(Backbone):
    """A network of searched cells as a backbone.

    Cells at the positions floor(L/3) and floor(2L/3) of L, counted from 0, are reduction cells and
    double the width C. The stem, batch norms and PReLUs are real-valued. Scales, with ``stem`` set
    to ``imagenet``: the stem after two of its three stride-2 convolutions (stride 4, C channels),
    the last cell before the first reduction (8, 4C), the last before the second (16, 8C) and the
    last cell (32, 16C). With ``cifar`` the stem is one 3x3 convolution to 3C channels, and the
    strides are 1, 1, 2 and 4 with 3C, 4C, 8C and 16C channels. Where the nodes of a cell are summed
    instead of concatenated, the scales after the stem have C, 2C and 4C channels.

    The macro-architecture (:mod:`onebit.backbones.cells.macros`) says how many cells, how wide, and how they are
    built; every argument that is None or ``default`` is taken from it. Where it is not named, a cell of
    our own search that is given by itself makes a network like the supernet it was found in: with its
    structure and binarizer unless another is given, and of its size unless one is given (provenance, ``supernet``).
    CP-NAS and BNAS have not published their cells: networks of these names have the published cell
    of DCP-NAS unless ``cell`` is given, and :attr:`cell_name` says which one it is.

    Args:
        arch: the name of a macro-architecture with a size or a width (``dcp_nas_s``, ``cp_nas_m``,
            ``bnas``, ``darts_v2``, ``dcp_nas_c16`` for C = 16); or a cell, as ``cell``. By default
            ``dcp_nas_s``, or ``macro`` at its smallest size.
        macro: the macro-architecture, a key of :data:`onebit.backbones.cells.macros.MACROS`, where ``arch`` does
            not name one; ``dcp_nas`` by default.
        cell: the name of a cell that ships (:func:`onebit.backbones.cells.list_cells`), a
            :class:`Genotype`, what :meth:`Genotype.to_dict` gives, or the path of a genotype's JSON
            file.
        channels: C, an even number.
        layers: L, at least 3.
        stem: ``imagenet`` or ``cifar``.
        structure: ``onebit``, the operations of a 1-bit cell (:mod:`onebit.backbones.cells.operations`), or
            ``darts``, those of a real-valued one (:mod:`onebit.backbones.cells.darts_operations`). The default is that
            of the supernet, else of the macro-architecture, but ``onebit`` with a binarizer.
        node_combination: of a cell's four nodes, ``concatenate`` or ``sum``.
        shortcut: add its input to the output of a stride-1 separable or dilated block; by default
            it is.
        binarize_preprocess: what of the convolutions that fit a cell's inputs to its width is
            1-bit: ``none``, ``weights``, or ``both`` weights and activations.
        binarize_depthwise: the same of depthwise convolutions. (DCP-NAS Table 8 compares
            ``weights``, the default of both, with ``both``.)
        drop_path_prob: see :meth:`Cell.forward`; an attribute of the same name, which a schedule
            may set.
        binarizer: of the 1-bit convolutions, a name or a :class:`Binarizer`; None makes the whole
            network real-valued. By default that of the supernet, else of the macro-architecture.
        out_indices: the scales to return, in any order. Cells after the last one are not built.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and what the first k scales need
            (for 1 that is the stem again): no gradients, batch norm in eval mode.
        norm_eval: keep every batch norm in eval mode during training.
        init_cfg: mmengine's, e.g. ``dict(type='Pretrained', checkpoint=...)``.
        with_cp, norm_cfg: see :class:`onebit.backbones.backbone.Backbone`.

    Attributes:
        genotype: the cell.
        cell_name: the cell's name if it ships, else its file's name, or ``given``.
        feature_channels, feature_strides: of the returned maps, one per out_index.
        auxiliary_channels: of the map that :meth:`forward_auxiliary` adds; 0 if its cell is not
            built.

    Raises:
        InputError: an argument out of range, or a genotype that cannot be read.
    """

    def __init__(
        self,
        arch: CellSource | None = None,
        macro: str | None = None,
        cell: CellSource | None = None,
        channels: int | None = None,
        layers: int | None = None,
        stem: str = "imagenet",
        structure: str | None = None,
        node_combination: str | None = None,
        shortcut: bool | None = None,
        binarize_preprocess: str | None = None,
        binarize_depthwise: str | None = None,
        drop_path_prob: float = 0.0,
        binarizer: str | Binarizer | None = DEFAULT,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        init_cfg: dict | list[dict] | None = None,
        with_cp: bool = False,
        norm_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(4, out_indices, frozen_stages, norm_eval, init_cfg, with_cp, norm_cfg)
        guards.choice("stem", stem, ("imagenet", "cifar"))
        rules, chosen, width = _resolve(arch, macro, cell)
        self.genotype, self.cell_name = resolve_cell(chosen)
        if macro is None and not _names_macro(arch):
            supernet = _supernet(self.genotype)
            if channels is None and layers is None:
                channels, layers = supernet.get("channels"), supernet.get("cells")
            if binarizer == DEFAULT and "binarizer" in supernet:
                binarizer = _searched_binarizer(supernet["binarizer"], self.cell_name)
            if structure is None and binarizer is None:
                structure = supernet.get("structure")
        channels = width if channels is None else channels
        layers = rules.layers if layers is None else layers
        guards.whole("channels", channels, 2, MOST_CHANNELS, multiple=2)
        guards.whole("layers", layers, 3, 256)
        combination = node_combination or rules.node_combination
        guards.choice("node_combination", combination, ("concatenate", "sum"))
        self.drop_path_prob = guards.number("drop_path_prob", drop_path_prob, 0, below=1)
        style = _style(rules, binarizer, structure, shortcut, binarize_preprocess, binarize_depthwise)

        self.stem = stem_layers(stem, channels)
        reductions = (layers // 3, 2 * layers // 3)
        # The index of the last cell of each scale but the stem's.
        self.last_cells = (reductions[0] - 1, reductions[1] - 1, layers - 1)
        self.auxiliary_cell = reductions[1]
        built = 0 if self.out_indices == (0,) else self.last_cells[self.out_indices[-1] - 1] + 1
        cells = []
        stem_channels = channels if stem == "imagenet" else 3 * channels
        multiple = INTERMEDIATE_NODES if combination == "concatenate" else 1
        older = newer = stem_channels
        width, halve_older = channels, stem == "imagenet"
        for position in range(built):
            reduction = position in reductions
            width *= 2 if reduction else 1
            nodes = self.genotype.reduce if reduction else self.genotype.normal
            cells.append(Cell(nodes, older, newer, width, reduction, halve_older, style, combination))
            older, newer = newer, multiple * width
            halve_older = reduction
        self.cells = nn.ModuleList(cells)
        if not cells:
            del self.stem[1]

        all_channels = (stem_channels, *(multiple * channels * factor for factor in (1, 2, 4)))
        all_strides = (4, 8, 16, 32) if stem == "imagenet" else (1, 1, 2, 4)
        self.feature_channels = tuple(all_channels[i] for i in self.out_indices)
        self.feature_strides = tuple(all_strides[i] for i in self.out_indices)
        self.auxiliary_channels = all_channels[3] if built > self.auxiliary_cell else 0
        self.settle()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images [N, 3, H, W] to one map [N, C_i, ceil(H / s_i), ceil(W / s_i)] per out_index."""
        return self._scales(x, *self._outputs(x))

    def forward_auxiliary(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """What :meth:`forward` returns, and the map [N, auxiliary_channels, H', W'] that cell
        floor(2L/3), the second reduction cell, puts out, for an auxiliary head.

        Raises:
            InputError: that cell is not built.
        """
        if not self.auxiliary_channels:
            raise InputError(
                f"an auxiliary head needs cell {self.auxiliary_cell}, which out_indices {self.out_indices} leaves out"
            )
        first, outputs = self._outputs(x)
        return self._scales(x, first, outputs), outputs[self.auxiliary_cell]

    def _outputs(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the stem's first part and each cell put out."""
        if _reordered(x):
            x = x.contiguous(memory_format=torch.channels_last)
        first = older = self.stem[0](x)
        newer = self.stem[1](older) if self.cells else older
        outputs = []
        for cell in self.cells:
            older, newer = newer, self.run_block(cell, older, newer, self.drop_path_prob)
            outputs.append(newer)
        return first, outputs

    def _scales(self, x: Tensor, first: Tensor, outputs: list[Tensor]) -> tuple[Tensor, ...]:
        """The maps of the scales that are asked for, in the memory format of the images ``x``:
        MMDetection's heads take views of maps."""
        scales = (first, *(outputs[i] for i in self.last_cells if i < len(outputs)))
        maps = (scales[i] for i in self.out_indices)
        return tuple(each.contiguous() for each in maps) if _reordered(x) else tuple(maps)

    def frozen_modules(self, stages: int) -> list[nn.Module]:
        last = self.last_cells[stages - 2] + 1 if stages > 1 else 0
        return [self.stem, *self.cells[:last]]


def _reordered(x: Tensor) -> bool:
    """Whether the network works in channels_last memory though the images ``x`` are not: on CPUs
    narrow and depthwise convolutions are several times faster so."""
    if symbolic(x):  # the graph is for any device and memory format
        return False
    return x.device.type == "cpu" and not x.is_contiguous(memory_format=torch.channels_last)


def stem_layers(stem: str, channels: int) -> nn.ModuleList:
    """The stem in two parts, whose outputs are the first cell's older and newer input.

    ``imagenet``: 3x3 stride-2 convolutions from 3 to C/2 to C channels, and a third one from C to
    C; BN after each, ReLU between. ``cifar``: one 3x3 convolution to 3C, BN; the second part passes
    it on.
    """

    def conv_bn(in_channels: int, out_channels: int, stride: int) -> list[nn.Module]:
        return [real_conv(in_channels, out_channels, 3, stride), nn.BatchNorm2d(out_channels)]

    if stem == "imagenet":
        half = channels // 2
        first = [*conv_bn(3, half, 2), nn.ReLU(inplace=True), *conv_bn(half, channels, 2)]
        second = [nn.ReLU(), *conv_bn(channels, channels, 2)]  # not in place: a scale is its input
    else:
        first, second = conv_bn(3, 3 * channels, 1), [nn.Identity()]
    layers = nn.ModuleList([nn.Sequential(*first), nn.Sequential(*second)])
    set_role(layers, "stem")
    return layers


def _names_macro(arch: CellSource | None) -> TypeGuard[str]:
    return isinstance(arch, str) and not arch.endswith(".json")


def _supernet(genotype: Genotype) -> Mapping[str, Any]:
    """What the provenance of a cell says about the supernet it was found in; nothing for cells of others."""
    supernet = genotype.provenance.get("supernet")
    return supernet if isinstance(supernet, Mapping) else {}


def _searched_binarizer(name: Any, cell: str) -> str | None:
    """The binarizer that the file of a cell names, None for a real-valued supernet."""
    if name is not None and not isinstance(name, str):
        raise InputError(f"{cell}: provenance, supernet, binarizer {name!r}: expected a name, or null for real-valued")
    return name


def _resolve(arch: CellSource | None, macro: str | None, cell: CellSource | None) -> tuple[Macro, CellSource, int]:
    """The macro-architecture, the cell and the default width that the three arguments mean."""
    named = parse_arch(arch) if _names_macro(arch) else None
    if named is not None:
        if macro is not None:
            raise InputError(f"macro {macro!r}: arch {arch!r} names its macro-architecture already")
        return named.macro, named.macro.cell if cell is None else cell, named.channels
    if arch is not None:
        if cell is not None:
            raise InputError(f"cell {cell!r}: arch {arch!r} is a cell already")
        cell = arch
    rules = MACROS[guards.choice("macro", "dcp_nas" if macro is None else macro, MACROS)]
    return rules, rules.cell if cell is None else cell, rules.channels


def _style(
    rules: Macro,
    binarizer: str | Binarizer | None,
    structure: str | None,
    shortcut: bool | None,
    binarize_preprocess: str | None,
    binarize_depthwise: str | None,
) -> CellStyle | DartsStyle:
    binarizer = rules.binarizer if binarizer == DEFAULT else binarizer
    binarizer = None if binarizer is None else get_binarizer(binarizer)
    if structure is None:
        structure = rules.structure if binarizer is None else "onebit"
    guards.choice("structure", structure, STRUCTURES)
    if structure == "onebit":
        preprocess = binarize_preprocess or rules.binarize_preprocess
        depthwise = binarize_depthwise or rules.binarize_depthwise
        guards.choice("binarize_preprocess", preprocess, BINARIZED)
        guards.choice("binarize_depthwise", depthwise, BINARIZED)
        return CellStyle(binarizer, shortcut is not False, preprocess, depthwise)
    if binarizer is not None:
        raise InputError(f"structure 'darts': expected a real-valued network, found binarizer {binarizer.name}")
    onebit = dict(shortcut=shortcut, binarize_preprocess=binarize_preprocess, binarize_depthwise=binarize_depthwise)
    for argument, value in onebit.items():
        if value is not None:
            raise InputError(f"{argument} {value!r}: structure 'darts' has no such option")
    return DartsStyle()


register_family(Family(type="CellNet", names=list_names, parse=parse_name))
