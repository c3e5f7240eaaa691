"""Gathering rows: of a matrix, and of a dense embedding."""

from ctypes import c_float, c_int32, c_int64, c_void_p

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.numbers import number_of
from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import require, require_rows, require_whole
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.layouts.dense import Dense
from aphrodite_kernels.protocols import Embed, Select


class SelectArguments(Arguments):
    """Of ops/select.cpp."""

    _fields_ = (
        ("x", c_void_p),
        ("index", c_void_p),
        ("result", c_void_p),
        ("x_rows", c_int64),
        ("width", c_int64),
        ("x_stride", c_int64),
    )


class EmbedArguments(Arguments):
    """Of ops/embed.cpp."""

    _fields_ = (
        ("tokens", c_void_p),
        ("weight", c_void_p),
        ("result", c_void_p),
        ("vocabulary", c_int64),
        ("width", c_int64),
        ("weight_stride", c_int64),
        ("scale", c_float),
        ("number", c_int32),
    )


def select_on(runtime: Runtime) -> Select:
    """Rows of a matrix; int32 numbers travel as float32 do, as four bytes."""
    run = runtime.op("select")

    def select(x: Tensor, index: Tensor) -> Tensor:
        dtype = torch.int32 if x.dtype == torch.int32 else torch.float32
        require_rows("x", x, None, None, dtype=dtype)
        require_whole("index", index, None, dtype=torch.int64)
        rows, width = index.shape[0], x.shape[1]
        result = runtime.empty(rows, width, dtype=dtype)
        arguments = SelectArguments(
            rows=rows,
            x=x.data_ptr(),
            index=index.data_ptr(),
            result=result.data_ptr(),
            x_rows=x.shape[0],
            width=width,
            x_stride=x.stride(0),
        )
        run(arguments, x, index, result)
        return result

    return select


def embed_dense_on(runtime: Runtime) -> Embed:
    """Rows of a dense weight."""
    run = runtime.op("embed")

    def embed(tokens: Tensor, weight: PackedWeight, scale: float) -> Tensor:
        require(isinstance(weight, Dense), f"embed of a dense weight got {type(weight).__name__}")
        assert isinstance(weight, Dense)
        require_whole("tokens", tokens, None, dtype=torch.int32)
        require_rows("the embedding", weight.weight, None, None, dtype=weight.weight.dtype)
        rows, width = tokens.shape[0], weight.in_features
        result = runtime.empty(rows, width)
        arguments = EmbedArguments(
            rows=rows,
            tokens=tokens.data_ptr(),
            weight=weight.weight.data_ptr(),
            result=result.data_ptr(),
            vocabulary=weight.out_features,
            width=width,
            weight_stride=weight.weight.stride(0),
            scale=scale,
            number=number_of("the embedding", weight.weight.dtype),
        )
        run(arguments, tokens, weight.weight, result)
        return result

    return embed
