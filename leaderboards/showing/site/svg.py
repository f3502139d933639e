"""A matplotlib figure as SVG inside a page: its colours follow the page, its ids are its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from onebit.leaderboards.showing.pictures import FOREGROUND, OTHER, STYLES, image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def inline(figure: Figure, prefix: str) -> str:
    """An ``svg`` element without size, background, metadata or style sheet.

    Text and axes take the colour of the text around it, marks those of ``page.css``, brighter in the
    dark. Every id, and every reference to one, gets
    ``prefix``, so that several pictures fit into one page.
    """
    text = image(figure, "svg", transparent=True).decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Its one rule would hold for the whole page; page.css has it.
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = text.replace(FOREGROUND, "currentColor")
    for (weights, activations), (_, colour) in STYLES.items():
        text = text.replace(colour.lower(), f"var(--bits-{weights}-{activations})")
    text = text.replace(OTHER[1].lower(), "var(--bits-other)")
    text = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return _prefixed(text, re.sub(r"[^A-Za-z0-9_-]", "_", prefix))


def _prefixed(text: str, prefix: str) -> str:
    own = set(re.findall(r' id="([^"]+)"', text))

    def rename(match: re.Match) -> str:
        before, name, after = match.groups()
        return f"{before}{prefix}-{name}{after}" if name in own else match.group()

    text = re.sub(r'( id=")([^"]+)(")', rename, text)
    text = re.sub(r"(url\(#)([^)]+)(\))", rename, text)
    return re.sub(r'(xlink:href="#)([^"]+)(")', rename, text)
