"""Weights that llm-compressor wrote (`quant_method: compressed-tensors`).

`<prefix>.weight_packed` int32 [N, K * bits / 32], consecutive columns from the lowest bits up and
2**(bits - 1) added, with `weight_scale` [N, K / group], and perhaps `weight_zero_point` int32
[N * bits / 32, K / group] packed along N; `weight` int8 or float8_e4m3fn [N, K] with `weight_scale`
for the matrix, each row, block or 32 columns (uint8, powers of two); `weight_packed` uint8
[N, K / 2] of E2M1 with `weight_scale` uint8 [N, K / 32] (MXFP4), or float8_e4m3fn [N, K / 16] and
`weight_global_scale`, which divides (NVFP4). A module's tensors say which of these it is; modules
that were ignored have a plain weight. Activations are not quantised, which is more exact.
"""

from collections.abc import Mapping
from typing import Any

import torch
from aphrodite_kernels.layouts import Grouped, Microscaled, PackedWeight
from aphrodite_kernels.layouts.grouped import unpack_codes
from torch import Tensor

from aphrodite_quant.blocks import scaled
from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorInfo, TensorStore
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.numbers import exact, finite, matrix, positive
from aphrodite_quant.reader import Reader

_MX_GROUP, _NV_GROUP, _BLOCK = 32, 16, (128, 128)
_EIGHT_BITS = (torch.int8, torch.float8_e4m3fn)
_BITS = (4, 8)


def claims(checkpoint: Checkpoint) -> bool:
    """Safetensors whose config says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind == "safetensors" and stated.get("quant_method") == "compressed-tensors"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them, once nothing is stated that would change them further."""
    stated: Mapping[str, Any] = checkpoint.quant_config or {}
    for name in ("transform_config", "sparsity_config"):
        if stated.get(name):
            raise FormatError(
                f"{checkpoint.path}: quantization_config has a {name}, which is not supported"
            )
    return read


def read(store: TensorStore, prefix: str) -> PackedWeight:
    """The weight of module `prefix`, by the tensors that it has."""
    if f"{prefix}.weight_packed" in store.names():
        info = matrix(store, f"{prefix}.weight_packed", torch.int32, torch.uint8)
        read_codes = _integers if info.type == torch.int32 else _four_bit_floats
        return read_codes(store, prefix, info)
    if store.info(f"{prefix}.weight").type not in _EIGHT_BITS:
        return dense.read(store, prefix)
    return _eight_bits(store, prefix, matrix(store, f"{prefix}.weight", *_EIGHT_BITS))


def _eight_bits(store: TensorStore, prefix: str, info: TensorInfo) -> PackedWeight:
    name, zero = f"{prefix}.weight_scale", f"{prefix}.weight_zero_point"
    if zero in store.names():
        raise TensorError(
            f"{info.file}: tensor {zero!r} shifts the eight-bit weights of {info.name!r}; only "
            "symmetric ones are read, quantise it again with symmetric weights"
        )
    rows, columns = info.shape
    if store.info(name).type == torch.uint8 and info.type == torch.float8_e4m3fn:
        return Microscaled(store.read(info.name), _powers(store, name, rows, columns), _MX_GROUP)
    return scaled(store, info, name, _BLOCK)


def _four_bit_floats(store: TensorStore, prefix: str, info: TensorInfo) -> Microscaled:
    rows, columns = info.shape[0], 2 * info.shape[1]
    name, outer = f"{prefix}.weight_scale", f"{prefix}.weight_global_scale"
    if outer not in store.names():
        scale = _powers(store, name, rows, columns)
        return Microscaled(store.read(info.name), scale, _MX_GROUP)
    scale = exact(store, name, torch.float8_e4m3fn, (rows, columns // _NV_GROUP))
    finite(store, name)
    divisor = positive(store, outer, (1,), ())
    row_scale = (1 / divisor).reshape(1, 1).repeat(rows, 1)
    return Microscaled(store.read(info.name), scale, _NV_GROUP, row_scale)


def _powers(store: TensorStore, name: str, rows: int, columns: int) -> Tensor:
    scale = exact(store, name, torch.uint8, (rows, columns // _MX_GROUP))
    if bool((scale == 255).any()):
        raise TensorError(f"{store.info(name).file}: tensor {name!r} holds 255, which is no number")
    return scale.view(torch.float8_e8m0fnu)


def _integers(store: TensorStore, prefix: str, info: TensorInfo) -> Grouped:
    rows, words = info.shape
    name = f"{prefix}.weight_shape"
    shape = [int(extent) for extent in exact(store, name, torch.int64, (2,))]
    bits = next((bits for bits in _BITS if shape == [rows, words * 32 // bits]), None)
    if bits is None or f"{prefix}.weight_g_idx" in store.names():
        raise TensorError(
            f"{info.file}: tensor {info.name!r} is {info} for a weight {shape}; "
            f"expected {_BITS[0]} or {_BITS[1]} bits for each, and no weight_g_idx"
        )
    columns = shape[1]
    scale = finite(store, f"{prefix}.weight_scale")
    if scale.ndim != 2 or len(scale) != rows or not scale.numel() or columns % scale.shape[1]:
        raise TensorError(
            f"{info.file}: tensor '{prefix}.weight_scale' is {list(scale.shape)}; "
            f"expected [{rows}, groups of {columns} columns]"
        )
    zero = None
    name = f"{prefix}.weight_zero_point"
    if name in store.names():
        height = -(-rows * bits // 32)
        packed = exact(store, name, torch.int32, (height, scale.shape[1]))
        zero = _codes(packed.T, bits)[:, :rows].T.float()
    codes = _codes(store.read(info.name), bits)
    return Grouped.pack(codes, scale, zero, bits, columns // scale.shape[1])


def _codes(words: Tensor, bits: int) -> Tensor:
    """[R, W] int32 to [R, W * 32 / bits] uint8, the lowest bits first."""
    return unpack_codes(words.contiguous().view(torch.uint8), bits)
