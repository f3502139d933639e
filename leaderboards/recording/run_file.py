"""What was measured, as files: one run, one JSON file, sealed by its digest."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import pydantic
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr

from onebit.commons.errors import InputError
from onebit.commons.files import read_small, write_atomic
from onebit.leaderboards.recording.migration import require_known

if TYPE_CHECKING:
    from typing_extensions import Self

#: Bytes of the largest record that is read; the largest of this repository has 40 thousand.
LARGEST = 2**24


def _is_moment(text: str) -> str:
    """Raises ValueError, pydantic's way, where ``text`` is no moment in UTC."""
    # Python 3.10 does not read the Z that later versions do: a record is one on all of them or on none.
    if text.endswith("Z") or datetime.datetime.fromisoformat(text).utcoffset() != datetime.timedelta(0):
        raise ValueError("expected a moment in UTC, e.g. 2025-01-31T12:00:00+00:00")
    return text


def now() -> str:
    """This moment, as records state it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


Moment = Annotated[str, AfterValidator(_is_moment)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class RunFile(BaseModel):
    """A run that is kept below the folder of its ``board``, which subclasses have as a field.

    Attributes:
        AGAIN: what `onebit verify` says of runs that nothing can be computed from again; empty for a board's rows.
        path, sealed: of a run that was read: its file, and the digest that stands there.
        summary: the run in one line.
    """

    AGAIN: ClassVar[str] = ""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    _path: Path | None = PrivateAttr(None)
    _sealed: str | None = PrivateAttr(None)

    @property
    def path(self) -> Path | None:
        return self._path

    @property
    def sealed(self) -> str | None:
        return self._sealed

    @property
    def summary(self) -> str:
        raise NotImplementedError

    def file_name(self) -> str:
        """Follows from what was run: a new run of the same replaces the old one."""
        raise NotImplementedError

    @classmethod
    def parse(cls, content: dict[str, Any]) -> Self:
        """A run of the content of its file, less the digest.

        Raises:
            ValueError: something is missing, unknown or of another kind than it should be.
        """
        return cls.model_validate(content)

    def save(self, folder: str | Path) -> Path:
        """Write the run below ``folder``/<board>/ and return its path."""
        content = self.model_dump(mode="json")
        content["digest"] = digest(content)
        self._path = write_atomic(Path(folder) / self.board / self.file_name(), canonical(content))
        self._sealed = content["digest"]
        return self._path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read and check a run.

        Raises:
            InputError: not JSON, not of a schema that is known, changed since it was written, or
                under a path that does not follow from its content.
        """
        path = Path(path)
        content, sealed = _read(path)
        try:
            run = cls.parse(content)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "record"
            raise InputError(f"record {path}: {where}: {first['msg']}") from error
        except ValueError as error:
            raise InputError(f"record {path}: {error}") from error
        if (path.parent.name, path.name) != (run.board, run.file_name()):
            raise InputError(f"record {path} belongs at {run.board}/{run.file_name()}")
        run._path, run._sealed = path, sealed
        return run

    @classmethod
    def load_all(cls, folder: str | Path, board: str, dataset: str | None = None) -> Iterator[Self]:
        """All runs of a board in path order, of one dataset if it is given."""
        for path in sorted((Path(folder) / board).glob(f"{dataset or '*'}--*.json")):
            yield cls.load(path)


def read_content(path: Path) -> dict[str, Any]:
    """The content of a record's file as it stands there, without its digest, which was checked.

    Raises:
        InputError: not JSON, of a newer schema, or changed since it was written.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """The content, and the digest that was checked."""
    try:
        content = json.loads(read_small(path, LARGEST), parse_constant=_refuse_constant)
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, found a {type(content).__name__}")
        stored = content.pop("digest")
        require_known(content)
        changed = stored != digest(content)
    except OSError as error:
        raise InputError(f"cannot read record {path}: {error.strerror}") from error
    except InputError as error:
        raise InputError(f"record {path}: {error}") from error
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not a record: {error}") from error
    if changed:
        raise InputError(f"record {path} was changed after it was written (digest differs)")
    return content, stored


def _refuse_constant(name: str):
    raise ValueError(f"{name} is not a number")


def canonical(content: dict[str, Any]) -> bytes:
    """The bytes of a file of ``content``, in every version so far."""
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def digest(content: dict[str, Any]) -> str:
    """SHA-256 of a record's canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
