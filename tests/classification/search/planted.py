"""A toy search problem with one right answer, and a supernet small enough to search it in a second.

Class 0: the picture repeats itself with period 4 from left to right and changes its sign with
period 4 from top to bottom. Class 1: the reverse. The classes are each other's transposes, so that
nothing that treats rows and columns alike (no connection, identity, pooling) can tell them apart;
and within 3 x 3 pixels all pixels are independent, so that only an operation that compares pixels 4
apart can: the dilated convolution, whose outer taps are.

The supernet looks at the image through one edge of the normal cell. What the other 27 edges hold
makes no difference, so that a search that finds nothing is right one time in four.
"""

import torch
import torch.nn.functional as F
from torch import nn

from onebit.backbones import Genotype, get_binarizer
from onebit.backbones.cells.operations import CellStyle
from onebit.classification.search.space import NORMAL, SearchSpace
from onebit.classification.search.strategies import Report, Schedule, SearchData, get_strategy

OPERATIONS = ("none", "skip_connect", "max_pool_3x3", "avg_pool_3x3", "dil_conv_3x3")
PLANTED = "dil_conv_3x3"
#: The edge that matters, from input node 1 to node 2, which every derivation leaves its two edges.
DECISIVE = (NORMAL, 1)
METHODS = ("dcp-nas", "cp-nas", "bnas", "bnas-w1a32", "abanditnas", "darts", "pc-darts")
#: Few epochs need a larger step of alpha than the papers' many.
OPTIONS = {
    "dcp-nas": {"arch_lr": 0.02},
    "cp-nas": {"T": 2},
    "bnas": {"T": 2, "V": 0},
    "bnas-w1a32": {"version": "w1a32", "T": 2, "last_pair": "both"},
    "abanditnas": {"T": 2},
    "darts": {"arch_lr": 0.02},
    "pc-darts": {"arch_lr": 0.02, "k": 2, "warmup": 0.5},
}
PARTIAL = ("bnas", "bnas-w1a32", "pc-darts")
EPOCHS = {"dcp-nas": 6, "darts": 8, "pc-darts": 12}
#: The paper's own for PC-DARTS; with more its weights are not settled when alpha begins to learn.
RATES = {"pc-darts": 0.1}


class PlantedNet(nn.Module):
    """Stands in for :class:`onebit.classification.search.supernet.Supernet`."""

    def __init__(self, space, binarizer=None, channel_fraction=1.0, structure="onebit"):
        super().__init__()
        self.space = space
        self.binarizer = None if binarizer is None else get_binarizer(binarizer)
        style = CellStyle(self.binarizer)
        self.seen = round(space.channels * channel_fraction)
        self.preprocess = style.preprocess(1, space.channels)
        self.edge = nn.ModuleList(style.operation(name, self.seen, 1) for name in space.operations)
        self.classifier = nn.Linear(space.channels, space.num_classes)

    def forward(self, images, weights=None, choice=None, active=None, edge_weights=None):
        x = self.preprocess(images[:, :1])
        seen, passing = x[:, : self.seen], x[:, self.seen :]
        if choice is not None:
            out = self.edge[choice[DECISIVE]](seen)
        else:
            out = sum(
                weights[DECISIVE][m] * each(seen)
                for m, each in enumerate(self.edge)
                if active is None or active[DECISIVE][m]
            )
        features = torch.cat((out, passing), 1).mean((2, 3))
        if edge_weights is not None:
            features = features * edge_weights[DECISIVE]
        return self.classifier(F.batch_norm(features, None, None, training=True))

    def operation_modules(self, m):
        return [self.edge[m]]

    def operation_parameters(self, m):
        return list(self.edge[m].parameters())

    def path_modules(self, choice):
        return [self.preprocess, self.edge[choice[DECISIVE]]]


def pictures(labels, generator):
    """[N, 8, 8] for labels [N]."""
    quarter = torch.randn(len(labels), 4, 4, generator=generator)
    first = torch.cat((quarter, -quarter), 1).repeat(1, 1, 2)
    return torch.where(labels[:, None, None] == 0, first, first.transpose(1, 2))


def batches(number, generator, size=64):
    found = []
    for _ in range(number):
        labels = torch.randint(2, (size,), generator=generator)
        images = pictures(labels, generator)[:, None].expand(-1, 3, -1, -1)
        found.append((images, labels))
    return found


def search(method, seed):
    """Run ``method``, whose networks have to be replaced by :class:`PlantedNet`."""
    generator = torch.Generator().manual_seed(seed)
    data = SearchData(*(batches(number, generator) for number in (4, 4, 4)))
    channels = 8 if method in PARTIAL else 4
    space = SearchSpace(num_classes=2, channels=channels, operations=OPERATIONS)
    schedule = Schedule(epochs=EPOCHS.get(method, 10), lr=RATES.get(method, 0.3))
    torch.manual_seed(seed)
    kind = get_strategy(method.removesuffix("-w1a32"))
    strategy = kind(space, OPTIONS[method], schedule)
    for index in range(strategy.epochs):
        strategy.epoch(index, data, Report())
    return strategy


def finds(method, seed):
    """Whether the derived cell holds the planted operation where it matters."""
    strategy = search(method, seed)
    genotype = Genotype.derive(strategy.scores(), strategy.derivation, OPERATIONS)
    return (PLANTED, 1) in genotype.normal[0]
