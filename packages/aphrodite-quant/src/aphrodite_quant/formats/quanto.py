"""Eight-bit weights that optimum-quanto wrote (`quant_method: quanto`).

`<prefix>.weight._data` int8 or float8_e4m3fn [N, K] times `weight._scale`, one for each row
([N, 1]) or one for the matrix ([]). `input_scale` and `output_scale` are of activations, which
are not quantised: they are read and not used. Weights of two and four bits are refused. Modules
that were left unquantised have a plain weight.
"""

import torch
from aphrodite_kernels.layouts import PackedWeight

from aphrodite_quant.blocks import scaled
from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import FormatError
from aphrodite_quant.formats import dense
from aphrodite_quant.numbers import finite, matrix
from aphrodite_quant.reader import Reader

_TYPES = {"int8": torch.int8, "float8": torch.float8_e4m3fn}


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") == "quanto"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them, of the stated type."""
    weights = (checkpoint.quant_config or {}).get("weights")
    if weights not in tuple(_TYPES):
        raise FormatError(
            f"{checkpoint.path}: quanto's weights are {weights!r}, which is not supported; "
            f"present are {', '.join(_TYPES)}"
        )
    type_ = _TYPES[weights]
    return lambda store, prefix: read(store, prefix, type_)


def read(store: TensorStore, prefix: str, type_: torch.dtype) -> PackedWeight:
    """The matrix of module `prefix`, plain if it was left unquantised."""
    if f"{prefix}.weight._data" not in store.names():
        return dense.read_left_alone(store, prefix)
    info = matrix(store, f"{prefix}.weight._data", type_)
    for leaf in ("input_scale", "output_scale"):
        if f"{prefix}.{leaf}" in store.names():
            finite(store, f"{prefix}.{leaf}")
    return scaled(store, info, f"{prefix}.weight._scale", (info.shape[0], info.shape[1]))
