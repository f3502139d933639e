"""Packages of other people that bring binarizers, backbones and datasets.

A package is found by an entry point of one of :data:`GROUPS`, whose value is the module to import, or
because the user named a module (``--import``, which sets ``ONEBIT_IMPORT``: worker processes inherit
it). Importing the module is enough: it calls ``register_binarizer``, ``register_family`` or
``register_dataset``. Nothing is searched or imported before a name is looked up that the suite does not
have itself.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from importlib import metadata

from onebit.commons.errors import InputError

#: The entry point groups of packages that are found once they are installed.
GROUPS = ("onebit.backbones", "onebit.datasets")
#: Modules to import besides, separated by commas.
VARIABLE = "ONEBIT_IMPORT"
#: Called after each package: they raise InputError where names collide.
CHECKS: list[Callable[[], None]] = []

_OWN = __name__.partition(".")[0]
_loaded: dict[str, str] = {}  # module to how it was found
_found = False  # whether the entry points were read
_failure: InputError | None = None
_registrants: dict[int, str] = {}  # by id: what is registered stays


def load() -> None:
    """Import the packages that were not imported yet.

    Raises:
        InputError: a package cannot be imported, or one of :data:`CHECKS` refuses it; again at every
            later call, because half of what the package registers may be there.
    """
    global _found, _failure
    if _failure:
        raise _failure
    points = [] if _found else [point for group in GROUPS for point in metadata.entry_points(group=group)]
    _found = True
    modules = [(point.value, _of_entry_point(point)) for point in points]
    modules += [(name, "--import") for name in os.environ.get(VARIABLE, "").split(",") if name]
    for module, how in modules:
        if module not in _loaded:
            _loaded[module] = how  # before its import: that may look names up itself
            try:
                _load_one(module, how)
            except InputError as error:
                _failure = error
                raise


def _load_one(module: str, how: str) -> None:
    try:
        importlib.import_module(module)
        for check in CHECKS:
            check()
    except (Exception, SystemExit) as error:  # whatever another's code does at import
        text = " ".join(str(error).split())
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        hint = ""
        if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
            hint = "; is it installed, or its folder on PYTHONPATH?"
        raise InputError(f"cannot use package {module} ({how}): {kind}{text}{hint}") from error


def _of_entry_point(point: metadata.EntryPoint) -> str:
    origin = f" of {point.dist.name} {point.dist.version}" if point.dist else ""
    return f"entry point {point.name}{origin}"


def loaded() -> dict[str, str]:
    """The modules that were imported, each with how it was found."""
    return dict(_loaded)


def note_registrant(registered: object) -> None:
    """Remember which module called the function that calls this one."""
    _registrants.setdefault(id(registered), sys._getframe(2).f_globals.get("__name__", ""))


def package_of(registered: object) -> tuple[str, str] | None:
    """Name and version of the package that registered something; None for this suite's own.

    The name is that of the installed distribution, else of the top-level module; the version is the
    distribution's, else the module's ``__version__``, else ``unknown``.
    """
    module = _registrants.get(id(registered), _OWN).partition(".")[0]
    if module == _OWN:
        return None
    for name in _distributions(tuple(sys.path)).get(module, ()):
        return name, metadata.version(name)
    return module, str(getattr(sys.modules.get(module), "__version__", "unknown"))


@functools.cache
def _distributions(_: tuple[str, ...]) -> Mapping[str, list[str]]:
    """Module to the distributions on ``sys.path`` that have it: the lists of all their files are read, for seconds."""
    return metadata.packages_distributions()
