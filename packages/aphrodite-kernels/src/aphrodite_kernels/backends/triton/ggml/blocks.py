"""Products with blocks of the types that no kernel reads: made dense part by part, in a workspace.

The decoders do it in torch, in dozens of small operations, so a product takes some times as long as
with a type that has an encoding, at any number of rows; the bytes in memory are those of the file.
"""

import torch
from torch import Tensor

from aphrodite_kernels.backends.triton.ggml.matmul import PartWorkspace, part_rows
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import GgmlBlocks, PackedWeight
from aphrodite_kernels.layouts.ggml.decoders import DECODERS
from aphrodite_kernels.protocols import MatMul

PART = 1 << 24
"""Elements made dense at a time: a few of a decoder's float32 temporaries, 64 MiB each, fit."""


def blocks_matmul(workspace: PartWorkspace, part: int = PART) -> MatMul:
    """The product with any ggml blocks, of which `part` elements are dense at a time."""

    def matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        if not isinstance(weight, GgmlBlocks):
            raise LayoutError(f"this product reads GgmlBlocks, not {type(weight).__name__}")
        outputs, inputs = weight.out_features, weight.in_features
        out = torch.empty(len(x), outputs, dtype=x.dtype, device=x.device)
        step = part_rows(outputs, inputs, part)
        for start in range(0, outputs, step):
            stop = min(start + step, outputs)
            blocks = weight.data[start:stop].reshape(-1, weight.type.block_bytes)
            dense = workspace.take(stop - start, inputs, x.dtype)
            dense.copy_(DECODERS[weight.type](blocks).view(dense.shape))
            torch.mm(x, dense.T, out=out[:, start:stop])
        return out if bias is None else out.add_(bias)

    return matmul
