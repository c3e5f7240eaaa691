"""Weights of narrow floats, widened to float32 as they are read: csrc/cpu/narrow.h.

Codes stay where the canonical layout has them, perhaps in a mapped file; only scales are made anew.
"""

from ctypes import Structure, c_float, c_int64, c_void_p
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.product import Operand, ProductArguments, product_on
from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import address, require_whole
from aphrodite_kernels.layouts import Lookup, Microscaled, PackedWeight, Scaled
from aphrodite_kernels.layouts.sourced import Sourced
from aphrodite_kernels.protocols import Embed, MatMul


class NarrowArgument(Structure):
    """A weight as the compiled library takes it."""

    _fields_ = (
        ("codes", c_void_p),
        ("table", c_void_p),
        ("scale", c_void_p),
        ("code_stride", c_int64),
        ("table_stride", c_int64),
        ("scale_stride", c_int64),
        ("depth", c_int64),
        ("width", c_int64),
        ("height", c_int64),
        ("group", c_int64),
    )


@dataclass(frozen=True, eq=False)
class Narrow(Sourced):
    """`source`, and its parts as kernels read them."""

    codes: Tensor
    """[N, bytes of a row] uint8: float8_e4m3fn, or two codes of four bits."""
    table: Tensor | None
    """[N or 1, 16] float32, of codes of four bits."""
    scale: Tensor | None
    """[ceil(N / block[0]), ceil(K / block[1])] float32; None: all are 1."""
    block: tuple[int, int]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts())

    def parts(self) -> tuple[Tensor, ...]:
        """The tensors that kernels read."""
        return tuple(part for part in (self.codes, self.table, self.scale) if part is not None)

    def argument(self) -> NarrowArgument:
        """The weight for the library."""
        table, scale = self.table, self.scale
        return NarrowArgument(
            codes=self.codes.data_ptr(),
            table=address(table),
            scale=address(scale),
            code_stride=self.codes.stride(0),
            table_stride=0 if table is None or len(table) == 1 else 16,
            scale_stride=0 if scale is None else scale.shape[1],
            depth=self.in_features,
            width=self.out_features,
            height=self.block[0],
            group=self.block[1],
        )

    @classmethod
    def of(cls, source: PackedWeight) -> Self | None:
        """The weight, if its elements are narrow floats."""
        if isinstance(source, Scaled) and source.weight.dtype == torch.float8_e4m3fn:
            codes = source.weight.contiguous().view(torch.uint8)
            return cls(source, codes, None, source.scale.contiguous(), source.block)
        if isinstance(source, Microscaled) and source.elements.dtype == torch.float8_e4m3fn:
            scale = source.scale.float()
            if source.row_scale is not None:
                scale = scale * source.row_scale
            codes = source.elements.contiguous().view(torch.uint8)
            return cls(source, codes, None, scale.contiguous(), (1, source.group))
        if isinstance(source, Lookup) and source.bits == 4 and source.group % 2 == 0:
            scale = None if source.scale is None else source.scale.contiguous()
            codes, table = source.codes.contiguous(), source.table.contiguous()
            return cls(source, codes, table, scale, (1, source.group))
        return None


class NarrowMatmulArguments(ProductArguments):
    """Of csrc/cpu/ops/floats/narrow_matmul.cpp."""

    _fields_ = (("weight", NarrowArgument),)


class NarrowRowsArguments(Arguments):
    """Of csrc/cpu/ops/floats/narrow_rows.cpp."""

    _fields_ = (
        ("index", c_void_p),
        ("result", c_void_p),
        ("weight", NarrowArgument),
        ("factor", c_float),
    )


def narrow_matmul_on(runtime: Runtime) -> MatMul:
    """The product with narrow floats, in float32, for any number of rows."""
    return product_on(runtime, "narrow_matmul", NarrowMatmulArguments, _operand_of)


def _operand_of(weight: PackedWeight) -> Operand:
    assert isinstance(weight, Narrow), f"bound to {type(weight).__name__}"
    return Operand(weight.parts(), {"weight": weight.argument()})


def narrow_rows_on(runtime: Runtime) -> Embed:
    """The look-up of rows."""
    run = runtime.op("narrow_rows")

    def narrow_rows(tokens: Tensor, weight: PackedWeight, scale: float) -> Tensor:
        assert isinstance(weight, Narrow), f"bound to {type(weight).__name__}"
        require_whole("tokens", tokens, None, dtype=torch.int32)
        result = runtime.empty(tokens.shape[0], weight.in_features)
        arguments = NarrowRowsArguments(
            rows=tokens.shape[0],
            index=tokens.data_ptr(),
            result=result.data_ptr(),
            weight=weight.argument(),
            factor=scale,
        )
        run(arguments, tokens, *weight.parts(), result)
        return result

    return narrow_rows
