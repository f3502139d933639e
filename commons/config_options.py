"""Lay the user's dotted overrides over a config, refusing those it has no place for.

mmengine's own merge adds a key that is not there: a misspelt `train_cfg.max_epoch=2` would be
taken without a word and change nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from onebit.commons.errors import InputError


def with_options(cfg: Config, options: Mapping[str, Any], free: Sequence[str] = ()) -> Config:
    """A copy of ``cfg`` with ``options`` merged.

    Args:
        cfg: the config; it stays as it is.
        options: dotted key to value; list items are keyed by their index.
        free: keys that are taken though the recipe lacks them, and any key below them; with a dot at
            the end, only those below. They are arguments of something that checks them itself (an
            optimizer, a network).

    Raises:
        InputError: an override of something ``cfg`` does not have.
    """
    known = set(dotted(cfg.to_dict(), lists=True))
    for name in dotted(options):
        if name not in known and not _is_free(name, free):
            last = name.split(".")[-1]
            near = sorted(k for k in known if k.split(".")[-1] == last)  # right key, wrong place
            near += difflib.get_close_matches(name, sorted({*known, *free}), n=3)
            near = near or sorted(cfg.to_dict())
            raise InputError(f"the recipe has no option {name!r}; did you mean {', '.join(near)}?")
    cfg = cfg.copy()
    try:
        cfg.merge_from_dict(dict(options))
    except (KeyError, IndexError, TypeError, ValueError, AssertionError) as error:
        raise InputError(f"the options {dict(options)} do not fit the recipe: {error}") from error
    return cfg


def _is_free(name: str, free: Sequence[str]) -> bool:
    """Whether ``free`` has ``name`` or what it lies below; a longer word is another key."""
    return any(name == key or name.startswith(key if key[-1] == "." else f"{key}.") for key in free)


def dotted(values: Mapping | Sequence, prefix: str = "", lists: bool = False) -> Iterator[str]:
    """Every key of nested mappings, and of lists where asked, by its dotted name."""
    items = values.items() if isinstance(values, Mapping) else enumerate(values)
    for key, value in items:
        if key != "_delete_":
            yield f"{prefix}{key}"
        if isinstance(value, Mapping) or (lists and isinstance(value, list)):
            yield from dotted(value, f"{prefix}{key}.", lists)
