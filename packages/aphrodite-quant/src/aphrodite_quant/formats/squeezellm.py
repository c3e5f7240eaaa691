"""SqueezeLLM weights (`quant_method: squeezellm`, or a quant_config.json): 3 or 4 bits into tables.

With b bits: `<prefix>.qweight` int32 [K * b / 32, N], each column a little-endian bit stream of
codes; `lookup_table` [N, 2**b], the numbers of each output feature. A sparse part beside the dense
one (`rows`, `cols`, `vals`) is refused. Modules without `qweight` have a plain weight.
"""

import torch
from aphrodite_kernels.layouts import Lookup, PackedWeight
from aphrodite_kernels.layouts.grouped import pack_codes, unpack_codes
from aphrodite_kernels.layouts.lookup import ENTRIES
from torch.nn.functional import pad

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.numbers import finite, matrix
from aphrodite_quant.reader import Reader

_BITS = (3, 4)
_SPARSE = ("rows", "cols", "vals", "full_rows", "full_row_indices")


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
    for name in _SPARSE:
        if f"{prefix}.{name}" in store.names():
            raise TensorError(
                f"{info.file}: tensor '{prefix}.{name}' is of a sparse part beside {info.name!r}; "
                "only dense weights are read, quantise it again without one"
            )
    table = finite(store, f"{prefix}.lookup_table", (out, 1 << bits))
    codes = unpack_codes(store.read(info.name).T.contiguous().view(torch.uint8), bits)
    wide = pad(table, (0, ENTRIES - (1 << bits)))
    return Lookup(pack_codes(codes, 4), wide, None, codes.shape[1])
