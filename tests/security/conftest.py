"""What every test of hostile files looks at: that nothing which they name was called."""

import os
import subprocess

import pytest
import torch

from tests.security import canary


@pytest.fixture(autouse=True)
def nothing_is_called(monkeypatch):
    """The callables that the files of these tests name note their calls; there must be none."""
    canary.sung.clear()
    for module, name in ((subprocess, "getoutput"), (os, "system"), (torch.hub, "load")):
        monkeypatch.setattr(module, name, canary.sing)
    yield
    assert canary.sung == []
