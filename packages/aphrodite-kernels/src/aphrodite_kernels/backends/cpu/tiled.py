"""Quantised weights in tiles of sixteen outputs, as the compiled products read them.

The bytes are those of csrc/cpu/tile_format.h: exactly the codes and scales of the ggml blocks, in
another order and of nearly the same size. Only the compiled library packs and reads them.
"""

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_float, c_int32, c_int64, c_void_p
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import require_whole
from aphrodite_kernels.backends.cpu.weight_memory import WeightMemory
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import GgmlBlocks, GgmlType, PackedWeight
from aphrodite_kernels.protocols import Embed, Repack

TILE = 16
"""Outputs of a tile."""

_BLOCK = 32


@dataclass(frozen=True, eq=False)
class Tiled(PackedWeight):
    """`codes` [tiles, K / 32, bytes of a block] and `scales` [tiles, bytes], both uint8."""

    codes: Tensor
    scales: Tensor
    type: GgmlType
    """Of the blocks that it was packed from."""
    outputs: int
    """N; the last tile is padded."""

    @property
    def in_features(self) -> int:
        return self.codes.shape[1] * _BLOCK

    @property
    def out_features(self) -> int:
        return self.outputs

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.scales.nbytes

    @property
    def device(self) -> torch.device:
        return self.codes.device

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        index = torch.arange(self.outputs, dtype=torch.int32)
        return tiled_rows_on(Runtime(threads=1))(index, self, 1.0).to(dtype)

    def rows(self, index: Tensor) -> Self:
        raise LayoutError(
            "rows of a tiled weight cannot be picked without repacking; "
            "use the backend's embed, or pick rows before it is packed"
        )

    def narrow(self, start: int, stop: int) -> Self:
        """Outputs start … stop - 1, sharing memory; start is a multiple of 16."""
        if start % TILE or not 0 <= start < stop <= self.outputs:
            raise LayoutError(
                f"outputs {start} to {stop} of {self.outputs} are no run of whole tiles of {TILE}"
            )
        tiles = slice(start // TILE, -(-stop // TILE))
        return replace(
            self, codes=self.codes[tiles], scales=self.scales[tiles], outputs=stop - start
        )

    def shard(self, axis: int, rank: int, size: int) -> Self:
        if axis != 0 or self.outputs % (size * TILE):
            raise LayoutError(
                f"a tiled weight splits along N in multiples of {TILE}, not {self.outputs} outputs "
                f"into {size} along axis {axis}; split before it is packed"
            )
        part = self.outputs // size
        return self.narrow(rank * part, (rank + 1) * part)

    @classmethod
    def stack(cls, weights: Sequence[PackedWeight]) -> Self:
        tiled = cls.all_of(weights)
        kinds = {(weight.type.name, weight.in_features) for weight in tiled}
        if len(kinds) != 1 or any(weight.outputs % TILE for weight in tiled[:-1]):
            raise LayoutError(
                f"cannot stack tiled weights of different type or width, or with a part-filled "
                f"tile inside: {kinds}"
            )
        return cls(
            torch.cat([weight.codes for weight in tiled]),
            torch.cat([weight.scales for weight in tiled]),
            tiled[0].type,
            sum(weight.outputs for weight in tiled),
        )

    def to(self, device: torch.device) -> Self:
        if device.type != "cpu":
            raise LayoutError(f"a tiled weight belongs to the CPU backend, not to {device}")
        return self


class PackArguments(Arguments):
    """Of csrc/cpu/ops/tile_pack.cpp."""

    _fields_ = (
        ("source", c_void_p),
        ("codes", c_void_p),
        ("scales", c_void_p),
        ("row_bytes", c_int64),
        ("blocks", c_int64),
        ("type", c_int32),
    )


def pack_tiles_on(runtime: Runtime) -> Repack:
    """Packing of ggml blocks; a type that has no tiles stays as it is."""
    run = runtime.op("tile_pack")
    memory = WeightMemory()
    code_bytes = _sizes(runtime, "aph_tile_code_bytes")
    scale_bytes = _sizes(runtime, "aph_tile_scale_bytes")

    def pack_tiles(weight: PackedWeight) -> PackedWeight:
        assert isinstance(weight, GgmlBlocks), f"bound to {type(weight).__name__}"
        kind, blocks = weight.type, weight.in_features // _BLOCK
        if not code_bytes(kind, 1):
            return weight
        tiles = -(-weight.out_features // TILE)
        codes = memory.empty(tiles, blocks, code_bytes(kind, 1))
        scales = memory.empty(tiles, scale_bytes(kind, blocks))
        source = weight.data.contiguous()
        arguments = PackArguments(
            rows=weight.out_features,
            source=source.data_ptr(),
            codes=codes.data_ptr(),
            scales=scales.data_ptr(),
            row_bytes=source.shape[1],
            blocks=blocks,
            type=kind,
        )
        run(arguments, source, codes, scales)
        return Tiled(codes, scales, kind, weight.out_features)

    return pack_tiles


def _sizes(runtime: Runtime, name: str) -> Callable[[int, int], int]:
    """A function of the library from a type and a number of blocks to bytes."""
    prototype = ctypes.CFUNCTYPE(c_int64, ctypes.c_int, c_int64)
    return prototype((name, runtime.library))


class RowsArguments(Arguments):
    """Of csrc/cpu/ops/tiled_rows.cpp."""

    _fields_ = (
        ("index", c_void_p),
        ("codes", c_void_p),
        ("scales", c_void_p),
        ("result", c_void_p),
        ("blocks", c_int64),
        ("width", c_int64),
        ("type", c_int32),
        ("factor", c_float),
    )


def tiled_rows_on(runtime: Runtime) -> Embed:
    """The look-up of rows."""
    run = runtime.op("tiled_rows")

    def tiled_rows(tokens: Tensor, weight: PackedWeight, scale: float) -> Tensor:
        assert isinstance(weight, Tiled), f"bound to {type(weight).__name__}"
        require_whole("tokens", tokens, None, dtype=torch.int32)
        result = runtime.empty(tokens.shape[0], weight.in_features)
        arguments = RowsArguments(
            rows=tokens.shape[0],
            index=tokens.data_ptr(),
            codes=weight.codes.data_ptr(),
            scales=weight.scales.data_ptr(),
            result=result.data_ptr(),
            blocks=weight.codes.shape[1],
            width=weight.outputs,
            type=weight.type,
            factor=scale,
        )
        run(arguments, tokens, weight.codes, weight.scales, result)
        return result

    return tiled_rows
