"""Reading one image file, whoever made it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from onebit.commons.errors import InputError

#: An image of more is refused before its pixels take memory: the largest of ImageNet's have 30 million.
MOST_PIXELS = 2**26
#: What is decoded. Pillow knows more, and starts another program for some of it (Ghostscript for PostScript).
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


def read_image(path: str | os.PathLike) -> Image.Image:
    """Decode an image to RGB, as it lies in the file: a turn that EXIF asks for is not made.

    Gray images of 16 bits keep their upper eight; CMYK, palettes and transparency become RGB.

    Raises:
        InputError: missing, no whole image, or one of more than :data:`MOST_PIXELS`.
    """
    try:
        with open_image(path) as image:
            if image.mode.startswith("I"):
                image = image.point(lambda value: value / 256).convert("L")
            return image.convert("RGB")
    except Exception as error:  # a decoder may raise anything at a broken file
        raise InputError(f"expected an image that can be read, found {path}: {error}") from error


def open_image(path: str | os.PathLike) -> Image.Image:
    """An image whose pixels are not decoded yet.

    Raises:
        OSError: there is none, or no image of :data:`FORMATS`.
        ValueError: decoding it would take too much memory.
    """
    image = Image.open(path, formats=FORMATS)
    width, height = image.size
    if width * height > MOST_PIXELS:
        image.close()
        raise ValueError(f"it has {width} x {height} pixels, at most {MOST_PIXELS} are read")
    return image


def write_on(image: Image.Image, lines: Sequence[str]) -> Image.Image:
    """The image, enlarged to at least 160 pixels a side, with lines of text below it."""
    scale = max(1.0, 160 / min(image.size))
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    font = ImageFont.load_default(13)
    picture = Image.new("RGB", (image.width, image.height + 18 * len(lines) + 4), "white")
    picture.paste(image, (0, 0))
    for at, line in enumerate(lines):
        ImageDraw.Draw(picture).text((4, image.height + 2 + 18 * at), line, fill="black", font=font)
    return picture
