"""The methods of search by name, each a class in a file of its own, imported when asked for."""

from __future__ import annotations

import importlib

from onebit.classification.search.strategies.base import Report, Schedule, SearchData, Strategy
from onebit.commons import guards

_CLASSES = {
    "dcp-nas": ("dcp_nas", "DCPNAS"),
    "cp-nas": ("cp_nas", "CPNAS"),
    "bnas": ("bnas", "BNAS"),
    "abanditnas": ("abanditnas", "ABanditNAS"),
    "darts": ("darts", "DARTS"),
    "pc-darts": ("pc_darts", "PCDARTS"),
    "random": ("random", "RandomSearch"),
}
#: Names of the methods.
METHODS = tuple(_CLASSES)


def get_strategy(method: str) -> type[Strategy]:
    """The class of a method.

    Raises:
        InputError: unknown name; the message lists the known ones.
    """
    module, name = _CLASSES[guards.known("search method", method, METHODS)]
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


__all__ = ["METHODS", "Report", "Schedule", "SearchData", "Strategy", "get_strategy"]
