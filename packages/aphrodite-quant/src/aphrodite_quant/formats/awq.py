"""AWQ weights (`quant_method: awq`, or the older quant_config.json): 4 bits with zero points.

With G groups, by `version`:
gemm: `<prefix>.qweight` int32 [K, N / 8], `qzeros` int32 [G, N / 8], `scales` [G, N]; nibbles of a
word, lowest first, are for output features 0, 2, 4, 6, 1, 3, 5, 7 of its eight.
gemv: `qweight` int32 [N, K / 8], nibbles in order; `qzeros` int32 [N, G' / 8], `scales` [N, G'],
where G' is G or more.
gemv_fast: `qweight` int16 [N / 4, K], of four rows 64 columns each in turn; column
8 b + 2 a + c of 32 at place 8 a + 4 c + b; `scales` [G', N], `qzeros` (llm-awq: `scaled_zeros`)
[G', N] floating: what is added to scale * code.
Modules without `qweight` have a plain weight.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from aphrodite_kernels.layouts import Grouped, PackedWeight
from aphrodite_kernels.layouts.grouped import unpack_codes
from torch import Tensor

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.numbers import exact, finite, floating, group_size, matrix
from aphrodite_quant.reader import Reader

_METHODS = ("awq", "auto_awq", "awq_marlin")
_BITS = 4
PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Of each of eight output features: its nibble."""
_SPAN = 64
"""Columns of a row before those of the next one follow, in gemv_fast."""


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config, or a side file in its place, says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") in _METHODS


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights in groups of the size and of the version that the configuration states."""
    stated, where = checkpoint.quant_config or {}, checkpoint.path
    bits = stated.get("bits", stated.get("w_bit", _BITS))
    version = stated.get("version") or stated.get("checkpoint_format") or stated.get("format")
    group = stated.get("group_size", stated.get("q_group_size", 128))
    check(where, bits, group)
    read_version = _VERSIONS.get(str(version or "gemm").lower())
    if read_version is None:
        raise FormatError(
            f"{where}: AWQ of version {version!r} is not supported; "
            f"present are {', '.join(_VERSIONS)}"
        )
    return lambda store, prefix: read(store, prefix, group, read_version)


def check(where: Path, bits: object, group: object) -> None:
    """FormatError if AWQ has no such bits or groups."""
    if bits != _BITS:
        raise FormatError(f"{where}: AWQ has 4 bits, found bits {bits!r}")
    if not isinstance(group, int) or (group < 1 and group != -1):
        raise FormatError(f"{where}: group_size is a positive number or -1, found {group!r}")


def read(
    store: TensorStore,
    prefix: str,
    group: int,
    read_version: Callable[[TensorStore, str, int], PackedWeight] | None = None,
) -> PackedWeight:
    """The matrix of module `prefix`, plain if it was left unquantised; gemm if not told."""
    if f"{prefix}.qweight" not in store.names():
        return dense.read_left_alone(store, prefix)
    return (read_version or _gemm)(store, prefix, group)


def _gemm(store: TensorStore, prefix: str, group: int) -> PackedWeight:
    stored = store.read(matrix(store, f"{prefix}.qweight", torch.int32).name)
    columns, words = stored.shape
    group = group_size(store, f"{prefix}.qweight", group, columns)
    groups = columns // group
    scale = floating(store, f"{prefix}.scales", (groups, 8 * words))
    zero = _codes(exact(store, f"{prefix}.qzeros", torch.int32, (groups, words)))
    return Grouped.pack(_codes(stored), scale.T.contiguous(), zero.to(scale.dtype), _BITS, group)


def _gemv(store: TensorStore, prefix: str, group: int) -> PackedWeight:
    stored = store.read(matrix(store, f"{prefix}.qweight", torch.int32).name)
    rows, columns = stored.shape[0], 8 * stored.shape[1]
    group = group_size(store, f"{prefix}.qweight", group, columns)
    groups = columns // group
    padded = _padded(store, f"{prefix}.scales", groups, 1)
    scale = floating(store, f"{prefix}.scales", (rows, padded))[:, :groups].contiguous()
    words = exact(store, f"{prefix}.qzeros", torch.int32, (rows, padded // 8))
    zero = unpack_codes(words.contiguous().view(torch.uint8), _BITS)[:, :groups]
    codes = stored.contiguous().view(torch.uint8)
    return Grouped(codes, scale, zero.to(scale.dtype).contiguous(), _BITS, group)


def _gemv_fast(store: TensorStore, prefix: str, group: int) -> PackedWeight:
    info = matrix(store, f"{prefix}.qweight", torch.int16)
    rows, columns = 4 * info.shape[0], info.shape[1]
    if columns % _SPAN:
        raise TensorError(
            f"{info.file}: tensor {info.name!r} is {info}; expected input features in spans of "
            f"{_SPAN}"
        )
    group = group_size(store, info.name, group, columns)
    groups = columns // group
    padded = _padded(store, f"{prefix}.scales", groups, 0)
    added = "scaled_zeros" if f"{prefix}.scaled_zeros" in store.names() else "qzeros"
    scale = floating(store, f"{prefix}.scales", (padded, rows))[:groups].T.contiguous()
    shift = finite(store, f"{prefix}.{added}", (padded, rows))[:groups].T
    zero = torch.where(scale == 0, 0, -shift / scale.float()).contiguous()
    nibbles = unpack_codes(store.read(info.name).contiguous().view(torch.uint8), _BITS)
    by_row = nibbles.view(rows // 4, columns // _SPAN, 4, _SPAN).transpose(1, 2)
    codes = by_row.reshape(rows, columns // 32, 4, 2, 4).permute(0, 1, 4, 2, 3)
    return Grouped.pack(codes.reshape(rows, columns), scale, zero, _BITS, group)


def _padded(store: TensorStore, name: str, groups: int, axis: int) -> int:
    """Groups that there is room for along `axis` of a matrix, eight or a multiple of it."""
    info = matrix(store, name, torch.float32, torch.float16, torch.bfloat16)
    if info.shape[axis] < groups or info.shape[axis] % 8:
        raise TensorError(
            f"{info.file}: tensor {name!r} is {info}; expected {groups} groups or more along "
            f"dimension {axis}, a multiple of 8"
        )
    return info.shape[axis]


def _codes(words: Tensor) -> Tensor:
    """[R, N / 8] int32 as [N, R] uint8, one row for each output feature."""
    nibbles = unpack_codes(words.contiguous().view(torch.uint8), _BITS)
    return nibbles.unflatten(1, (-1, 8))[..., list(PLACES)].flatten(1).T.contiguous()


_VERSIONS: Mapping[str, Callable[[TensorStore, str, int], PackedWeight]] = {
    "gemm": _gemm,
    "gemv": _gemv,
    "gemv_fast": _gemv_fast,
    "llm-awq": _gemv_fast,
}
