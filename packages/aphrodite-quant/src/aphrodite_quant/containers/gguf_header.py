"""Parsing the head of a GGUF file: bounds are checked before anything is read or allocated.

It knows the file's grammar (counts, typed values, strings, tensor descriptions) and nothing of
what keys mean, nor of where tensors lie.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aphrodite_quant.errors import ContainerError

Scalar = int | float | bool | str
MetadataValue = Scalar | list[int] | list[float] | list[bool] | list[str]
"""A value of GGUF metadata: integers of every width are int, both floats are float."""

SCALARS: Mapping[int, str] = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
"""Value types of one number each -> struct format."""
STRING, ARRAY = 8, 9
"""The other value types."""
_LEAST_ENTRY = 8 + 4 + 1
"""Bytes of the shortest metadata entry: length of an empty key, type, a value of one byte."""
_LEAST_TENSOR = 8 + 4 + 4 + 8
_MOST_DIMENSIONS = 4
_LONGEST_NAME = 1024


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A tensor as its file describes it."""

    name: str
    extents: tuple[int, ...]
    """Elements per dimension, fastest first."""
    type_id: int
    offset: int
    """From the start of the data section."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Everything before the data section."""

    version: int
    metadata: Mapping[str, MetadataValue]
    tensors: tuple[TensorRecord, ...]
    size: int
    """Bytes from the start of the file to the end of the last description."""


class Cursor:
    """A position in the mapped file; every read checks that the file holds what it asks for."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.path = path
        self.position = 0
        self._data = data
        self._end = len(data)

    def fail(self, problem: str) -> ContainerError:
        """An error that names the file and the place."""
        return ContainerError(f"{self.path}: corrupt GGUF at byte {self.position}: {problem}")

    def need(self, count: int, size: int, what: str) -> None:
        """Raise unless `count` items of `size` bytes remain."""
        left = self._end - self.position
        if count * size > left:
            raise self.fail(f"{count} {what} need at least {count * size} bytes, {left} are left")

    def number(self, code: str, what: str) -> int | float | bool:
        """One scalar of a struct format."""
        return self.numbers(code, 1, what)[0]

    def integer(self, code: str, what: str) -> int:
        """One integer of a struct format."""
        return int(self.number(code, what))

    def numbers(self, code: str, count: int, what: str) -> tuple[int | float | bool, ...]:
        """`count` scalars of a struct format."""
        size = struct.calcsize(code)
        self.need(count, size, what)
        values = struct.unpack_from(f"<{count}{code}", self._data, self.position)
        self.position += count * size
        return values

    def string(self, what: str) -> str:
        """A length and as many bytes of UTF-8."""
        return self.strings(1, what)[0]

    def name(self, what: str) -> str:
        """A string short enough to be a name."""
        name = self.string(what)
        if len(name) > _LONGEST_NAME:
            raise self.fail(
                f"one of the {what} has {len(name)} letters, not at most {_LONGEST_NAME}"
            )
        return name

    def strings(self, count: int, what: str) -> list[str]:
        """`count` strings; the loop is kept tight, a vocabulary has up to 260 000."""
        self.need(count, 8, what)
        data, at, end = self._data, self.position, self._end
        length_at = struct.Struct("<Q").unpack_from
        found: list[str] = []
        try:
            for _ in range(count):
                start = at + 8
                stop = start + length_at(data, at)[0]
                if stop > end:
                    raise struct.error
                found.append(str(data[start:stop], "utf-8"))
                at = stop
        except struct.error as error:
            self.position = at
            raise self.fail(f"string {len(found)} of {what} ends past the file") from error
        except UnicodeDecodeError as error:
            self.position = at
            raise self.fail(f"string {len(found)} of {what} is not UTF-8") from error
        self.position = at
        return found


def read_header(data: mmap.mmap, path: Path) -> GgufHeader:
    """Parse the head of a mapped GGUF file of version 2 or 3."""
    cursor = Cursor(data, path)
    version = _version(cursor, data[:4])
    tensor_count = cursor.integer("Q", "tensor count")
    entry_count = cursor.integer("Q", "metadata count")
    cursor.need(entry_count, _LEAST_ENTRY, "metadata entries")
    metadata: dict[str, MetadataValue] = {}
    for _ in range(entry_count):
        key = cursor.name("metadata keys")
        if key in metadata:
            raise cursor.fail(f"metadata key {key!r} occurs twice")
        metadata[key] = _value(cursor, key)
    cursor.need(tensor_count, _LEAST_TENSOR, "tensor descriptions")
    tensors = tuple(_tensor(cursor) for _ in range(tensor_count))
    return GgufHeader(version, metadata, tensors, cursor.position)


def _version(cursor: Cursor, magic: bytes) -> int:
    if magic in (b"lmgg", b"tjgg", b"fmgg"):
        raise ContainerError(
            f"{cursor.path} is in a ggml format older than GGUF: convert it with llama.cpp's tools"
        )
    if magic != b"GGUF":
        raise ContainerError(f"{cursor.path} is not GGUF: it starts with {magic!r}, not b'GGUF'")
    cursor.position = 4
    version = cursor.integer("I", "version")
    if version & 0xFFFF == 0 and version:
        raise ContainerError(
            f"{cursor.path} is big-endian GGUF, which is not supported: convert it with "
            "gguf-convert-endian"
        )
    if version not in (2, 3):
        raise ContainerError(f"{cursor.path} is GGUF version {version}; 2 and 3 are supported")
    return version


def _value(cursor: Cursor, key: str) -> MetadataValue:
    kind = cursor.integer("I", f"type of {key!r}")
    if kind == STRING:
        return cursor.string(repr(key))
    if kind == ARRAY:
        return _array(cursor, key)
    if kind not in SCALARS:
        raise cursor.fail(f"metadata key {key!r} has unknown value type {kind}")
    return cursor.number(SCALARS[kind], repr(key))


def _array(cursor: Cursor, key: str) -> MetadataValue:
    kind = cursor.integer("I", f"element type of {key!r}")
    count = cursor.integer("Q", f"length of {key!r}")
    if kind == STRING:
        return cursor.strings(count, repr(key))
    if kind not in SCALARS:
        what = "arrays" if kind == ARRAY else f"unknown type {kind}"
        raise cursor.fail(f"metadata key {key!r} is an array of {what}")
    return list(cursor.numbers(SCALARS[kind], count, repr(key)))


def _tensor(cursor: Cursor) -> TensorRecord:
    name = cursor.name("tensor names")
    dimensions = cursor.integer("I", f"dimensions of {name!r}")
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise cursor.fail(f"tensor {name!r} has {dimensions} dimensions, expected 1 to 4")
    extents = tuple(int(extent) for extent in cursor.numbers("Q", dimensions, f"shape of {name!r}"))
    if min(extents) < 1:
        raise cursor.fail(f"tensor {name!r} is empty: its shape is {list(extents)}")
    type_id = cursor.integer("I", f"type of {name!r}")
    return TensorRecord(name, extents, type_id, cursor.integer("Q", f"offset of {name!r}"))
