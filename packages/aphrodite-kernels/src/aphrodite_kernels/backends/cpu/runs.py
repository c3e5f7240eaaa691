"""Runs of columns packed in different ways: a product of each, added up.

Columns are brought into order and scaled in the rows that are multiplied, once for all runs.
"""

from collections.abc import Callable
from ctypes import c_int64, c_void_p

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.fallback import any_embed_on
from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import address, require_rows
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.layouts.runs import Runs
from aphrodite_kernels.protocols import Embed, Embeds, MatMul, MatMuls


class ArrangeColumnsArguments(Arguments):
    """Of csrc/cpu/ops/floats/arrange_columns.cpp."""

    _fields_ = (
        ("x", c_void_p),
        ("columns", c_void_p),
        ("scale", c_void_p),
        ("shift", c_void_p),
        ("result", c_void_p),
        ("shifted", c_void_p),
        ("x_stride", c_int64),
        ("width", c_int64),
    )


class AddRowsArguments(Arguments):
    """Of csrc/cpu/ops/floats/add_rows.cpp."""

    _fields_ = (
        ("result", c_void_p),
        ("other", c_void_p),
        ("number", c_void_p),
        ("width", c_int64),
    )


def runs_matmul_on(runtime: Runtime, products: MatMuls) -> MatMul:
    """The product with runs, each of a layout that one of `products` multiplies."""
    arrange, add = _arrange_on(runtime), runtime.op("add_rows")

    def add_rows(result: Tensor, other: Tensor | None, number: Tensor | None) -> None:
        arguments = AddRowsArguments(
            rows=result.shape[0],
            result=result.data_ptr(),
            other=address(other),
            number=address(number),
            width=result.shape[1],
        )
        add(arguments, *(part for part in (result, other, number) if part is not None))

    def runs_matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        assert isinstance(weight, Runs), f"bound to {type(weight).__name__}"
        require_rows("x", x, None, weight.in_features)
        arranged, shifted = arrange(x, weight)
        head, *tail = weight.parts
        width = head.in_features
        result = products[type(head)](arranged[:, :width], head, bias)
        if shifted is not None:
            add_rows(result, None, shifted)
        for part in tail:
            inputs = arranged[:, width : width + part.in_features]
            add_rows(result, products[type(part)](inputs, part), None)
            width += part.in_features
        return result

    return runs_matmul


def runs_rows_on(runtime: Runtime, look_ups: Embeds) -> Embed:
    """The look-up of rows: of each run, then put together without a kernel."""
    any_embed = any_embed_on(runtime)

    def runs_rows(tokens: Tensor, weight: PackedWeight, scale: float) -> Tensor:
        assert isinstance(weight, Runs), f"bound to {type(weight).__name__}"
        found = [look_ups.get(type(part), any_embed)(tokens, part, 1.0) for part in weight.parts]

        def arranged(rows: int) -> Tensor:
            return weight.arranged(torch.cat([part[:rows] for part in found], 1)) * scale

        return runtime.island(arranged, (len(tokens), weight.in_features))

    return runs_rows


def _arrange_on(runtime: Runtime) -> Callable[[Tensor, Runs], tuple[Tensor, Tensor | None]]:
    run = runtime.op("arrange_columns")

    def arrange(x: Tensor, weight: Runs) -> tuple[Tensor, Tensor | None]:
        """Rows as the runs have their columns, and what the shift adds to each product."""
        beside = (weight.columns, weight.scale, weight.shift)
        if all(part is None for part in beside):
            return x, None
        rows, width = x.shape
        result = runtime.empty(rows, width)
        shifted = None if weight.shift is None else runtime.empty(rows, 1)
        arguments = ArrangeColumnsArguments(
            rows=rows,
            x=x.data_ptr(),
            columns=address(weight.columns),
            scale=address(weight.scale),
            shift=address(weight.shift),
            result=result.data_ptr(),
            shifted=address(shifted),
            x_stride=x.stride(0),
            width=width,
        )
        run(arguments, *(part for part in (x, *beside, result, shifted) if part is not None))
        return result, shifted

    return arrange
