"""From a matrix to ggml blocks."""

import torch
from aphrodite_kernels.layouts import GgmlBlocks, GgmlType
from torch import Tensor

from aphrodite_quant.errors import FormatError
from aphrodite_quant.ggml.encoders import ENCODERS

_CHUNK = 1 << 18
"""Elements encoded at a time: a search holds some twenty temporaries of that size."""
_LEAST = 1e-3
"""What a column of no importance counts, against the mean of all."""


def encode(weight: Tensor, kind: GgmlType, importance: Tensor | None = None) -> GgmlBlocks:
    """Blocks of a matrix [N, K] of any floating dtype, on its device.

    `importance` [K], not negative, is the mean square of each column's activations.

    Raises:
        FormatError: no encoder of that type, K not a multiple of its block, or numbers that are not
            finite.
    """
    if kind not in ENCODERS:
        present = ", ".join(each.name for each in sorted(ENCODERS))
        raise FormatError(f"weights cannot be written as {kind.name}; present are {present}")
    rows, columns = weight.shape
    if columns % kind.block_size:
        raise FormatError(
            f"a weight {[rows, columns]} cannot become {kind.name}: its columns are not a multiple "
            f"of {kind.block_size}"
        )
    counts = None if importance is None else _relative(importance, columns).to(weight.device)
    step = max(1, _CHUNK // columns)
    shape = (rows, columns // kind.block_size * kind.block_bytes)
    data = torch.empty(shape, dtype=torch.uint8, device=weight.device)
    for part, out in zip(torch.split(weight, step), torch.split(data, step), strict=True):
        blocks = part.float().reshape(-1, kind.block_size)
        if not bool(blocks.isfinite().all()):
            raise FormatError(f"a weight {[rows, columns]} has numbers that are not finite")
        each = None
        if counts is not None:
            each = counts.expand(len(part), columns).reshape(-1, kind.block_size)
        out.copy_(ENCODERS[kind](blocks, each).view(out.shape))
    return GgmlBlocks(data, kind)


def _relative(importance: Tensor, columns: int) -> Tensor:
    """Importance with mean 1, every column counting a little."""
    wide = importance.float()
    if tuple(wide.shape) != (columns,) or not bool(((wide >= 0) & wide.isfinite()).all()):
        raise FormatError(
            f"importance is {list(wide.shape)}; expected [{columns}] finite, none negative"
        )
    mean = wide.mean()
    return wide / mean + _LEAST if float(mean) > 0 else torch.ones_like(wide)
