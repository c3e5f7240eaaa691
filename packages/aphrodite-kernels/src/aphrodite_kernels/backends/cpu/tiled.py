"""Quantised weights in tiles of sixteen outputs, as the compiled products read them.

The bytes are those of csrc/cpu/tile_format.h: exactly the codes and scales of the canonical layout,
in another order and of nearly the same size. Only the compiled library reads them.
"""

from collections.abc import Sequence
from ctypes import c_float, c_int64, c_void_p
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import address, require_whole
from aphrodite_kernels.backends.cpu.tile_format import FormatArgument, TileFormat
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_kernels.protocols import Embed

TILE = 16
"""Outputs of a tile."""

_BLOCK = 32


@dataclass(frozen=True, eq=False)
class Tiled(PackedWeight):
    """`codes` [tiles, K / 32, bytes of a block] and `scales` [tiles, bytes], both uint8."""

    codes: Tensor
    scales: Tensor
    format: TileFormat
    outputs: int
    """N; the last tile is padded."""
    columns: Tensor | None = None
    """[K] int32: the input feature that each stored column is for; None: in order."""

    @property
    def in_features(self) -> int:
        return self.codes.shape[1] * _BLOCK

    @property
    def out_features(self) -> int:
        return self.outputs

    @property
    def nbytes(self) -> int:
        columns = 0 if self.columns is None else self.columns.nbytes
        return self.codes.nbytes + self.scales.nbytes + columns

    @property
    def device(self) -> torch.device:
        return self.codes.device

    def parts(self) -> tuple[Tensor, ...]:
        """The tensors that kernels read."""
        columns = () if self.columns is None else (self.columns,)
        return (self.codes, self.scales, *columns)

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
        first = tiled[0]
        kinds = {(weight.format, weight.in_features) for weight in tiled}
        if len(kinds) != 1 or any(weight.outputs % TILE for weight in tiled[:-1]):
            raise LayoutError(
                f"cannot stack tiled weights of different format or width, or with a part-filled "
                f"tile inside: {kinds}"
            )
        if any(not _same_order(weight.columns, first.columns) for weight in tiled):
            raise LayoutError("cannot stack tiled weights whose columns are in different orders")
        return replace(
            first,
            codes=torch.cat([weight.codes for weight in tiled]),
            scales=torch.cat([weight.scales for weight in tiled]),
            outputs=sum(weight.outputs for weight in tiled),
        )

    def to(self, device: torch.device) -> Self:
        if device.type != "cpu":
            raise LayoutError(f"a tiled weight belongs to the CPU backend, not to {device}")
        return self


def _same_order(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)


class RowsArguments(Arguments):
    """Of csrc/cpu/ops/tiled_rows.cpp."""

    _fields_ = (
        ("index", c_void_p),
        ("codes", c_void_p),
        ("scales", c_void_p),
        ("columns", c_void_p),
        ("result", c_void_p),
        ("blocks", c_int64),
        ("width", c_int64),
        ("format", FormatArgument),
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
            columns=address(weight.columns),
            result=result.data_ptr(),
            blocks=weight.codes.shape[1],
            width=weight.outputs,
            format=weight.format.argument(),
            factor=scale,
        )
        run(arguments, tokens, *weight.parts(), result)
        return result

    return tiled_rows
