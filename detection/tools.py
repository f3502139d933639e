"""Run a tool that MMDetection ships: ``python -m onebit.detection.tools TOOL ARGUMENTS``.

Some of its tools import operators of mmcv before they read the config, whose ``custom_imports`` would bring ours. Here
`onebit` is there first, so that every tool works beside an mmcv without compiled operators.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import onebit  # noqa: F401  serves mmcv's operators
from onebit.commons import guards
from onebit.commons.errors import InputError


def tools() -> dict[str, Path]:
    """The shipped tools by name: ``train``, ``test``, ``get_flops``, ``benchmark``, ``browse_dataset`` and so on.

    Raises:
        InputError: MMDetection was installed without them.
    """
    import mmdet

    folder = Path(mmdet.__file__).parent / ".mim" / "tools"
    found = [path for place in (folder, folder / "analysis_tools") for path in sorted(place.glob("*.py"))]
    if not found:
        raise InputError(f"MMDetection was installed without its tools: expected them in {folder}")
    return {path.stem: path for path in found}


def run(name: str, *arguments: str) -> None:
    """Run a tool as its file would be run.

    Raises:
        InputError: there is none of that name.
    """
    found = tools()
    path = found[guards.known("tool of MMDetection", name, found)]
    before = sys.argv
    sys.argv = [str(path), *arguments]
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        sys.argv = before


if __name__ == "__main__":
    try:
        if len(sys.argv) < 2:
            raise InputError(f"expected a tool of MMDetection: {', '.join(tools())}")
        run(*sys.argv[1:])
    except InputError as error:
        sys.exit(f"onebit: {error}")
