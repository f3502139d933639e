"""What a record says about the code and the machine it ran on."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from leaderboards.record import CodeVersion, Environment

#: What produces numbers.
DISTRIBUTIONS = ("onebit-bench", "torch", "torchvision", "mmengine", "mmcv-lite", "mmcv", "mmdet",
                  "torchreid", "numpy", "pycocotools", "faster-coco-eval")  # fmt: skip


def versions() -> dict[str, str]:
    """Installed versions of what produces numbers."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def code_version() -> CodeVersion:
    """Commit of this checkout and whether tracked files differ from it."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "--no-optional-locks", *arguments], cwd=here, capture_output=True, text=True
            )
        except OSError:  # no git on this machine
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None or git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return CodeVersion()  # installed from a wheel, perhaps inside somebody else's checkout
    return CodeVersion(commit=commit, dirty=bool(git("status", "--porcelain", "-uno")))


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
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def environment(task: str, backbone: str | None = None) -> Environment:
    """The environment of a row of ``task``; ``backbone`` is None for one this suite does not know.

    Detection rows say whose operators they used; a backbone from another package, that package's
    version.
    """
    import torch

    import backbones

    operators = {}
    if task == "detection":
        from detection.operators import operator_status

        operators = operator_status()
    return Environment(
        versions={**versions(), **(backbones.foreign_packages(backbone) if backbone else {})},
        device=device_name(),
        threads=torch.get_num_threads(),
        operators=operators,
    )
