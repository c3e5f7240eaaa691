"""SqueezeLLM weights (`quant_method: squeezellm`, or a quant_config.json): 3 or 4 bits into tables.

With b bits: `<prefix>.qweight` int32 [K * b / 32, N], each column a little-endian bit stream of
codes; `lookup_table` [N, 2**b], the numbers of each output feature. Outliers may be added to them:
a sparse matrix [N, K] row after row (CSR), `rows` int32 [N + 1], `cols` int32 [Z], `vals` [Z]; and
whole rows, `full_rows` [K, X] of output features `full_row_indices` int32 [X]. `startrows`, by
which the tool's kernel divides them among threads, follows from `rows`. Modules without `qweight`
have a plain weight.
"""

import torch
from aphrodite_kernels.layouts import Lookup, PackedWeight
from aphrodite_kernels.layouts.grouped import pack_codes, unpack_codes
from aphrodite_kernels.layouts.lookup import ENTRIES
from aphrodite_kernels.layouts.outlying import Entries, Outlying, Sparse
from torch import Tensor
from torch.nn.functional import pad

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.numbers import exact, finite, matrix
from aphrodite_quant.reader import Reader

_BITS = (3, 4)
_THREADS = "startrows"
_FEW = ("rows", "cols", "vals", _THREADS)
_WHOLE = ("full_rows", "full_row_indices")


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config, or a side file in its place, says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") == "squeezellm"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them, of the stated number of bits."""
    bits = (checkpoint.quant_config or {}).get("wbits")
    if bits not in _BITS:
        raise FormatError(f"{checkpoint.path}: SqueezeLLM has 3 or 4 bits, found wbits {bits!r}")
    return lambda store, prefix: read(store, prefix, bits)


def read(store: TensorStore, prefix: str, bits: int) -> PackedWeight:
    """The matrix of module `prefix`, plain if it was left unquantised."""
    if f"{prefix}.qweight" not in store.names():
        return dense.read_left_alone(store, prefix)
    info = matrix(store, f"{prefix}.qweight", torch.int32)
    words, out = info.shape
    if words % bits:
        raise TensorError(
            f"{info.file}: tensor {info.name!r} is {info}; expected rows in multiples of {bits}, "
            "which hold 32 codes"
        )
    table = finite(store, f"{prefix}.lookup_table", (out, 1 << bits))
    codes = unpack_codes(store.read(info.name).T.contiguous().view(torch.uint8), bits)
    wide = pad(table, (0, ENTRIES - (1 << bits)))
    weight = Lookup(pack_codes(codes, 4), wide, None, codes.shape[1])
    parts = [
        read_part(store, prefix, out, weight.in_features)
        for names, read_part in ((_FEW, _few), (_WHOLE, _whole))
        if any(f"{prefix}.{name}" in store.names() for name in names)
    ]
    if not parts:
        return weight
    return Outlying(weight, Sparse.of(parts, out, weight.in_features))


def _few(store: TensorStore, prefix: str, out: int, width: int) -> Entries:
    """The sparse matrix."""
    if f"{prefix}.{_THREADS}" in store.names():
        store.read(f"{prefix}.{_THREADS}")
    count = max(store.info(f"{prefix}.cols").shape, default=0)
    starts = exact(store, f"{prefix}.rows", torch.int32, (out + 1,)).long()
    columns = _below(store, f"{prefix}.cols", count, width)
    values = finite(store, f"{prefix}.vals", (count,))
    sizes = starts.diff()
    if int(starts[0]) or int(starts[-1]) != count or bool((sizes < 0).any()):
        raise TensorError(
            f"{store.info(f'{prefix}.rows').file}: tensor '{prefix}.rows' is from {int(starts[0])} "
            f"to {int(starts[-1])}; expected numbers that ascend from 0 to {count}, the length of "
            f"'{prefix}.cols'"
        )
    rows = torch.arange(out, device=starts.device).repeat_interleave(sizes)
    return Entries(rows, columns, values)


def _whole(store: TensorStore, prefix: str, out: int, width: int) -> Entries:
    """Rows that are not sparse, all their numbers."""
    count = max(store.info(f"{prefix}.full_row_indices").shape, default=0)
    rows = _below(store, f"{prefix}.full_row_indices", count, out)
    values = finite(store, f"{prefix}.full_rows", (width, count))
    columns = torch.arange(width, device=rows.device)
    return Entries(rows.repeat(width), columns.repeat_interleave(count), values.flatten())


def _below(store: TensorStore, name: str, count: int, limit: int) -> Tensor:
    """Numbers [count] from 0 to below `limit`, int64."""
    found = exact(store, name, torch.int32, (count,)).long()
    wrong = (found < 0) | (found >= limit)
    if bool(wrong.any()):
        raise TensorError(
            f"{store.info(name).file}: tensor {name!r} holds {int(found[wrong][0])}; expected "
            f"numbers from 0 to {limit - 1}"
        )
    return found
