"""Checkpoint files of anybody: tensors and plain values are read, nothing is executed.

A checkpoint is a pickle, which is a program. torch's restricted reader has had holes
(CVE-2025-32434: before torch 2.6 a file could run code under ``weights_only=True``), and Python's
unpickler can be made to take all memory before it calls anything. So the instructions are followed
here, the few that tensors and plain values need. No name of a file is ever imported: a name has a
meaning of ours (:data:`_MEANINGS`), or the file is refused with it.

What a file claims (sizes, counts, depth) is compared with its length before memory is taken.
"""

from __future__ import annotations

import io
import math
import os
import pickletools
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from onebit.commons.errors import InputError

#: Instructions of one pickle; a detector with its optimizer has some ten thousand.
MAX_INSTRUCTIONS = 2_000_000
#: Values below values. Checkpoints of trainers have up to about ten.
MAX_DEPTH = 50
#: Bytes of a pickle, whose tensors are beside it, and of the table of contents of an archive.
MAX_PICKLE, MAX_CONTENTS = 512 * 2**20, 8 * 2**20
_MAX_LINE = 2**20
_MAX_DIMENSIONS = 32
#: The number that the format before torch 1.6 begins with, and that number's pickle.
_OLD_MAGIC = 0x1950A86A20F9469CFC6C
_OLD_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
_DTYPES = {
    str(dtype): dtype
    for dtype in (
        *_STORAGES.values(),
        *(getattr(torch, n) for n in ("uint16", "uint32", "uint64") if hasattr(torch, n)),
    )
}


class _Refused(Exception):
    """Says what was refused."""


def read_checkpoint(path: str | Path) -> Any:
    """What a checkpoint holds, by any program that writes them with ``torch.save``.

    Returns:
        tensors (on the CPU, without gradient), numbers, texts, bytes, None, and lists, tuples, sets and
        dicts of them. Arrays of NumPy become tensors, its numbers Python's, and mmengine's
        ``HistoryBuffer`` becomes ``{"log_history": tensor, "count_history": tensor, "max_length": number}``.

    Raises:
        InputError: there is no such file, it is damaged, or it holds anything else.
    """
    return _guarded(Path(path), "a checkpoint that can be read without executing what it says", "checkpoint", _read)


def read_pickle(path: str | Path, kind: str) -> Any:
    """What a pickle holds that is no checkpoint: the same kinds of values.

    Args:
        kind: what it should be, for the message.

    Raises:
        InputError: there is no such file, it is damaged, or it holds anything else.
    """

    def read(stream: io.BufferedReader) -> Any:
        return _Interpreter(_Bounded(stream, os.fstat(stream.fileno()).st_size), _no_storage).run()

    return _guarded(Path(path), kind, "file", read)


def _guarded(path: Path, kind: str, noun: str, read: Callable[[io.BufferedReader], Any]) -> Any:
    """What ``read`` makes of a file, its errors in one line."""
    try:
        if not path.is_file():
            raise InputError(f"{noun} not found: {path}")
        with path.open("rb") as stream:
            return _Settling().settled(read(stream))
    except _Refused as refused:
        reason = str(refused)
    except OSError as error:
        reason = error.strerror or str(error)
    except MemoryError:
        reason = "it does not fit into memory"
    except InputError:
        raise
    except Exception as error:  # what a damaged file leads to: a stack that is empty, a number too large
        reason = f"it is damaged ({type(error).__name__}: {_shown(str(error))})"
    raise InputError(f"{path} is not {kind}: {reason}")


def _read(stream: io.BufferedReader) -> Any:
    size = os.fstat(stream.fileno()).st_size
    start = stream.read(512)
    stream.seek(0)
    bounded = _Bounded(stream, size)
    if start.startswith(b"PK\x03\x04"):
        return _read_archive(bounded)
    if start.startswith(_OLD_START):
        return _read_old(bounded)
    if start[257:262] == b"ustar":
        raise _Refused("it is a tar archive, as torch wrote before version 0.1.10")
    raise _Refused("it was not written by torch.save")


