"""Options of a search method: a frozen dataclass whose fields pydantic checks and does not convert."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from onebit.classification.search.job import option_names
from onebit.commons import guards
from onebit.commons.errors import InputError

Options = TypeVar("Options")

#: Of every dataclass of options.
STRICT = ConfigDict(strict=True, allow_inf_nan=False)
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]

_WORDS = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False, "none": None}


def read_options(method: str, kind: type[Options], given: Mapping[str, Any]) -> Options:
    """The options of a method from values or their texts (``tangent=off``, ``mu=0.1``).

    Args:
        method: its name, for messages.
        kind: its dataclass of options.
        given: values by name, as :func:`option_names` takes them.

    Raises:
        InputError: not an option of the method, or not one of its values.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"{method}: expected options by name, found {guards.shown(given)}")
    fields = {field.name.rstrip("_"): field.name for field in dataclasses.fields(kind)}
    read = {}
    for name, value in option_names(given).items():
        field = fields[guards.known(f"option of {method}", name.rstrip("_"), fields)]
        if isinstance(value, str):
            value = _WORDS.get(value.lower(), guards.plain_number(value))
        read[field] = value
    try:
        return kind(**read)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).rstrip("_")
        # One for each kind of value that the option may have.
        kinds = [each["msg"] for each in error.errors() if each["loc"][0] == first["loc"][0]]
        expected = " or ".join(kinds).replace("Input should be", "expected", 1).replace("Input should be ", "")
        raise InputError(f"{method}, option {name} {guards.shown(first['input'])}: {expected}") from None
