"""Small strategies that sample, for their tests."""

import torch

from onebit.classification.search.space import SearchSpace
from onebit.classification.search.strategies import Report, SearchData, get_strategy

METHODS = {"cp-nas": {}, "bnas": {"version": "w1a32"}, "bnas-1bit": {"version": "1bit"}, "abanditnas": {}}
FEW = ("none", "skip_connect", "dil_conv_3x3")
TWO = ("skip_connect", "dil_conv_3x3")
#: For strategies that train and evaluate nothing.
NOTHING = SearchData((), (), ())


def build(method, operations=FEW, schedule=None, **options):
    space = SearchSpace(num_classes=2, cells=3, channels=4, operations=operations)
    kind = get_strategy(method.removesuffix("-1bit"))
    return kind(space, {**METHODS[method], **options}, schedule)


def eight(method, **options):
    return build(method, SearchSpace(2).operations, **options)


def run(strategy, data, epochs=None, seed=0):
    for index in epochs if epochs is not None else range(strategy.epochs):
        torch.manual_seed(1000 * seed + index)
        strategy.epoch(index, data, Report())
    return strategy
