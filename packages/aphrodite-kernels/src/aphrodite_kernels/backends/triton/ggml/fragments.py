"""Codes with scales in the order in which tensor cores take them.

A record holds 16 rows by 256 columns: the planes of the codes, then a header per row
(`encoding.py`). A plane is blocks of 16 rows by 16 16-bit words; word c of a row holds the codes of
column c of several consecutive runs of 16 columns, the first run lowest. Within a block lane
4 g + t of a warp finds eight words side by side: rows g and g + 8 of columns 4 t to 4 t + 3, which
are the operands of one matrix instruction (m16n8k16) for each run. So a warp loads 16 bytes per
lane, side by side, and nothing is exchanged between lanes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.backends.triton.ggml.codes import Fields, fields_of
from aphrodite_kernels.backends.triton.ggml.encoding import (
    ENCODINGS,
    TILE,
    UNIT,
    Encoding,
)
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import GgmlBlocks, PackedWeight

_CHUNK = 1 << 24
"""Elements packed or decoded at a time: bounds the memory of temporaries."""


@dataclass(frozen=True, eq=False)
class Fragments(PackedWeight):
    """`records` [N / 16, K / 256, 16-bit words of a record] int16; N and K are rounded up."""

    records: Tensor
    encoding: Encoding
    """How a record is written."""
    outputs: int
    """N; rows beyond it are zero."""
    inputs: int
    """K; columns beyond it are zero."""
    columns: Tensor | None = None
    """[K] int64: the input feature that each column is for; None: in order."""

    @property
    def in_features(self) -> int:
        return self.inputs

    @property
    def out_features(self) -> int:
        return self.outputs

    @property
    def nbytes(self) -> int:
        return self.records.nbytes + (0 if self.columns is None else self.columns.nbytes)

    @property
    def device(self) -> torch.device:
        return self.records.device

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        dense = torch.empty(self.outputs, self.inputs, dtype=dtype, device=self.device)
        for start, stop in _chunks(self.outputs, self.inputs):
            codes, header = unpacked(self.records[start // TILE : -(-stop // TILE)], self.encoding)
            part = decoded(codes, header, self.encoding)
            dense[start:stop] = part[: stop - start, : self.inputs]
        return self.in_order(dense)

    def in_order(self, stored: Tensor) -> Tensor:
        """Rows of K stored columns with each in the place of its input feature."""
        if self.columns is None:
            return stored
        ordered = torch.empty_like(stored)
        ordered[:, self.columns] = stored
        return ordered

    def rows(self, index: Tensor) -> Self:
        codes, header = unpacked(self.records, self.encoding)
        return replace(
            self,
            records=packed(codes[index], header[index], self.encoding),
            outputs=len(index),
        )

    def shard(self, axis: int, rank: int, size: int) -> Self:
        if axis == 1 and self.columns is not None:
            raise LayoutError("a weight with columns out of order has no parts along them")
        unit = (TILE, UNIT)[axis]
        extent = (self.outputs, self.inputs)[axis]
        if extent % (size * unit):
            raise LayoutError(
                f"{extent} elements along axis {axis} do not divide into {size} parts of whole "
                f"records of {unit}; split before the weight is packed"
            )
        part = extent // size
        records = self.records.narrow(axis, rank * part // unit, part // unit).contiguous()
        if axis == 0:
            return replace(self, records=records, outputs=part)
        return replace(self, records=records, inputs=part)

    @classmethod
    def stack(cls, weights: Sequence[PackedWeight]) -> Self:
        parts = cls.all_of(weights)
        kinds = {(part.encoding, part.inputs) for part in parts}
        if len(kinds) != 1 or any(part.outputs % TILE for part in parts[:-1]):
            raise LayoutError(
                f"cannot stack weights of different encoding or width, or with a part-filled "
                f"record inside: {kinds}; stack before they are packed"
            )
        if any(part.columns is not None for part in parts):
            raise LayoutError("weights whose columns are out of order stack before they are packed")
        records = torch.cat([part.records for part in parts])
        return replace(parts[0], records=records, outputs=sum(part.outputs for part in parts))

    def to(self, device: torch.device) -> Self:
        columns = None if self.columns is None else self.columns.to(device)
        return replace(self, records=self.records.to(device), columns=columns)


def pack_fragments(weight: PackedWeight) -> PackedWeight:
    """Blocks as records."""
    assert isinstance(weight, GgmlBlocks), f"bound to {type(weight).__name__}"
    encoding = ENCODINGS[weight.type]

    def fields(start: int, stop: int) -> Fields:
        blocks = weight.data[start:stop].reshape(-1, weight.type.block_bytes)
        codes, header = fields_of(blocks, weight.type)
        return codes.reshape(stop - start, -1), header.reshape(stop - start, -1)

    records = records_of(weight, encoding, fields)
    return Fragments(records, encoding, weight.out_features, weight.in_features)


def records_of(
    weight: PackedWeight, encoding: Encoding, fields: Callable[[int, int], Fields]
) -> Tensor:
    """The records of a weight, of whose rows [start, stop) `fields` gives codes and header bytes:
    [stop - start, K] and [stop - start, bytes of all units], uint8.
    """
    rows, columns = weight.out_features, weight.in_features
    shape = (-(-rows // TILE), -(-columns // UNIT), encoding.record)
    records = torch.empty(shape, dtype=torch.int16, device=weight.device)
    for start, stop in _chunks(rows, columns):
        codes, header = fields(start, stop)
        records[start // TILE : -(-stop // TILE)] = packed(
            _padded(codes, UNIT), _padded(header, 4 * encoding.words), encoding
        )
    return records


def _chunks(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Runs of whole tiles."""
    step = max(1, _CHUNK // (columns * TILE)) * TILE
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


def _padded(data: Tensor, multiple: int) -> Tensor:
    """Columns filled up with zeros."""
    return torch.nn.functional.pad(data, (0, -data.shape[1] % multiple))


def packed(codes: Tensor, header: Tensor, encoding: Encoding) -> Tensor:
    """Codes [n, K] and header [n, K / 256 * bytes], uint8 -> records [n / 16, K / 256, words]."""
    missing = -len(codes) % TILE
    codes = torch.nn.functional.pad(codes, (0, 0, 0, missing))
    header = torch.nn.functional.pad(header, (0, 0, 0, missing))
    tiles, units = len(codes) // TILE, codes.shape[1] // UNIT
    parts = [_plane(codes & ((1 << encoding.low) - 1), encoding.low)]
    if encoding.high:
        parts.append(_plane(codes >> encoding.low, encoding.high))
    parts.append(header.view(tiles, TILE, units, -1).transpose(1, 2).contiguous().view(torch.int16))
    return torch.cat([part.reshape(tiles, units, -1) for part in parts], 2)


def _plane(codes: Tensor, bits: int) -> Tensor:
    """Codes [n, K] -> int16 [n / 16, K / 256, 256 * bits]."""
    tiles, units = len(codes) // TILE, codes.shape[1] // UNIT
    runs = codes.view(len(codes), units * bits, 16 // bits, 16).to(torch.int32)
    words = runs[:, :, 0]
    for run in range(1, 16 // bits):
        words = words | runs[:, :, run] << bits * run
    order = words.view(tiles, 2, 8, units, bits, 4, 2, 2)  # tile hr g unit block t hc half
    return order.permute(0, 3, 4, 2, 5, 6, 1, 7).to(torch.int16).reshape(tiles, units, -1)


def unpacked(records: Tensor, encoding: Encoding) -> tuple[Tensor, Tensor]:
    """The inverse of `packed`."""
    tiles, units = records.shape[:2]
    sizes = [UNIT * encoding.low, UNIT * encoding.high, 2 * TILE * encoding.words]
    low, high, words = torch.split(records, sizes, 2)
    codes = _flat(low, encoding.low)
    if encoding.high:
        codes = codes | _flat(high, encoding.high) << encoding.low
    header = words.contiguous().view(torch.uint8).view(tiles, units, TILE, -1)
    return codes, header.transpose(1, 2).reshape(tiles * TILE, -1)


def _flat(plane: Tensor, bits: int) -> Tensor:
    """The inverse of `_plane`, as uint8."""
    tiles, units = plane.shape[:2]
    order = plane.reshape(tiles, units, bits, 8, 4, 2, 2, 2)  # tile unit block g t hc hr half
    words = order.permute(0, 6, 3, 1, 2, 4, 5, 7).reshape(tiles * TILE, units * bits, 1, 16)
    shifts = torch.arange(0, 16, bits, device=plane.device)[:, None]
    codes = (words.to(torch.int32) >> shifts) & ((1 << bits) - 1)
    return codes.to(torch.uint8).reshape(tiles * TILE, -1)


def decoded(codes: Tensor, header: Tensor, encoding: Encoding) -> Tensor:
    """The elements [n, K] float32, by the arithmetic of the blocks' decoders."""
    rows, columns = codes.shape
    scales, bias = _scales(header.reshape(-1, 4 * encoding.words), encoding)
    if encoding.table:
        values = torch.tensor(encoding.table, dtype=torch.float32, device=codes.device)
        q = values[codes.int()]
    elif encoding.signed:
        q = codes.view(torch.int8).float()
    elif encoding.floats:
        q = small_floats(*encoding.floats).to(codes.device)[codes.int()]
    else:
        q = codes.float() - (encoding.zero or 0)
    elements = q.view(-1, UNIT // encoding.group, encoding.group) * scales.unsqueeze(-1)
    if bias is not None:
        elements = elements + bias.unsqueeze(-1)
    return elements.view(rows, columns)


def small_floats(exponent: int, mantissa: int) -> Tensor:
    """The number of each pattern of a sign and so many bits of exponent and mantissa, float32."""
    own = exponent + mantissa
    code = torch.arange(2 << own, dtype=torch.int64)
    pattern = (code & (1 << own) - 1) << 23 - mantissa | code >> own << 31
    bits = torch.where(pattern < 1 << 31, pattern, pattern - (1 << 32)).int()
    return bits.view(torch.float32) * 2.0 ** (128 - 2 ** (exponent - 1))


def _scales(header: Tensor, encoding: Encoding) -> tuple[Tensor, Tensor | None]:
    """Header bytes [n, bytes] -> scale and bias of each group, [n, groups] float32."""
    groups = UNIT // encoding.group
    if encoding.header in ("float", "floats"):
        both = header.view(torch.float32).unflatten(1, (groups // encoding.span, -1))
        both = both.repeat_interleave(encoding.span, 1)
        return both[..., 0], both[..., 1] if encoding.header == "floats" else None
    halves = header.view(torch.float16).float()
    match encoding.header:
        case "half":
            return halves, None
        case "halves":
            return halves[:, 0::2], halves[:, 1::2]
        case "signed":
            unit = halves[:, -2:-1] * encoding.part
            return unit * header[:, :groups].view(torch.int8).float(), None
        case "bytes":
            scale, minimum = header[:, :groups], header[:, groups : 2 * groups]
        case "nibbles":
            scale, minimum = header[:, :groups] & 15, header[:, :groups] >> 4
    return halves[:, -2:-1] * scale.float(), -(halves[:, -1:] * minimum.float())
