"""Every option of every method of search changes what a search does: one that changes nothing would only look chosen.

The options are read from the methods' dataclasses. Each is given other values over a search in which it counts, a few
epochs long; one of them at least must end in another state or take another number of epochs.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch

from onebit.classification.search.config import load_preset
from onebit.classification.search.runner import search
from onebit.classification.search.space import SearchSpace
from onebit.classification.search.strategies import METHODS, Report, Schedule, SearchData, Strategy, get_strategy
from onebit.commons.errors import InputError
from tests.classification.search.conftest import FEW_OPERATIONS, TINY
from tests.effects import another, options

#: Seconds each, and as many as there are options.
pytestmark = pytest.mark.slow
SPACE = SearchSpace(2, cells=3, channels=4, operations=FEW_OPERATIONS)
#: Options over which all others of a method count.
OVER: dict[str, dict[str, Any]] = {
    # Of three operations, a share of 0.5 is one.
    "darts": dict(decoupled=True, epsilon=0.5, entropy=1.0),
    "pc-darts": dict(decoupled=True, epsilon=0.5, psi=0.01, k=1, warmup=0.0, entropy=1.0),
    "dcp-nas": dict(epsilon=0.5, lambda_="auto"),
    "cp-nas": dict(T=1),
    "bnas": dict(version="w1a32", T=1, L=1, freeze=0, delta=1.0),
    "abanditnas": dict(T=2),
    "random": {},
}
OPTIONS = [(method, f.name) for method in METHODS for f in dataclasses.fields(get_strategy(method).Options)]
SCHEDULE = Schedule(epochs=2, lr=0.1, min_lr=0.01)
#: The last number is for what gradients of a tiny network hardly move.
CANDIDATES = (True, False, 0, 1, 2, 0.0, 0.5, 0.01, 2.0, 1e4, "reactnet", "xnor", "mcn")


def end(method: str, options: dict[str, Any], schedule: Schedule = SCHEDULE) -> str:
    """Of a short search: the number of epochs it would take, and all that it knows after some of them."""
    return _end(method, tuple(sorted(options.items())), schedule)


@functools.cache
def _end(method: str, options: tuple, schedule: Schedule) -> str:
    torch.manual_seed(0)
    strategy = get_strategy(method)(SPACE, dict(options), schedule)
    generator = torch.Generator().manual_seed(0)
    train, valid, evaluation = (
        [(torch.randn(2, 3, 8, 8, generator=generator), torch.tensor([0, 1])) for _ in range(count)]
        for count in (2, 1, 1)
    )
    torch.manual_seed(1)
    own_number = type(strategy).epochs is not Strategy.epochs
    first_round = 1 + 3 * dict(options).get("T", 1)
    for epoch in range(min(strategy.epochs, first_round if own_number else 2)):
        strategy.epoch(epoch, SearchData(train, valid, evaluation), Report())
    digest = hashlib.sha256(str(strategy.epochs if own_number else "").encode())
    for name, value in strategy.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def other_values(kind: type, name: str, value: Any) -> list[Any]:
    hint = get_type_hints(kind)[name]
    if get_origin(hint) is Literal:
        return [choice for choice in get_args(hint) if choice != value]
    return [other for other in CANDIDATES if (type(other), other) != (type(value), value)]


@pytest.mark.parametrize(("method", "name"), OPTIONS)
def test_an_option_changes_the_search(method, name):
    kind = get_strategy(method).Options
    over = OVER[method]
    value = over.get(name, getattr(kind(), name))
    plain, taken = end(method, over), 0
    for other in other_values(kind, name, value):
        try:
            found = end(method, {**over, name: other})
        except InputError:
            continue
        taken += 1
        if found != plain:
            return
    assert taken, f"{name}: no value was tried"
    raise AssertionError(f"{name} changes nothing")


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Schedule)])
def test_an_option_of_the_schedule_changes_the_search(name):
    others = {"epochs": 3, "gradient_clip": 1e-3, "min_lr": 0.05, "optimizer": "adam"}
    other = others[name] if name in others else getattr(SCHEDULE, name) / 2
    changed = dataclasses.replace(SCHEDULE, **{name: other})
    assert end("darts", {}, changed) != end("darts", {})


#: What a preset says beside the method's options and the schedule; options of augmentation without a padding are off.
PRESET = {
    name: value
    for part in ("space", "data", "derivation", "amp")
    for name, value in options({part: copy.deepcopy(load_preset("mini", "cifar10", "darts").to_dict()[part])})
}
#: Where no other number or switch will do; shares of the images are those left by the others.
OTHER_OF_PRESET = {
    "amp": "bfloat16",
    "derivation.edges": "all14",
    "data.train": 0.25,
    "data.valid": 0.25,
    "data.evaluation": 0.1,
    "data.images": 60,
    "data.image_size": 16,
    "data.batch_size": 10,
    "data.evaluation_batch_size": 8,
    "data.augmentation.cutout": 4,
}
#: Only of images that are read as the batches come; their workers change how fast they come, not what.
STREAMED = {"data.min_crop_area": 0.9}
SPEED = ("data.num_workers",)


@pytest.fixture(scope="module")
def found():
    """What a short search ends with, by its options; the same search once."""
    return {}


@pytest.mark.parametrize("name", [name for name in PRESET if name not in SPEED])
def test_an_option_of_a_preset_changes_the_search(search_job, found, name):
    dataset = "mini-imagenet" if name in STREAMED else "mini-cifar10"
    method = "random" if "evaluation" in name else "darts"  # which does not look at this part

    fewer = {"data.images": 40} if name in STREAMED else {}

    def end(**changes):
        changes = {**fewer, **changes}
        key = repr((method, dataset, changes))
        if key not in found:
            job = search_job(method, name=str(len(changes)), dataset=dataset, cfg_options=changes)
            outcome = search(job)
            found[key] = outcome.history, outcome.genotype
        return found[key]

    value = TINY.get(name, PRESET[name])
    changed = {**OTHER_OF_PRESET, **STREAMED}
    other = changed[name] if name in changed else another(value)
    assert other != value
    (scores, cell), (before, cell_before) = end(**{name: other}), end()
    assert scores.shape != before.shape or not torch.equal(scores, before) or cell != cell_before
