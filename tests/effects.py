"""What the tests share that give every option another value and look at whether anything becomes other."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from onebit.commons.task import Outcome


def options(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of all that ``config`` sets; lists are entered where they hold dicts."""
    if isinstance(config, Mapping) and config:
        items = list(config.items())
    elif isinstance(config, list) and all(isinstance(each, Mapping) for each in config):
        items = list(enumerate(config))
    else:
        yield prefix[:-1], config
        return
    for key, value in items:
        yield from options(value, f"{prefix}{key}.")


def with_values(config: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``config`` in which the options of these dotted names have these values."""
    config = copy.deepcopy(config)
    for name, value in values.items():
        *path, last = [int(key) if key.isdecimal() else key for key in name.split(".")]
        place: Any = config
        for key in path:
            place = place[key]
        place[last] = value
    return config


def another(value: Any) -> Any:
    """A value of the same type: the other switch, the double of a number."""
    return not value if isinstance(value, bool) else value * 2


def given(outcome: Outcome) -> str:
    """A hash of all that a row gives, less the text of its config."""
    digest = hashlib.sha256()
    for name, weight in torch.load(outcome.checkpoint, weights_only=True)["state_dict"].items():
        digest.update(name.encode() + weight.numpy().tobytes())
    for value in (outcome.metrics, outcome.untrained, outcome.split, outcome.protocol, outcome.details["loss_curve"]):
        digest.update(repr(value).encode())
    return digest.hexdigest()
