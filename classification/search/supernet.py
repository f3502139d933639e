"""The supernet: every candidate operation on every edge, as Parent (real-valued) or Child (1-bit).

One code for both; only the binarizer of the cells' convolutions differs. The parts of the cells are
those of :mod:`onebit.backbones.cells.operations` (or, of a Parent alone, of
:mod:`onebit.backbones.cells.darts_operations`), put together as in :class:`onebit.backbones.CellNet`, with batch norms
as DARTS has them in search: without scale and shift, so that no operation's size can make up for
its architecture parameter, and of the batch, in evaluation too (the running statistics of a
supernet would mix those of many architectures).

Batch norms without parameters make much work common to several operations, exactly so, and it is
done once:

* all operations on all edges that leave a node begin with the same normalized map;
* the pooling operations of all edges that leave a node are the same;
* a cell's output, the concatenation of nodes, is normalized by the cells that read it, and so is
  the concatenation of normalized nodes.

Cells of DARTS begin with a ReLU in place of a batch norm: there the rectified map of a node is made once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit.backbones.binarization import Binarizer, get_binarizer
from onebit.backbones.cells.darts_operations import DartsStyle, FactorizedReduce, SeparableConv
from onebit.backbones.cells.genotype import INPUT_NODES, INTERMEDIATE_NODES, POSSIBLE_EDGES
from onebit.backbones.cells.net import STRUCTURES, stem_layers
from onebit.backbones.cells.operations import BINARIZED, CellStyle, SeparableBlock
from onebit.backbones.conv import OneBitConv2d
from onebit.classification.search.depthwise import depthwise_conv2d
from onebit.classification.search.mixture import mix
from onebit.classification.search.space import INCOMING, NORMAL, REDUCTION, SOURCES, SearchSpace
from onebit.commons import guards
from onebit.commons.errors import InputError


def normalize(x: Tensor) -> Tensor:
    """Batch norm of [N, C, H, W] by the statistics of the batch, without scale and shift."""
    return F.batch_norm(x, None, None, training=True)


class Supernet(nn.Module):
    """A network of cells in which every edge holds every candidate operation.

    Args:
        space: size and candidate operations.
        binarizer: None for the real-valued Parent; a name or a :class:`Binarizer` for the Child.
        channel_fraction: 1 / K for partial channels (Xu et al., PC-DARTS, ICLR 2020, section 3.2):
            operations see the first C / K channels of a node, the others pass by, and the channels
            of every node are shuffled. C / K must be an even number.
        shortcut, binarize_preprocess, binarize_depthwise: see :class:`CellStyle`.
        structure: ``onebit``, the operations of 1-bit cells, or ``darts``, those of DARTS (ReLU, convolution, BN), which
            are real-valued and have none of the three options above.

    Attributes:
        space: as given.

    Raises:
        InputError: a value out of range.
    """

    def __init__(
        self,
        space: SearchSpace,
        binarizer: str | Binarizer | None = None,
        channel_fraction: float = 1.0,
        shortcut: bool = True,
        binarize_preprocess: str = "weights",
        binarize_depthwise: str = "weights",
        structure: str = "onebit",
    ) -> None:
        super().__init__()
        guards.choice("structure", structure, STRUCTURES)
        for name, value in (("binarize_preprocess", binarize_preprocess), ("binarize_depthwise", binarize_depthwise)):
            guards.choice(name, value, BINARIZED)
        self.space = space
        self.binarizer = None if binarizer is None else get_binarizer(binarizer)
        groups = _channel_groups(channel_fraction, space.channels)
        self.structure = structure
        style: CellStyle | DartsStyle
        if structure == "darts":
            if self.binarizer is not None:
                raise InputError(
                    f"structure 'darts': expected a real-valued supernet, found binarizer {self.binarizer.name}"
                )
            style = DartsStyle()
        else:
            style = CellStyle(self.binarizer, shortcut, binarize_preprocess, binarize_depthwise)
        self.stem = stem_layers(space.stem, space.channels)
        for norm in self.stem.modules():
            if isinstance(norm, nn.BatchNorm2d):
                _drop_running_statistics(norm)
        reductions = (space.cells // 3, 2 * space.cells // 3)
        width = space.channels
        older = newer = space.channels * (1 if space.stem == "imagenet" else 3)
        halve_older = space.stem == "imagenet"
        self.cells = nn.ModuleList()
        for position in range(space.cells):
            reduction = position in reductions
            width *= 2 if reduction else 1
            self.cells.append(SuperCell(space.operations, older, newer, width, reduction, halve_older, style, groups))
            older, newer = newer, INTERMEDIATE_NODES * width
            halve_older = reduction
        self.classifier = nn.Linear(newer, space.num_classes)

    def forward(
        self,
        images: Tensor,
        weights: Tensor | None = None,
        choice: Tensor | None = None,
        active: Tensor | None = None,
        edge_weights: Tensor | None = None,
    ) -> Tensor:
        """Images [N, 3, H, W] to logits [N, classes].

        Args:
            weights: [2, 14, M], of the operations of each edge in the mixture (DCP-NAS, Eq. 2, after
                the softmax); differentiable.
            choice: integers [2, 14]: a single path, one operation per edge, unweighted; nothing
                else is evaluated. It is read here: on another device than the CPU that would wait
                for the device.
            active: booleans [2, 14, M]: with ``weights``, operations that are not active are not
                evaluated. Weights are taken as they are. Read here, as ``choice``.
            edge_weights: [2, 14], a factor of each edge (PC-DARTS, section 3.3); differentiable.

        Raises:
            InputError: both or none of ``weights`` and ``choice``, or another shape.
        """
        if (weights is None) == (choice is None):
            raise InputError("supernet: expected either weights or a choice of operations")
        if weights is None:
            plans = [[[m] for m in each] for each in self._checked(choice, "choice").tolist()]
        else:
            weights = self._checked(weights, "weights")
            everything = [[True] * len(self.space.operations)] * POSSIBLE_EDGES
            masks = [everything] * 2 if active is None else self._checked(active, "active operations").tolist()
            plans = [[[m for m, on in enumerate(edge) if on] for edge in mask] for mask in masks]
        if edge_weights is not None:
            edge_weights = self._checked(edge_weights, "edge weights")
            if weights is not None:
                weights = weights * edge_weights[..., None]
        if images.device.type == "cpu":  # narrow and depthwise convolutions are faster so
            images = images.contiguous(memory_format=torch.channels_last)
        first = self.stem[0](images)
        second = self.stem[1](first)
        older = self._handed_on(_Source(first, 1))
        newer = older if second is first else self._handed_on(_Source(second, 1))
        nodes: list[_Source] = []
        for cell in self.cells:
            kind = cell.kind
            nodes = cell(
                older,
                newer,
                plans[kind],
                None if weights is None else weights[kind],
                None if edge_weights is None else edge_weights[kind],
            )
            if cell is not self.cells[-1]:
                older, newer = newer, torch.cat([self._handed_on(node) for node in nodes], 1)
        features = torch.cat([node.map.mean((2, 3)) for node in nodes], 1)
        return self.classifier(features)

    def _handed_on(self, source: _Source) -> Tensor:
        """What the cells read of a map: 1-bit cells normalize it first."""
        return source.normalized if self.structure == "onebit" else source.map

    def _checked(self, value: Tensor, name: str) -> Tensor:
        per_edge = name in ("choice", "edge weights")
        expected = self.space.shape[:2] if per_edge else self.space.shape
        if tuple(value.shape) != expected:
            raise InputError(f"supernet, {name}: expected the shape {list(expected)}, found {list(value.shape)}")
        return value

    @property
    def about(self) -> dict[str, Any]:
        """What a network needs to be built like this one: ``channels``, ``cells``, ``binarizer`` (a name or None),
        ``structure``."""
        binarizer = None if self.binarizer is None else self.binarizer.name
        size = dict(channels=self.space.channels, cells=self.space.cells)
        return dict(size, binarizer=binarizer, structure=self.structure)

    def operation_modules(self, m: int) -> Iterator[nn.Module]:
        """The modules with parameters of operation number ``m``, over all cells and edges."""
        name = self.space.operations[m]
        for cell in self.cells:
            for edge in cell.edges:
                if name in edge:
                    yield edge[name]

    def operation_parameters(self, m: int) -> list[nn.Parameter]:
        """The parameters of operation number ``m``, over all cells and edges."""
        return [p for module in self.operation_modules(m) for p in module.parameters()]

    def path_modules(self, choice: Tensor) -> Iterator[nn.Module]:
        """The modules with parameters of the cells of a single path, ``choice`` [2, 14]."""
        chosen = choice.tolist()
        for cell in self.cells:
            yield cell.preprocess_older
            yield cell.preprocess_newer
            for edge, m in zip(cell.edges, chosen[cell.kind], strict=True):
                if cell.operations[m] in edge:
                    yield edge[cell.operations[m]]


class SuperCell(nn.Module):
    """One cell of a supernet. See :class:`onebit.backbones.cells.net.Cell` for its place and arguments.

    Args:
        groups: K of the partial channels; 1 lets the operations see all.
    """

    def __init__(
        self,
        operations: Sequence[str],
        older_channels: int,
        newer_channels: int,
        channels: int,
        reduction: bool,
        halve_older: bool,
        style: CellStyle | DartsStyle,
        groups: int,
    ) -> None:
        super().__init__()
        self.kind = REDUCTION if reduction else NORMAL
        self.operations = tuple(operations)
        self.groups = groups
        fit_older = style.halve if halve_older else style.preprocess
        self.preprocess_older = _after_norm(fit_older(older_channels, channels))
        self.preprocess_newer = _after_norm(style.preprocess(newer_channels, channels))
        self.strides = [2 if reduction and source < INPUT_NODES else 1 for source in SOURCES]
        # Identities, pooling and `none` have no parameters here and stand for themselves.
        self.edges = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: _after_norm(style.operation(name, channels // groups, stride))
                    for name in self.operations
                    if "conv" in name or (name == "skip_connect" and stride == 2)
                }
            )
            for stride in self.strides
        )

    def forward(
        self,
        older: Tensor,
        newer: Tensor,
        plan: Sequence[Sequence[int]],
        weights: Tensor | None,
        edge_weights: Tensor | None,
    ) -> list[_Source]:
        """The four nodes, from what the cell before the last and the last hand on.

        Args:
            plan: for each edge, the numbers of the operations to evaluate.
            weights: [14, M], None for factors of 1.
            edge_weights: [14], of channels that pass by; None for factors of 1.
        """
        sources = [
            _Source(self.preprocess_older(older), self.groups),
            _Source(self.preprocess_newer(newer), self.groups),
        ]
        for edges in INCOMING:
            maps, places = [], []
            for edge in edges:
                for m in plan[edge]:
                    if self.operations[m] != "none":
                        maps.append(self._evaluate(m, edge, sources[SOURCES[edge]]))
                        places.append((edge, m))
            if not maps:
                first = sources[0].seen
                stride = self.strides[0]
                node = torch.zeros_like(first[:, :, ::stride, ::stride])
            elif weights is None:
                node = _combine(maps, _factors(edge_weights, [edge for edge, _ in places]))
            else:
                edge_index, m_index = zip(*places, strict=True)
                node = mix(weights[list(edge_index), list(m_index)], maps)
            if self.groups > 1:
                passing = [sources[SOURCES[e]].passing(self.strides[e]) for e in edges]
                rest = _combine(passing, _factors(edge_weights, list(edges)))
                node = _shuffle(torch.cat((node, rest), 1), self.groups)
            sources.append(_Source(node, self.groups))
        return sources[INPUT_NODES:]

    def _evaluate(self, m: int, edge: int, source: _Source) -> Tensor:
        name, stride = self.operations[m], self.strides[edge]
        if "pool" in name:
            return source.pooled(name, stride)
        if name not in self.edges[edge]:
            return source.seen
        module = self.edges[edge][name]
        if isinstance(module, FactorizedReduce):
            return module(source.seen)
        if isinstance(module, SeparableConv):
            return _darts_block(module, source.rectified)
        if name == "skip_connect":
            return module(source.seen_normalized)
        blocks = module if isinstance(module, nn.Sequential) else [module]
        if isinstance(blocks[0], SeparableConv):
            out = _darts_block(blocks[0], source.rectified)
            return _darts_block(blocks[1], F.relu(out))
        out = _block(blocks[0], source.seen, source.seen_normalized, source)
        for block in blocks[1:]:
            out = _block(block, out, normalize(out), None)
        return out


class _Source:
    """A node as the source of edges: its map, and what several operations need of it, made once.

    Args:
        x: [N, C, H, W].
        groups: of the channels, the first C / groups are what operations see.
    """

    def __init__(self, x: Tensor, groups: int) -> None:
        self.map = x
        self._groups = groups
        self._made: dict[object, Tensor] = {}

    def _once(self, key: object, make) -> Tensor:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _part(self, x: Tensor) -> Tensor:
        if self._groups == 1:
            return x
        layout = torch.channels_last if x.device.type == "cpu" else torch.contiguous_format
        return x[:, : x.shape[1] // self._groups].contiguous(memory_format=layout)

    @property
    def normalized(self) -> Tensor:
        return self._once("normalized", lambda: normalize(self.map))

    @property
    def seen(self) -> Tensor:
        """What operations see."""
        return self._once("seen", lambda: self._part(self.map))

    @property
    def seen_normalized(self) -> Tensor:
        return self._once("seen normalized", lambda: self._part(self.normalized))

    @property
    def rectified(self) -> Tensor:
        return self._once("rectified", lambda: F.relu(self.seen))

    def signed(self, conv: OneBitConv2d) -> Tensor:
        """The normalized map through the quantizer of activations of ``conv``.

        Quantizers without parameters do the same on every edge.
        """
        quantizer: Any = conv.quantize_input
        if next(quantizer.parameters(), None) is not None:
            return quantizer(self.seen_normalized)
        return self._once(conv.binarizer.input, lambda: quantizer(self.seen_normalized))

    def pooled(self, name: str, stride: int) -> Tensor:
        def make() -> Tensor:
            if name.startswith("max"):
                return normalize(F.max_pool2d(self.seen, 3, stride, 1))
            return normalize(F.avg_pool2d(self.seen, 3, stride, 1, count_include_pad=False))

        return self._once((name, stride), make)

    def passing(self, stride: int) -> Tensor:
        """The channels that operations do not see, halved by maxima where ``stride`` is 2."""
        rest = self.map[:, self.map.shape[1] // self._groups :]
        if stride == 1:
            return rest
        return self._once("passing", lambda: F.max_pool2d(rest, 2, 2, ceil_mode=True))


def _block(block: SeparableBlock, x: Tensor, normalized: Tensor, source: _Source | None) -> Tensor:
    """``block`` on ``x``, as its own forward but for what the source of ``x`` has already."""
    conv = block.depthwise
    weight = conv.weight
    if isinstance(conv, OneBitConv2d):
        weight = conv.quantize_weight(weight)
        if conv.quantize_input is not None and source is not None:
            normalized = source.signed(conv)
        elif conv.quantize_input is not None:
            normalized = conv.quantize_input(normalized)
    out = depthwise_conv2d(normalized, weight, conv.stride[0], conv.dilation[0])
    if isinstance(conv, OneBitConv2d):
        out = conv.scale_output(out)
    out = block.prelu_depthwise(block.bn_depthwise(out))
    out = block.bn_pointwise(block.pointwise(out))
    return block.prelu(out.add_(x) if block.shortcut else out)


def _darts_block(block: SeparableConv, rectified: Tensor) -> Tensor:
    """``block`` of DARTS after its ReLU."""
    _, depthwise, pointwise, norm = block
    return norm(pointwise(depthwise_conv2d(rectified, depthwise.weight, depthwise.stride[0], depthwise.dilation[0])))


def _after_norm(module: nn.Module) -> nn.Module:
    """``module`` without the batch norm that a 1-bit one begins with, the others without parameters."""
    first = module[0] if isinstance(module, nn.Sequential) else module
    if hasattr(first, "bn_in"):
        first.bn_in = nn.Identity()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.affine = False
            part.weight = part.bias = None
            _drop_running_statistics(part)
        elif isinstance(part, OneBitConv2d):
            part.integers = False  # slower than floating point in layers as narrow as these
    return module


def _drop_running_statistics(norm: nn.BatchNorm2d) -> None:
    norm.track_running_stats = False
    norm.running_mean = norm.running_var = norm.num_batches_tracked = None


def _factors(edge_weights: Tensor | None, edges: list[int]) -> Tensor | None:
    return None if edge_weights is None else edge_weights[edges]


def _combine(maps: Sequence[Tensor], factors: Tensor | None) -> Tensor:
    return reduce(torch.add, maps) if factors is None else mix(factors, maps)


def _shuffle(x: Tensor, groups: int) -> Tensor:
    """Channel i * (C / groups) + j to j * groups + i (Zhang et al., ShuffleNet, CVPR 2018)."""
    n, channels, height, width = x.shape
    if x.is_contiguous(memory_format=torch.channels_last):
        split = x.permute(0, 2, 3, 1).reshape(n, height, width, groups, channels // groups)
        return split.transpose(3, 4).reshape(n, height, width, channels).permute(0, 3, 1, 2)
    split = x.reshape(n, groups, channels // groups, height, width)
    return split.transpose(1, 2).reshape(n, channels, height, width)


def _channel_groups(fraction: float, channels: int) -> int:
    groups = round(1 / fraction) if isinstance(fraction, (int, float)) and 0 < fraction <= 1 else 0
    if not groups or abs(groups * fraction - 1) > 1e-9:
        raise InputError(f"channel_fraction {fraction!r}: expected 1, 1/2, 1/3, 1/4, ...")
    if channels % (2 * groups):
        raise InputError(f"channel_fraction {fraction:g} of {channels} channels: expected an even number of channels")
    return groups
