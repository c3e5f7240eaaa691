"""Trellis-coded weights, decoded as they are multiplied, where the file has them."""

from ctypes import c_int32, c_int64, c_void_p
from dataclasses import dataclass
from typing import Self

import torch

from aphrodite_kernels.backends.cpu.product import Operand, ProductArguments, product_on
from aphrodite_kernels.backends.cpu.runtime import Runtime
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.layouts.sourced import Sourced
from aphrodite_kernels.layouts.trellis import Trellis, TrellisCodebook
from aphrodite_kernels.protocols import MatMul

_CODEBOOKS = tuple(TrellisCodebook)
"""In the order of csrc/cpu/trellis_numbers.h."""


@dataclass(frozen=True, eq=False)
class Unrolled(Sourced):
    """A trellis of which the first rows and columns count; its parts are whole."""

    source: Trellis

    @classmethod
    def of(cls, source: PackedWeight) -> Self | None:
        """The weight, if it is a trellis of whose rows none but the last are left out."""
        if not isinstance(source, Trellis):
            return None
        picked = source.picked
        if picked is not None and not torch.equal(picked, torch.arange(len(picked))):
            return None
        parts = (source.trellis, source.suh, source.svh)
        trellis, suh, svh = (part.contiguous() for part in parts)
        return cls(Trellis(trellis, suh, svh, source.codebook, picked, source.width))


class TrellisMatmulArguments(ProductArguments):
    """Of csrc/cpu/ops/floats/trellis_matmul.cpp."""

    _fields_ = (
        ("trellis", c_void_p),
        ("suh", c_void_p),
        ("svh", c_void_p),
        ("depth", c_int64),
        ("width", c_int64),
        ("columns", c_int64),
        ("outputs", c_int64),
        ("pair_bits", c_int32),
        ("codebook", c_int32),
    )


def trellis_matmul_on(runtime: Runtime) -> MatMul:
    """The product with a trellis, in float32, for any number of rows."""
    return product_on(runtime, "trellis_matmul", TrellisMatmulArguments, _operand_of)


def _operand_of(weight: PackedWeight) -> Operand:
    assert isinstance(weight, Unrolled), f"bound to {type(weight).__name__}"
    source = weight.source
    fields = {
        "trellis": source.trellis.data_ptr(),
        "suh": source.suh.data_ptr(),
        "svh": source.svh.data_ptr(),
        "depth": len(source.suh),
        "width": len(source.svh),
        "columns": weight.in_features,
        "outputs": weight.out_features,
        "pair_bits": source.pair_bits,
        "codebook": _CODEBOOKS.index(source.codebook),
    }
    return Operand((source.trellis, source.suh, source.svh), fields)
