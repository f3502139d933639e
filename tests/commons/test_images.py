"""Pictures of every kind that people have are read, as they lie in the file."""

import numpy as np
import pytest
from PIL import Image

from onebit.commons import images
from onebit.commons.errors import InputError
from onebit.commons.images import read_image

COLOURS = np.tile(np.arange(0, 256, 8, dtype=np.uint8)[:, None, None], (1, 16, 3))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P", "1", "LA"])
def test_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    Image.fromarray(COLOURS).convert(mode).save(path)
    found = read_image(path)
    assert (found.mode, found.size) == ("RGB", (16, 32))
    if mode in ("RGB", "L", "RGBA", "LA"):
        assert np.abs(np.asarray(found).astype(int) - COLOURS).max() <= 1


def test_gray_of_16_bits_keeps_its_upper_eight(tmp_path):
    Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 256 + 7).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), COLOURS)


def test_a_turn_in_exif_is_not_made(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOURS).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == (16, 32)


def test_more_pixels_than_are_read(tmp_path, monkeypatch):
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "MOST_PIXELS", 511)
    with pytest.raises(InputError, match=r"a.png: it has 16 x 32 pixels, at most 511 are read"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["EPS", "ICO", "PDF"])
def test_formats_that_need_another_program_or_nobody_has(tmp_path, kind):
    Image.fromarray(COLOURS).save(tmp_path / "a.jpg", kind)
    with pytest.raises(InputError, match="cannot identify"):
        read_image(tmp_path / "a.jpg")
