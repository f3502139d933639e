"""Checks of one value that comes from outside: an argument, a config, a file, a command line.

Each names the field, what it expects and what it found, in one form: ``<field> <found>: expected
<what>``. Each returns the value, so that it can stand where the value is used. True and False are
no numbers here, nor are NaN, infinity and text.
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, TypeVar

from onebit.commons.errors import InputError

T = TypeVar("T")

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60


def shown(value: Any) -> str:
    """``repr``, but of a length that fits on a line whatever a file holds."""
    return _REPR.repr(value)


def whole(field: str, value: Any, least: int = 1, most: int | None = None, multiple: int = 1) -> int:
    """A whole number of at least ``least``, at most ``most``, and a multiple of ``multiple``.

    Raises:
        InputError: anything else.
    """
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
    if not fits or (most is not None and value > most) or value % multiple:
        raise InputError(f"{field} {shown(value)}: expected {_whole_words(least, most, multiple)}".lstrip())
    return value


def _whole_words(least: int, most: int | None, multiple: int = 1) -> str:
    kind = "a whole number" if multiple == 1 else f"a multiple of {multiple}"
    return f"{kind} from {least} up" if most is None else f"{kind} from {least} to {most}"


def plain_number(text: str) -> int | float | str:
    """The number that ``text`` writes in plain digits, else ``text`` itself, which no guard takes.

    ``int`` and ``float`` also read spaces, underscores, other scripts' digits, NaN and infinity.
    """
    if len(text) > 40:  # more digits are out of any range, and int() refuses the longest
        return text
    if re.fullmatch(r"[+-]?[0-9]+", text):
        return int(text)
    real = re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text)
    return float(text) if real else text


def number(
    field: str,
    value: Any,
    least: float | None = None,
    most: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """A finite number within the limits given; ``above`` and ``below`` leave the limit itself out.

    Raises:
        InputError: anything else.
    """
    limits = [
        (least, "from {:g} up", lambda v, limit: v >= limit),
        (above, "above {:g}", lambda v, limit: v > limit),
        (most, "to {:g}" if least is not None else "up to {:g}", lambda v, limit: v <= limit),
        (below, "below {:g}", lambda v, limit: v < limit),
    ]
    given = [(limit, words, fits) for limit, words, fits in limits if limit is not None]
    finite = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if not finite or not all(fits(value, limit) for limit, _, fits in given):
        words = ", ".join(words.format(limit) for limit, words, _ in given).replace(" up, to ", " to ")
        raise InputError(f"{field} {shown(value)}: expected a number {words}".strip())
    return value


def fraction(field: str, value: Any) -> float:
    """A number from 0 to 1.

    Raises:
        InputError: anything else.
    """
    return number(field, value, 0, 1)


def switch(field: str, value: Any) -> bool:
    """True or False.

    Raises:
        InputError: anything else.
    """
    if not isinstance(value, bool):
        raise InputError(f"{field} {shown(value)}: expected True or False")
    return value


def choice(field: str, value: Any, choices: Iterable[T]) -> T:
    """One of ``choices``, of the same type: True is not 1.

    Raises:
        InputError: anything else.
    """
    choices = list(choices)
    for each in choices:
        if type(value) is type(each) and value == each:
            return each
    raise InputError(f"{field} {shown(value)}: expected one of {', '.join(map(str, choices))}")


def known(kind: str, name: Any, names: Collection[str]) -> str:
    """``name``, where it is one of ``names``: what is registered, shipped or listed.

    Raises:
        InputError: it is not; the message has near matches, or all there are.
    """
    if isinstance(name, str) and name in names:
        return name
    near = difflib.get_close_matches(str(name), names, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(names)}"
    raise InputError(f"unknown {kind} {shown(name)}; {hint}")


def file(kind: str, path: str | os.PathLike) -> Path:
    """The path of a file that is there.

    Raises:
        InputError: it is not.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{kind} not found: {path}")
    return path


def suffix(field: str, path: str | os.PathLike, suffixes: Iterable[str]) -> str:
    """The ending of a file's name, in lower case, as one of ``suffixes`` (``.svg``).

    Raises:
        InputError: it is none of them.
    """
    ending = Path(path).suffix.lower()
    if ending not in suffixes:
        raise InputError(f"{field} {path}: expected a name that ends in {' or '.join(suffixes)}")
    return ending
