"""Checks of single values: what they take, and that what they refuse is named."""

from __future__ import annotations

import math
import sys
from fractions import Fraction

import pytest

from onebit.commons import guards
from onebit.commons.errors import InputError

NO_NUMBERS = [True, False, None, "1", b"1", [1], math.nan, math.inf, -math.inf, 1j, Fraction(1)]


@pytest.mark.parametrize("value", [*NO_NUMBERS, 1.0, 0, -1])
def test_whole_number_from_1(value):
    with pytest.raises(InputError) as error:
        guards.whole("width", value)
    assert str(error.value) == f"width {value!r}: expected a whole number from 1 up"


def test_whole_numbers_within_limits():
    assert guards.whole("epochs", 3) == 3
    assert guards.whole("epochs", 0, 0) == 0
    assert guards.whole("width", 6, 2, 8, multiple=2) == 6
    for value in (1, 3, 9):
        with pytest.raises(InputError, match=f"^width {value}: expected a multiple of 2 from 2 to 8$"):
            guards.whole("width", value, 2, 8, multiple=2)


@pytest.mark.parametrize("value", [*NO_NUMBERS, 10**400])
def test_what_is_no_finite_number(value):
    with pytest.raises(InputError, match=r"^lr .*: expected a number$"):
        guards.number("lr", value)


@pytest.mark.parametrize(
    ("limits", "good", "bad", "words"),
    [
        (dict(least=0), [0, 0.5, sys.float_info.max], [-1e-9], "a number from 0 up"),
        (dict(least=0, most=1), [0, 1], [-0.1, 1.1], "a number from 0 to 1"),
        (dict(least=0, below=1), [0, 0.99], [1], "a number from 0 up, below 1"),
        (dict(above=0, most=1), [1e-9, 1], [0, 1.5], "a number above 0, up to 1"),
        (dict(above=0), [1e-9], [0], "a number above 0"),
    ],
)
def test_numbers_within_limits(limits, good, bad, words):
    for value in good:
        assert guards.number("x", value, **limits) == value
    for value in bad:
        with pytest.raises(InputError, match=f"^x {value}: expected {words}$"):
            guards.number("x", value, **limits)


def test_fraction_and_switch():
    assert guards.fraction("share", 0.25) == 0.25
    assert guards.switch("flip", True) is True
    with pytest.raises(InputError, match="share 2: expected a number from 0 to 1"):
        guards.fraction("share", 2)
    with pytest.raises(InputError, match="flip 1: expected True or False"):
        guards.switch("flip", 1)


@pytest.mark.parametrize("text", [" 1", "1 ", "1_0", "١", "１", "²", "", "1e", "0x10", "nan", "inf", "1" * 5000])
def test_what_is_no_number_in_plain_digits_stays_text(text):
    assert guards.plain_number(text) == text


@pytest.mark.parametrize(
    ("text", "value"), [("12", 12), ("-3", -3), ("+0", 0), ("1.", 1.0), (".5", 0.5), ("-2e-3", -0.002)]
)
def test_numbers_in_plain_digits(text, value):
    assert guards.plain_number(text) == value
    assert type(guards.plain_number(text)) is type(value)


def test_choice_goes_by_type():
    assert guards.choice("stride", 2, (1, 2)) == 2
    assert guards.choice("amp", None, (None, "bfloat16")) is None
    for value in (True, 1.0, "1", [1], 3):
        with pytest.raises(InputError, match=r"expected one of 1, 2$"):
            guards.choice("stride", value, (1, 2))


def test_unknown_names_get_near_ones_or_all():
    names = {"xnor": 1, "bireal": 2}
    assert guards.known("binarizer", "xnor", names) == "xnor"
    with pytest.raises(InputError, match=r"^unknown binarizer 'birael'; did you mean bireal\?$"):
        guards.known("binarizer", "birael", names)
    for value in ("q", 7, None, ["q"]):
        with pytest.raises(InputError, match=r"^unknown binarizer .*; there are xnor, bireal$"):
            guards.known("binarizer", value, names)


def test_files_and_endings(tmp_path):
    (tmp_path / "a.PNG").write_bytes(b"")
    assert guards.file("picture", str(tmp_path / "a.PNG")) == tmp_path / "a.PNG"
    assert guards.suffix("picture", tmp_path / "a.PNG", (".svg", ".png")) == ".png"
    with pytest.raises(InputError, match=r"^picture not found: "):
        guards.file("picture", tmp_path)
    with pytest.raises(InputError, match=r"a\.jpg: expected a name that ends in \.svg or \.png$"):
        guards.suffix("picture", "a.jpg", (".svg", ".png"))


def test_what_a_file_holds_is_shown_on_one_short_line():
    nested = []
    for _ in range(500):
        nested = [nested]
    for value in ("x" * 10**6, nested, list(range(10**5)), {"k" * 1000: "v" * 1000}, 10**3000):
        assert len(guards.shown(value)) < 300
        assert "\n" not in guards.shown(value)
