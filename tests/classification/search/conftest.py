"""Searches of a second: 80 images of 16x16, supernets of two channels."""

import pytest
import torch

from onebit.classification.search.job import SearchJob
from onebit.classification.search.strategies import METHODS, Strategy, abanditnas, bnas, cp_nas, get_strategy
from onebit.classification.search.strategies.sampled import SampledStrategy

#: Two steps an epoch.
TINY = {
    "space.cells": 3,
    "space.channels": 2,
    "schedule.epochs": 3,
    "data.image_size": 8,
    "data.images": 80,
    "data.batch_size": 20,
}

#: A method that abandons operations takes as many rounds as there are, and a supernet computes each.
FEW_OPERATIONS = ("none", "skip_connect", "dil_conv_3x3")


@pytest.fixture
def few_operations(monkeypatch):
    """Searches in this process choose between three operations."""
    monkeypatch.setattr("onebit.classification.search.config.search_space", lambda *_: FEW_OPERATIONS)


@pytest.fixture
def search_job(data, tmp_path):
    """Builds a SearchJob of a few quick epochs."""

    def build(method="random", *, name="run", dataset="mini-cifar10", preset="mini", **fields):
        changes = {**TINY, **fields.pop("cfg_options", {})}
        if method in METHODS and get_strategy(method).epochs is not Strategy.epochs:
            changes["schedule.epochs"] = None  # of its own
        values = dict(seed=0, data_root=data, work_dir=tmp_path / name)
        return SearchJob(
            method=method,
            dataset=dataset,
            preset=preset,
            cfg_options={key: value for key, value in changes.items() if value is not None},
            **{**values, **fields},
        )

    return build


@pytest.fixture
def untrained(monkeypatch):
    """Strategies without networks; the accuracy of an architecture is a function's value.

    Returns a function that takes the accuracy of a choice [2, 14] and gives the list of choices
    whose accuracy was asked for.
    """

    def install(accuracy):
        choices = []

        def evaluate(self, supernet, batches, choice):
            choices.append(choice.clone())
            return accuracy(self, supernet, choice)

        class Network(torch.nn.Linear):
            def __init__(self, *_, **__):
                super().__init__(1, 1)

        for module in (cp_nas, bnas, abanditnas):
            monkeypatch.setattr(module, "Supernet", Network)
        monkeypatch.setattr(SampledStrategy, "evaluate", evaluate)
        monkeypatch.setattr(SampledStrategy, "train_path", lambda *_: None)
        for name, method in (("cp-nas", "_train_both"), ("bnas", "_search_by_pc_darts")):
            monkeypatch.setattr(get_strategy(name), method, lambda *_, **__: None)
        return choices

    return install