class _Bounded(io.RawIOBase):
    """A file of which no more than it has is read at once: what is asked for is allocated before it is read."""

    def __init__(self, stream: io.BufferedReader | io.BytesIO, size: int, limit: int = MAX_PICKLE) -> None:
        self._stream, self._size, self._limit = stream, size, limit
        self.left = size  # bytes that storages may still claim

    def read(self, count: int = -1) -> bytes:
        rest = self._size - self._stream.tell()
        if count is None or count < 0:
            count = rest
        if count > self._limit:
            raise _Refused(f"a part of {count} bytes is too long")
        return self._stream.read(min(count, rest))

    def readinto(self, buffer: Any) -> int:
        return self._stream.readinto(buffer)

    def readline(self, limit: int | None = -1) -> bytes:
        return self._stream.readline(_MAX_LINE)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True

    def storage(self, dtype: torch.dtype, count: Any) -> _Storage:
        """Room for ``count`` numbers, if the file is long enough to hold them."""
        if type(count) is not int or count < 0 or count * dtype.itemsize > self.left:
            raise _Refused(f"a storage claims {_shown(count)} numbers, more than the file has")
        self.left -= count * dtype.itemsize
        return _Storage(dtype, count)


def _read_archive(file: _Bounded) -> Any:
    """The format since torch 1.6: a zip archive of ``NAME/data.pkl`` and ``NAME/data/KEY``, not compressed."""
    limit, file._limit = file._limit, MAX_CONTENTS
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise _Refused(f"the archive is damaged ({_shown(str(error))})") from error
    file._limit = limit
    entries = {entry.filename: entry for entry in archive.infolist()}
    if len(entries) != len(archive.infolist()):
        raise _Refused("the archive has two parts of one name")
    pickles = [name for name in entries if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise _Refused("the archive has no data.pkl, or several")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in entries:
        raise _Refused("it is a TorchScript program")
    claimed = {}

    def part(name: str) -> zipfile.ZipInfo:
        entry = entries.get(folder + name)
        if entry is None:
            raise _Refused(f"the archive lacks {_shown(name)}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
            raise _Refused(f"{_shown(name)} is compressed or encrypted, which torch.save does not do")
        return entry

    if f"{folder}byteorder" in entries:
        order = archive.read(part("byteorder")) if part("byteorder").file_size < 10 else b""
        if order != sys.byteorder.encode():
            raise _Refused(f"its bytes are in another order ({_shown(order)})")

    def storage(kind: Any, key: Any, count: Any) -> _Storage:
        if key not in claimed:
            claimed[key] = file.storage(kind, count)
            entry, target = part(f"data/{key}"), claimed[key].bytes
            if entry.file_size != len(target):
                raise _Refused(f"data/{_shown(key)} has {entry.file_size} bytes, not {len(target)}")
            with archive.open(entry) as source:
                _fill(target, source)
        return claimed[key]

    entry = part("data.pkl")
    if entry.file_size > MAX_PICKLE:
        raise _Refused(f"data.pkl of {entry.file_size} bytes is too long")
    content = archive.read(entry)
    return _Interpreter(_Bounded(io.BytesIO(content), len(content)), storage).run()


def _no_storage(*_: Any) -> _Storage:
    raise _Refused("a storage at a wrong place")


def _read_old(file: _Bounded) -> Any:
    """The format before torch 1.6: five pickles, then the storages."""
    if _Interpreter(file, _no_storage).run() != _OLD_MAGIC or _Interpreter(file, _no_storage).run() != 1001:
        raise _Refused("its version is not known")
    _Interpreter(file, _no_storage).run()  # of the machine that wrote it
    claimed: dict[str, _Storage] = {}

    def storage(kind: Any, key: Any, count: Any) -> _Storage:
        if key not in claimed:
            claimed[key] = file.storage(kind, count)
        return claimed[key]

    content = _Interpreter(file, storage).run()
    keys = _Interpreter(file, _no_storage).run()
    if not isinstance(keys, list) or not all(type(key) is str for key in keys) or sorted(keys) != sorted(claimed):
        raise _Refused("its list of storages is not that of its tensors")
    for key in keys:
        if int.from_bytes(file.read(8), "little") != claimed[key].count:
            raise _Refused(f"storage {_shown(key)} has another length than its tensors say")
        _fill(claimed[key].bytes, file)
    return content


def _fill(target: memoryview, source) -> None:
    """Copy as many bytes as ``target`` has, in pieces."""
    start = 0
    while start < len(target):
        piece = source.read(min(2**20, len(target) - start))
        if not piece:
            raise _Refused("the file ends before its tensors do")
        target[start : start + len(piece)] = piece
        start += len(piece)


class _Storage:
    """Numbers that tensors share.

    Attributes:
        bytes: the same memory, to be written.
    """

    def __init__(self, dtype: torch.dtype, count: int) -> None:
        self.dtype, self.count = dtype, count
        length = count * dtype.itemsize
        self._memory = torch.empty(length, dtype=torch.uint8)
        self.bytes = self._memory.numpy().data

    def tensor(self, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
        dtype = dtype or self.dtype
        count = self.count * self.dtype.itemsize // dtype.itemsize
        numbers = (offset, *size, *stride) if isinstance(size, tuple) and isinstance(stride, tuple) else (None,)
        if not all(type(n) is int and 0 <= n < 2**62 for n in numbers) or len(size) != len(stride):
            raise _Refused("a tensor's size is not a list of numbers")
        if len(size) > _MAX_DIMENSIONS:
            raise _Refused(f"a tensor of {len(size)} dimensions")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if all(size) else 0
        if last >= max(count, 1) or math.prod(size) > count:
            shape = _shown("x".join(map(str, size)))
            raise _Refused(f"a tensor of {shape} numbers claims more than its storage of {count}")
        found = torch.empty(0, dtype=dtype)
        return found.set_(self._memory.untyped_storage(), offset if all(size) else 0, size, stride)


class _Name:
    """What a name in a file stands for: a call gives a value, if it means one that is known here."""

    def __init__(self, name: str, meaning: Any) -> None:
        self.name, self.meaning = name, meaning

    def __call__(self, arguments: Any) -> Any:
        if not callable(self.meaning) or not isinstance(arguments, tuple):
            raise _Refused(f"it calls {self.name}")
        try:
            return self.meaning(*arguments)
        except TypeError as error:
            raise _Refused(f"it calls {self.name} with other arguments than checkpoints do") from error


class _NumberType:
    """NumPy's dtype of plain numbers."""

    def __init__(self, code: str, *_: Any) -> None:
        if code not in ("b1", "f2", "f4", "f8", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8))):
            raise _Refused(f"an array of type {_shown(code)}")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise _Refused("an array of a type that is not a number's")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array of NumPy: its state follows when it has been made."""

    tensor: torch.Tensor | None = None

    def build(self, state: Any) -> torch.Tensor:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _NumberType):
            raise _Refused("an array of anything but numbers")
        _, shape, kind, fortran, content = state
        content = content.encode("latin1") if isinstance(content, str) else content
        plain = isinstance(shape, tuple) and all(type(n) is int and 0 <= n < 2**62 for n in shape)
        if not plain or not isinstance(content, bytes) or math.prod(shape) * kind.dtype.itemsize != len(content):
            raise _Refused("an array whose shape is not that of its numbers")
        array = np.frombuffer(content, kind.dtype).reshape(shape, order="F" if fortran else "C")
        self.tensor = torch.from_numpy(np.ascontiguousarray(array, kind.dtype.newbyteorder("=")).copy())
        return self.tensor


class _History:
    """mmengine's history of a scalar."""

    state: dict[str, Any] | None = None

    def build(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise _Refused("a HistoryBuffer without numbers")
        found = {"log_history": state.get("_log_history"), "count_history": state.get("_count_history")}
        if not all(isinstance(value, _Array) for value in found.values()) or type(state.get("max_length")) is not int:
            raise _Refused("a HistoryBuffer without numbers")
        self.state = {**found, "max_length": state["max_length"]}


def _ordered(pairs: Any = ()) -> OrderedDict:
    return OrderedDict((_key(key), value) for key, value in pairs)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    if not isinstance(storage, _Storage):
        raise _Refused("a tensor without storage")
    return storage.tensor(offset, size, stride)


def _tensor_of_type(storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any):
    if not isinstance(storage, _Storage) or not isinstance(dtype, torch.dtype):
        raise _Refused("a tensor without storage or type")
    return storage.tensor(offset, size, stride, dtype)


def _parameter(tensor: Any, *_: Any) -> torch.Tensor:
    if not isinstance(tensor, torch.Tensor):
        raise _Refused("a parameter that is no tensor")
    return tensor


def _scalar(kind: Any, content: Any) -> Any:
    array = _Array()
    return array.build((1, (), kind, False, content)).item()


def _encoded(text: Any, codec: Any = "latin1") -> bytes:
    """How Python 3 writes bytes in the protocol that torch.save uses."""
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise _Refused("bytes in a code that is not latin1")
    return text.encode("latin1")


def _attribute(owner: Any, name: Any) -> None:
    """Of a HistoryBuffer, which names its statistics; they are not needed."""
    if getattr(owner, "meaning", None) is not _History or name not in ("min", "max", "mean", "current"):
        raise _Refused(f"it asks for getattr of {_shown(name)}")


def _of_kind(kind: type) -> Callable[[Any], Any]:
    def made(value: Any = ()) -> Any:
        if not isinstance(value, (tuple, list)):
            raise _Refused(f"a {kind.__name__} of anything but a list")
        return kind(map(_key, value))

    return made


def _counted(counts: Any = None) -> dict:
    if not isinstance(counts, dict):
        raise _Refused("a Counter of anything but a dict")
    return counts


def _device(kind: Any, index: Any = "") -> str:
    return f"{_shown(kind)}:{_shown(index)}"


#: What names mean. All of them make values here; none is the thing that the name belongs to.
_MEANINGS: dict[str, Any] = {
    "collections.OrderedDict": _ordered,
    "collections.Counter": _counted,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _of_kind(tuple),
    "torch.device": _device,
    "numpy.ndarray": None,
    "numpy.dtype": _NumberType,
    "_codecs.encode": _encoded,
    "mmengine.logging.history_buffer.HistoryBuffer": _History,
    **{f"{builtins}.set": _of_kind(set) for builtins in ("builtins", "__builtin__")},
    **{f"{builtins}.getattr": _attribute for builtins in ("builtins", "__builtin__")},
    **{f"numpy.{core}.multiarray._reconstruct": lambda *_: _Array() for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"torch.{name}": dtype for name, dtype in _STORAGES.items() if name != "UntypedStorage"},
    "torch.storage.UntypedStorage": torch.uint8,
}


def _meaning(module: Any, name: Any) -> Any:
    full = f"{_shown(module)}.{_shown(name)}"
    if full in _DTYPES:
        return _DTYPES[full]
    if full not in _MEANINGS:
        raise _Refused(f"it asks for {full}; save its state_dict alone")
    return _Name(full, _MEANINGS[full])


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = {"PROTO", "FRAME", "STOP"}
#: Numbers, texts and bytes that stand in the pickle.
_LITERALS = re.compile(
    r"INT|BININT[12]?|LONG[14]?|(BIN)?FLOAT|(SHORT_)?(BINSTRING|BINUNICODE|BINBYTES)8?|STRING|UNICODE"
)


class _Interpreter:
    """Follows the instructions of one pickle.

    Args:
        stream: positioned at its beginning; stands behind its end afterwards.
        storage: type, key and number of elements to their storage.
    """

    def __init__(self, stream: _Bounded, storage: Callable[[Any, Any, Any], _Storage]) -> None:
        self._stream, self._storage = stream, storage
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._budget = stream.left + MAX_INSTRUCTIONS

    def run(self) -> Any:
        for count, (instruction, argument, _) in enumerate(pickletools.genops(cast(io.BufferedReader, self._stream))):
            if count >= MAX_INSTRUCTIONS:
                raise _Refused(f"it has more than {MAX_INSTRUCTIONS} instructions")
            self._follow(instruction.name, argument)
        return self._stack.pop()

    def _follow(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[argument])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            stack.append(tuple(self._take(_TUPLES[name])))
        elif name == "TUPLE":
            stack.append(tuple(self._marked()))
        elif name == "LIST":
            stack.append(self._marked())
        elif name in ("DICT", "SETITEM", "SETITEMS"):
            items = self._take(2) if name == "SETITEM" else self._marked()
            if name == "DICT":
                stack.append({})
            self._fill_dict(stack[-1], items)
        elif name in ("APPEND", "APPENDS"):
            items = self._take(1) if name == "APPEND" else self._marked()
            self._of(list).extend(items)
        elif name == "ADDITEMS":
            items = self._marked()
            self._of(set).update(map(_key, items))
        elif name == "GLOBAL":
            stack.append(_meaning(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack.append(_meaning(*self._take(2)))
        elif name in ("REDUCE", "NEWOBJ"):
            function, arguments = self._take(2)
            if not isinstance(function, _Name):
                raise _Refused(f"it calls a {type(function).__name__}")
            self._charge(arguments)
            stack.append(function(arguments))
        elif name == "BUILD":
            self._build(*self._take(1))
        elif name == "BINPERSID":
            stack.append(self._stored(stack.pop()))
        elif _LITERALS.fullmatch(name):
            stack.append(_literal(argument))
        elif name not in _IGNORED:
            raise _Refused(f"it has the instruction {name}, which no checkpoint needs")

    def _charge(self, parts: Any) -> None:
        """What calls copy is as long as the file at most: one text can be named in a million calls."""
        sized = (str, bytes, list, tuple, dict, set)
        inner = parts if isinstance(parts, tuple) else ()
        self._budget -= sum(len(part) for part in (parts, *inner) if isinstance(part, sized)) // 2
        if self._budget < 0:
            raise _Refused("it copies its own parts too often")

    def _take(self, count: int) -> list[Any]:
        taken = self._stack[-count:]
        if len(taken) < count:
            raise _Refused("it is damaged")
        del self._stack[-count:]
        return taken

    def _marked(self) -> list[Any]:
        start = self._marks.pop()
        taken = self._stack[start:]
        del self._stack[start:]
        return taken

    def _of(self, kind: type) -> Any:
        found = self._stack[-1]
        if type(found) is not kind:
            raise _Refused(f"it adds to a {type(found).__name__}")
        return found

    def _fill_dict(self, target: Any, items: list[Any]) -> None:
        if not isinstance(target, dict) or len(items) % 2:
            raise _Refused("it adds to what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def _build(self, state: Any) -> None:
        target = self._stack[-1]
        self._charge(state)
        if isinstance(target, OrderedDict):  # torch keeps the versions of modules there
            if not isinstance(state, dict) or not set(state) <= {"_metadata"}:
                raise _Refused("an OrderedDict with attributes")
            target.__dict__.update(state)
        elif isinstance(target, (_NumberType, _Array, _History)):
            target.build(state)
        else:
            raise _Refused(f"it changes a {type(target).__name__}")

    def _stored(self, identity: Any) -> _Storage:
        if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
            raise _Refused("a storage that is none")
        _, kind, key, _, count, *view = identity
        if (
            not isinstance(kind, _Name)
            or not isinstance(kind.meaning, torch.dtype)
            or type(key) is not str
            or any(view)
        ):
            raise _Refused("a storage of a type that is not known")
        found = self._storage(kind.meaning, key, count)
        if (found.dtype, found.count) != (kind.meaning, count):
            raise _Refused(f"storage {_shown(key)} is named with two types or lengths")
        return found


class _Settling:
    """Puts values in the place of what stands for them, and refuses what would take others' recursion too deep.

    A list that contains itself has no end, and one that contains another twice, sixty times over, more
    parts than any program can walk through: both are small files.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, Any, int, int]] = {}

    def settled(self, value: Any) -> Any:
        return self._walk(value, 0)[0]

    def _walk(self, value: Any, depth: int) -> tuple[Any, int, int]:
        """The value, how many parts it has and how deep they are nested."""
        if value is None or isinstance(value, (bool, int, float, str, bytes, torch.Tensor, torch.dtype)):
            return value, 1, 0
        if id(value) in self._known:
            _, found, size, height = self._known[id(value)]
        else:
            if depth >= MAX_DEPTH:
                raise _Refused(f"its values are nested more than {MAX_DEPTH} deep")
            found, size, height = self._parts(value, depth + 1)
            self._known[id(value)] = value, found, size, height
        if size > MAX_INSTRUCTIONS or depth + height > MAX_DEPTH:
            raise _Refused("its values contain each other too often or too deeply")
        return found, size, height

    def _parts(self, value: Any, depth: int) -> tuple[Any, int, int]:
        if isinstance(value, _Array) and value.tensor is not None:
            return value.tensor, 1, 0
        if isinstance(value, _History) and value.state is not None:
            value = value.state
        if isinstance(value, dict):
            walked = {key: self._walk(part, depth) for key, part in value.items()}
            value.update((key, part) for key, (part, _, _) in walked.items())
            extra = getattr(value, "__dict__", {})
            if "_metadata" in extra:
                extra["_metadata"] = self._walk(extra["_metadata"], depth)[0]
            return value, *self._measure(walked.values())
        if isinstance(value, (list, tuple)):
            items = [self._walk(part, depth) for part in value]
            parts = [part for part, _, _ in items]
            if isinstance(value, list):
                value[:] = parts
            else:
                value = tuple(parts)
            return value, *self._measure(items)
        if isinstance(value, set):
            return value, 1 + len(value), 1
        raise _Refused(
            f"it holds {value.name if isinstance(value, _Name) else 'something that is neither tensor nor value'}"
        )

    def _measure(self, walked: Iterable[tuple[Any, int, int]]) -> tuple[int, int]:
        sizes, heights = [size for _, size, _ in walked], [height for *_, height in walked]
        return 1 + sum(sizes), 1 + max(heights, default=0)


def _key(value: Any) -> Any:
    """What may be a key: a tuple of tuples can take forever to hash."""
    if value is not None and not isinstance(value, (bool, int, float, str, bytes)):
        raise _Refused(f"a key that is a {type(value).__name__}")
    return value


def _literal(value: Any) -> Any:
    if type(value) is int and value.bit_length() > 128:
        raise _Refused(f"a number of {value.bit_length()} bits")
    if type(value) is str and not value.isascii():
        value.encode()  # half characters, which cannot be printed, are an error
    return value


def _shown(value: Any) -> str:
    """For a message: short, and without characters that a terminal obeys."""
    text = value if isinstance(value, str) else repr(value) if isinstance(value, (int, bytes)) else type(value).__name__
    text = "".join(c if c.isprintable() else "?" for c in text[:100])
    return text if len(text) < 100 else f"{text}..."
