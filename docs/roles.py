"""A griffe extension: the roles of docstrings, ``:func:`name```, become code in the pages."""

from __future__ import annotations

import re

import griffe

_ROLE = re.compile(r":(?:func|class|mod|meth|attr|data|obj|exc):(`~?[^`]+`)")


class Roles(griffe.Extension):
    """Rewrites the docstring of every object that is collected."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        if obj.docstring:
            obj.docstring.value = _ROLE.sub(lambda m: m[1].replace("~", ""), obj.docstring.value)
