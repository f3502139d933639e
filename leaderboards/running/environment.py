"""What a record says about the code and the machine it ran on."""

from __future__ import annotations

import platform
from pathlib import Path

from onebit.commons.provenance import checkout, versions
from onebit.leaderboards.boards import runner
from onebit.leaderboards.recording.record import CodeVersion, Environment


def code_version() -> CodeVersion:
    """Commit of this checkout and whether tracked files differ from it."""
    return CodeVersion(**checkout())


def device_name() -> str:
    """The GPU if torch sees one, else the processor."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return processor_name()


def processor_name() -> str:
    """The processor, as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def environment(task: str, backbone: str | None = None, dataset: str | None = None) -> Environment:
    """The environment of a row of ``task``; ``backbone`` is None for one this suite does not know.

    It says whose operators the task used; for a backbone or dataset from another package, that
    package's version.
    """
    import torch

    from onebit import backbones
    from onebit.commons import plugins
    from onebit.commons.datasets import get_dataset

    packages = backbones.foreign_packages(backbone) if backbone else {}
    if dataset and (package := plugins.package_of(get_dataset(dataset))):
        packages |= dict([package])
    return Environment(
        versions={**versions(), **packages},
        device=device_name(),
        threads=torch.get_num_threads(),
        operators=dict(runner(task).operators()),
    )
