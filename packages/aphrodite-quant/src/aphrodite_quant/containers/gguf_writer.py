"""Writing GGUF files of version 3, little-endian, one tensor in memory at a time.

Descriptions come first and are known from types and shapes alone; the bytes of each tensor are then
asked for in turn. The file has its name only once it is whole.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import torch
from aphrodite_kernels.layouts import GgmlType
from torch import Tensor

from aphrodite_quant.containers.gguf import DEFAULT_ALIGNMENT, PLAIN
from aphrodite_quant.containers.gguf_header import ARRAY, SCALARS, STRING, MetadataValue, Scalar
from aphrodite_quant.containers.store import TensorInfo
from aphrodite_quant.errors import ContainerError

_CODES: Mapping[str, int] = {code: number for number, code in SCALARS.items()}
_BYTES = "tokenizer.ggml.precompiled_charsmap"
_TYPE_IDS: Mapping[torch.dtype, GgmlType] = {dtype: kind for kind, dtype in PLAIN.items()}


def write_gguf(
    path: Path,
    metadata: Mapping[str, MetadataValue],
    tensors: Sequence[TensorInfo],
    read: Callable[[TensorInfo], Tensor],
) -> None:
    """Write the file, in place of one that was there.

    A whole number becomes 32 bits without a sign, or with one if it is negative, or 64 bits if it
    must; those of an array have a sign. A float becomes 32 bits.

    Raises:
        ContainerError: a value that GGUF cannot hold, or a tensor that is not as was announced.
    """
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
        raise ContainerError(
            f"{path}: general.alignment is {alignment!r}, expected a power of two from 8 on"
        )
    head = _header(path, metadata, tensors, alignment)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(head)
            _pad(file, alignment)
            for info in tensors:
                _write_tensor(file, info, read(info))
                _pad(file, alignment)
        partial.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            partial.unlink()
        raise


def _header(
    path: Path,
    metadata: Mapping[str, MetadataValue],
    tensors: Sequence[TensorInfo],
    alignment: int,
) -> bytes:
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_string(key), _value(f"{path}: metadata key {key!r}", key, value)]
    offset = 0
    for info in tensors:
        kind = info.type if isinstance(info.type, GgmlType) else _TYPE_IDS.get(info.type)
        if kind is None or not 1 <= len(info.shape) <= 4 or info.shape[-1] % kind.block_size:
            raise ContainerError(
                f"{path}: tensor {info.name!r} is {info}; expected a type of GGUF, 1 to 4 "
                "dimensions and rows of whole blocks"
            )
        dimensions = struct.pack(f"<I{len(info.shape)}Q", len(info.shape), *info.shape[::-1])
        parts += [_string(info.name), dimensions, struct.pack("<IQ", kind, offset)]
        offset += -(-info.nbytes // alignment) * alignment
    return b"".join(parts)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(where: str, key: str, value: MetadataValue) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _string(value)
    if not isinstance(value, list):
        code = _code(where, [value], signed=False)
        return struct.pack(f"<I{code}", _CODES[code], value)
    if value and isinstance(value[0], str):
        if not all(isinstance(item, str) for item in value):
            raise ContainerError(f"{where} mixes strings with other values")
        strings = b"".join(_string(str(item)) for item in value)
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + strings
    code = "B" if key == _BYTES else _code(where, value, signed=True)
    items = [int(item) & 0xFF for item in value] if key == _BYTES else value
    return struct.pack(f"<IIQ{len(items)}{code}", ARRAY, _CODES[code], len(items), *items)


def _code(where: str, values: Sequence[Scalar], *, signed: bool) -> str:
    """The struct format that holds all of the values."""
    if all(isinstance(value, bool) for value in values) and values:
        return "?"
    if any(isinstance(value, float) for value in values):
        return "f"
    numbers = [value for value in values if isinstance(value, int)]
    if len(numbers) != len(values):
        raise ContainerError(f"{where} holds values of a kind that GGUF has not")
    least, most = min(numbers, default=0), max(numbers, default=0)
    ranges = {"i": (-(1 << 31), 1 << 31), "q": (-(1 << 63), 1 << 63), "Q": (0, 1 << 64)}
    if least >= 0 and not signed:
        ranges = {"I": (0, 1 << 32)} | ranges
    for code, (low, end) in ranges.items():
        if low <= least and most < end:
            return code
    raise ContainerError(f"{where} holds a number beyond 64 bits")


def _write_tensor(file: BinaryIO, info: TensorInfo, tensor: Tensor) -> None:
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    if len(data) != info.nbytes:
        raise ContainerError(
            f"tensor {info.name!r} was announced as {info}, {info.nbytes} bytes; "
            f"{len(data)} were given"
        )
    file.write(data.numpy().data)


def _pad(file: BinaryIO, alignment: int) -> None:
    file.write(bytes(-file.tell() % alignment))
