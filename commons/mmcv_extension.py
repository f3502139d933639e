"""Where ``mmcv._ext`` comes from if mmcv has no compiled operators.

This module imports nothing heavy: ``import onebit`` calls :func:`install`, so that MMDetection can be
imported after it, in whatever order the user's program imports things.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from types import ModuleType

#: The module of compiled operators that ``import mmcv.ops`` asks for.
EXTENSION = "mmcv._ext"


class ExtensionFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds ``mmcv._ext`` when every finder before it has failed to.

    Args:
        operators: the module with the stand-ins (``FALLBACK_OPERATORS`` names them); its
            ``unavailable(name)`` answers for every other operator.
    """

    def __init__(self, operators: str):
        self.operators = operators

    def find_spec(self, fullname, path=None, target=None):
        if fullname == EXTENSION:
            return importlib.machinery.ModuleSpec(fullname, self, origin=self.operators)
        return None

    def exec_module(self, module: ModuleType) -> None:
        operators = importlib.import_module(self.operators)
        for name in operators.FALLBACK_OPERATORS:
            setattr(module, name, getattr(operators, name))
        vars(module)["__getattr__"] = operators.unavailable


def install(operators: str) -> None:
    """Serve ``mmcv._ext`` from the module named ``operators`` where no compiled one is found."""
    if not any(isinstance(finder, ExtensionFinder) for finder in sys.meta_path):
        sys.meta_path.append(ExtensionFinder(operators))
