"""What is measured but is no row of a board: one run, one JSON file, sealed by its digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pydantic
from pydantic import BaseModel, ConfigDict

from commons.errors import InputError
from commons.files import write_atomic
from leaderboards.record import digest, read_content

if TYPE_CHECKING:
    from typing_extensions import Self


class RunFile(BaseModel):
    """A run that is kept below the folder of its ``board``, which subclasses have as a field."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    def file_name(self) -> str:
        """Follows from what was run: a new run of the same replaces the old one."""
        raise NotImplementedError

    def save(self, folder: str | Path) -> Path:
        """Write the run below ``folder``/<board>/ and return its path."""
        content = self.model_dump(mode="json")
        content["digest"] = digest(content)
        text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
        return write_atomic(Path(folder) / self.board / self.file_name(), text)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read and check a run.

        Raises:
            InputError: not a run, changed since it was written, or at another path than its own.
        """
        path = Path(path)
        content = read_content(path)
        try:
            run = cls.model_validate(content)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "record"
            raise InputError(f"record {path}: {where}: {first['msg']}") from error
        if (path.parent.name, path.name) != (run.board, run.file_name()):
            raise InputError(f"record {path} belongs at {run.board}/{run.file_name()}")
        return run
