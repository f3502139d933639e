"""Pictures that matplotlib draws, as files and as bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from onebit.commons import guards
from onebit.commons.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Dots per inch of a PNG.
DPI = 150


def save_figure(draw: Callable[[], Figure], path: str | os.PathLike, salt: str) -> Path:
    """Write the figure that ``draw`` makes, whole or not at all; the same figure as the same SVG, byte for byte.

    Args:
        draw: called when the ending of ``path`` is known to be right.
        path: ends in ``.svg`` or ``.png``.
        salt: what the names inside an SVG are made from.

    Raises:
        InputError: another ending.
        WorkError: the file cannot be written.
    """
    kind = guards.suffix("picture", path, (".svg", ".png")).removeprefix(".")
    import matplotlib

    picture = io.BytesIO()
    # Text as text: smaller, searchable, and the same whatever fonts this machine has.
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        draw().savefig(picture, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    return write_atomic(path, picture.getvalue())
