"""From canonical layouts to tiles, once, when a model is loaded."""

from collections.abc import Iterator, Mapping
from ctypes import byref, c_int32, c_int64, c_void_p

import torch
from torch import Tensor
from torch.nn import functional

from aphrodite_kernels.backends.cpu.codebook import Vectors
from aphrodite_kernels.backends.cpu.coded import BLOCK, CODED_LAYOUTS, Coded, coded
from aphrodite_kernels.backends.cpu.narrow import Narrow
from aphrodite_kernels.backends.cpu.row_grouped import RowScaled
from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import address
from aphrodite_kernels.backends.cpu.tile_format import FormatArgument, TileFormat
from aphrodite_kernels.backends.cpu.tiled import TILE, Tiled
from aphrodite_kernels.backends.cpu.trellis import Unrolled
from aphrodite_kernels.backends.cpu.weight_memory import WeightMemory
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import GgmlBlocks, Lookup, PackedWeight
from aphrodite_kernels.layouts.codebook import Codebook
from aphrodite_kernels.layouts.ggml.grids import grid_codes
from aphrodite_kernels.layouts.row_grouped import RowGrouped
from aphrodite_kernels.layouts.sourced import Sourced
from aphrodite_kernels.layouts.trellis import Trellis
from aphrodite_kernels.protocols import Repack

_SOURCED: Mapping[type[PackedWeight], type[Sourced]] = {
    Codebook: Vectors,
    RowGrouped: RowScaled,
    Trellis: Unrolled,
}
PACKED_LAYOUTS = (*CODED_LAYOUTS, GgmlBlocks, Lookup, *_SOURCED)
"""What there may be kernels for, once it is packed."""

_SLAB = 1 << 20
"""Weights of which codes and scales are made at a time: they stay near the processor's caches."""


class BlocksArguments(Arguments):
    """Of csrc/cpu/ops/tile_pack.cpp."""

    _fields_ = (
        ("source", c_void_p),
        ("codes", c_void_p),
        ("scales", c_void_p),
        ("grid", c_void_p),
        ("row_bytes", c_int64),
        ("blocks", c_int64),
        ("type", c_int32),
    )


class CodesArguments(Arguments):
    """Of csrc/cpu/ops/tile_codes.cpp."""

    _fields_ = (
        ("source", c_void_p),
        ("codes", c_void_p),
        ("row_bytes", c_int64),
        ("blocks", c_int64),
        ("format", FormatArgument),
        ("bits", c_int32),
        ("flip", c_int32),
    )


def pack_on(runtime: Runtime) -> Repack:
    """Packing: to tiles, or if there are none for the weight, to narrow floats; some layouts stay.

    A weight that has none of them stays as it is.
    """
    pack_tiles = pack_tiles_on(runtime)

    def pack(weight: PackedWeight) -> PackedWeight:
        if sourced := _SOURCED.get(type(weight)):
            return sourced.of(weight) or weight
        tiled = pack_tiles(weight)
        return tiled if isinstance(tiled, Tiled) else Narrow.of(weight) or weight

    return pack


def pack_tiles_on(runtime: Runtime) -> Repack:
    """Packing to tiles; a weight that has none stays as it is."""
    packer = _Packer(runtime)

    def pack_tiles(weight: PackedWeight) -> PackedWeight:
        if isinstance(weight, GgmlBlocks) and (format_ := packer.format_of(weight)):
            return packer.blocks(weight, format_)
        first = coded(weight.rows(torch.arange(min(1, weight.out_features))))
        return weight if first is None else packer.coded(weight, first)

    return pack_tiles


class _Packer:
    """Tiles one behind the other."""

    def __init__(self, runtime: Runtime) -> None:
        self._library = runtime.library
        self._memory = WeightMemory()
        self._pack_blocks = runtime.op("tile_pack")
        self._pack_codes = runtime.op("tile_codes")

    def format_of(self, weight: GgmlBlocks) -> TileFormat | None:
        """What the library makes of a ggml type."""
        argument = FormatArgument()
        exists = self._library.aph_tile_format_of(weight.type, byref(argument))
        return TileFormat.of(argument) if exists else None

    def blocks(self, weight: GgmlBlocks, format_: TileFormat) -> Tiled:
        """Codes and scales as the blocks have them."""
        tiled = self._empty(weight, format_, None)
        source = weight.data.contiguous()
        points = grid_codes(weight.type, source.device)
        arguments = BlocksArguments(
            rows=weight.out_features,
            source=source.data_ptr(),
            codes=tiled.codes.data_ptr(),
            scales=tiled.scales.data_ptr(),
            grid=address(points),
            row_bytes=source.shape[1],
            blocks=tiled.codes.shape[1],
            type=weight.type,
        )
        grids = () if points is None else (points,)
        self._pack_blocks(arguments, source, tiled.codes, tiled.scales, *grids)
        return tiled

    def coded(self, weight: PackedWeight, first: Coded) -> Tiled:
        """A slab of rows at a time; `first` is coded as all rows are."""
        tiled = self._empty(weight, first.format, _checked(first.columns, weight))
        for tiles, rows in _slabs(weight):
            part = coded(weight.rows(rows))
            assert part is not None and part.format == first.format
            records = _records(part)
            tiled.scales[tiles].copy_(records)
            codes, source = tiled.codes[tiles], part.codes.contiguous()
            arguments = CodesArguments(
                rows=len(rows),
                source=source.data_ptr(),
                codes=codes.data_ptr(),
                row_bytes=source.shape[1],
                blocks=codes.shape[1],
                format=part.format.argument(),
                bits=part.bits,
                flip=part.flip,
            )
            self._pack_codes(arguments, source, codes)
        return tiled

    def _empty(self, weight: PackedWeight, format_: TileFormat, columns: Tensor | None) -> Tiled:
        tiles, blocks = -(-weight.out_features // TILE), weight.in_features // BLOCK
        argument = byref(format_.argument())
        codes = self._memory.empty(tiles, blocks, self._library.aph_tile_code_bytes(argument, 1))
        scales = self._memory.empty(tiles, self._library.aph_tile_scale_bytes(argument, blocks))
        return Tiled(codes, scales, format_, weight.out_features, columns)


def _slabs(weight: PackedWeight) -> Iterator[tuple[slice, Tensor]]:
    """Tiles, and the rows in them."""
    height = max(1, _SLAB // max(1, TILE * weight.in_features))
    for tile in range(0, -(-weight.out_features // TILE), height):
        last = min((tile + height) * TILE, weight.out_features)
        rows = torch.arange(tile * TILE, last)
        yield slice(tile, -(-last // TILE)), rows


def _records(part: Coded) -> Tensor:
    """Scales and minima [tiles, bytes], rows of sixteen, those of missing outputs nought."""
    numbers = part.scale
    if part.minimum is not None:
        numbers = torch.stack((part.scale, part.minimum), -1).flatten(1)
    padded = functional.pad(numbers, (0, 0, 0, -len(numbers) % TILE))
    return padded.unflatten(0, (-1, TILE)).transpose(1, 2).contiguous().view(torch.uint8).flatten(1)


def _checked(columns: Tensor | None, weight: PackedWeight) -> Tensor | None:
    """The order of columns as kernels read it, without asking."""
    if columns is None:
        return None
    order = torch.arange(weight.in_features, dtype=columns.dtype)
    if not torch.equal(columns.sort().values, order):
        raise LayoutError(
            f"the order of {weight.in_features} columns does not name each of them once; "
            "convert the checkpoint again"
        )
    return columns.to(torch.int32).contiguous()
