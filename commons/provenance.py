"""Which code ran: versions of what produces numbers, and the state of the checkout."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

#: What produces numbers.
DISTRIBUTIONS = (
    "onebit-bench",
    "torch",
    "torchvision",
    "mmengine",
    "mmcv-lite",
    "mmcv",
    "mmdet",
    "torchreid",
    "numpy",
    "pycocotools",
    "faster-coco-eval",
)


def versions() -> dict[str, str]:
    """Installed versions of what produces numbers."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def checkout() -> dict[str, str | bool | None]:
    """``commit`` of this checkout and ``dirty``, whether tracked files differ from it.

    Both None for an installed package, perhaps inside somebody else's checkout.
    """
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "--no-optional-locks", *arguments], cwd=here, capture_output=True, text=True)
        except OSError:  # no git on this machine
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None or git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return dict(commit=None, dirty=None)
    return dict(commit=commit, dirty=bool(git("status", "--porcelain", "-uno")))
