"""Searches of a second: 80 images of 16x16, supernets of two channels."""

import pytest

from classification.search.job import SearchJob

#: Two steps an epoch.
TINY = {
    "space.cells": 3,
    "space.channels": 2,
    "schedule.epochs": 3,
    "data.image_size": 8,
    "data.images": 80,
    "data.batch_size": 20,
}


@pytest.fixture
def search_job(data, tmp_path):
    """Builds a SearchJob of a few quick epochs."""

    def build(method="random", *, name="run", dataset="mini-cifar10", preset="mini", **fields):
        changes = {**TINY, **fields.pop("cfg_options", {})}
        values = dict(seed=0, data_root=data, work_dir=tmp_path / name)
        return SearchJob(
            method=method,
            dataset=dataset,
            preset=preset,
            cfg_options={key: value for key, value in changes.items() if value is not None},
            **{**values, **fields},
        )

    return build
