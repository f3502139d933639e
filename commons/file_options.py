"""Options that a file states (a record, a checkpoint, a packed file) are data.

On the command line and in a config of one's own an option may set anything: `type` and a dotted name
make mmengine build, and so call, whatever can be imported. A file may be anybody's. What it states may
set what a schema declares: numbers, switches, and words that are looked up in a list of ours.

The two cannot be mixed up: what a file states is a :class:`StatedOptions`, which is no mapping and which
no config takes; :class:`FileOptions` are made of it by a schema, and in no other way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from onebit.commons import guards
from onebit.commons.errors import InputError

#: Takes an option's name and value; raises InputError for a value that is not of its kind.
Kind = Callable[[str, Any], Any]
_MOST = 2**20
_MOST_VALUES, _MOST_DEPTH = 64, 6
_PART = re.compile(r"[A-Za-z]\w*|\d{1,3}", re.ASCII)
_WORD = re.compile(r"[A-Za-z]\w{0,63}", re.ASCII)


def quantity(field: str, value: Any) -> Any:
    """A number, or True or False."""
    return value if isinstance(value, bool) else guards.number(field, value, -_MOST, _MOST)


def word(field: str, value: Any) -> str:
    """A name to be looked up: no path, no dotted name."""
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise InputError(f"{field} {guards.shown(value)}: expected a name")
    return value


def one_of(*choices: str) -> Kind:
    return lambda field, value: guards.choice(field, value, choices)


def up_to(most: int) -> Kind:
    return lambda field, value: guards.whole(field, value, 0, most)


@dataclass(frozen=True)
class Schema:
    """What options of a file may set.

    Attributes:
        kinds: pattern of dotted names to what they take; the first that fits counts. Lists are of that
            kind item by item, and None is always taken.
        wholes: the same for values that are mappings and checked as one.
        unused: patterns of names that only training uses. What of them is not declared is left out
            where a file states it, because nothing is trained by a file's options.
    """

    kinds: Mapping[str, Kind]
    wholes: Mapping[str, Kind] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    def leaves(self, key: str, value: Any, depth: int = 0) -> Iterator[tuple[str, Kind | None, Any]]:
        """Every value below ``key`` with its dotted name and kind; None where it is not declared."""
        parts = key.split(".") if len(key) < 200 else [""]
        named = all(_PART.fullmatch(part) and part != "type" for part in parts)
        if named and isinstance(value, Mapping) and (kind := _first(self.wholes, key)):
            yield key, kind, value
        elif named and isinstance(value, Mapping) and depth < _MOST_DEPTH and len(value) <= _MOST_VALUES:
            for name, inner in value.items():
                yield from self.leaves(f"{key}.{name}", inner, depth + 1)
        elif named and isinstance(value, (list, tuple)) and depth < _MOST_DEPTH and len(value) <= _MOST_VALUES:
            for number, inner in enumerate(value):
                nested = isinstance(inner, (Mapping, list, tuple))
                yield from self.leaves(f"{key}.{number}" if nested else key, inner, depth + 1)
        else:
            kind = _first(self.kinds, key) if named else None
            yield key, kind, value


def _first(table: Mapping[str, Kind], key: str) -> Kind | None:
    return next((table[pattern] for pattern in table if re.fullmatch(pattern, key)), None)


class StatedOptions:
    """What a file states, before it was held against a schema."""

    def __init__(self, stated: Any, origin: Any) -> None:
        self._stated, self._origin = stated, origin

    def __eq__(self, other: object) -> bool:
        return self._stated == (other._stated if isinstance(other, StatedOptions) else other)

    def __repr__(self) -> str:
        return guards.shown(self._stated)

    def taken(self, schema: Schema, overridden: Iterable[str] = (), below: str = "") -> FileOptions:
        """The options that ``schema`` lets a file set.

        Args:
            overridden: names of options that the user gave: of these, what the file says does not count.
            below: start of the names that are asked for; others are not looked at.

        Raises:
            InputError: a value of another kind, or an option that no file may set.
        """
        stated = self._stated
        if not isinstance(stated, Mapping) or not all(isinstance(key, str) for key in stated):
            raise InputError(f"{self._origin} takes no options {guards.shown(stated)}: expected names and values")
        taken, left_out = {}, []
        for key, value in stated.items():
            if not key.startswith(below) or any(key == name or key.startswith(f"{name}.") for name in overridden):
                continue
            try:
                for name, kind, part in schema.leaves(key, value):
                    unused = any(re.match(pattern, name) for pattern in schema.unused)
                    if kind is None:
                        raise InputError(
                            f"{self._origin} takes no options {guards.shown(name)} from a file; if you trust it, give "
                            f"it yourself, with --cfg-options"
                        )
                    if part is not None:
                        kind(f"{self._origin}: option {name}", part)
                taken[key] = value
            except InputError:
                if not unused:
                    raise
                left_out.append(key)
        return FileOptions._of(taken, tuple(left_out))


class FileOptions(Mapping[str, Any]):
    """Options of a file that a schema lets it set; :meth:`StatedOptions.taken` makes them.

    Attributes:
        left_out: names of those that are for training only and were not taken.
    """

    left_out: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._taken: dict[str, Any] = {}

    @classmethod
    def _of(cls, taken: dict[str, Any], left_out: tuple[str, ...]) -> FileOptions:
        found = cls()
        found._taken, found.left_out = taken, left_out
        return found

    def __getitem__(self, name: str) -> Any:
        return self._taken[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._taken)

    def __len__(self) -> int:
        return len(self._taken)
