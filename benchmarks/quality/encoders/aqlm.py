"""AQLM: runs of eight columns as sums of codebook entries, codebooks found one after the other."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from encoders.shared import Encoded, Encoder, Shapes, cluster, nearest, signed
from torch import Tensor

_WIDTH = 8


def encode(weight: Tensor, count: int, bits: int) -> Encoded:
    rows = len(weight)
    scale = weight.square().mean(1, keepdim=True).sqrt().half()
    left = (weight / scale.float()).view(-1, _WIDTH).clone()
    books: list[Tensor] = []
    codes: list[Tensor] = []
    decoded = torch.zeros_like(left)
    for _ in range(count):
        entries = cluster(left, 1 << bits)
        code = nearest(left, entries.float())
        decoded += entries.float()[code]
        left -= entries.float()[code]
        books.append(entries.view(-1, 1, _WIDTH))
        codes.append(code.view(rows, -1))
    tensors = {
        "codes": signed(torch.stack(codes, -1), torch.int8 if bits <= 8 else torch.int16),
        "codebooks": torch.stack(books),
        "scales": scale.view(-1, 1, 1, 1),
    }
    return Encoded(tensors, decoded.view(rows, -1) * scale.float())


def _config(count: int, bits: int) -> Callable[[Shapes, Sequence[str]], dict[str, Any]]:
    return lambda encoded, plain: {
        "quant_method": "aqlm",
        "in_group_size": _WIDTH,
        "out_group_size": 1,
        "num_codebooks": count,
        "nbits_per_codebook": bits,
        "linear_weights_not_to_quantize": [f"{module}.weight" for module in plain],
    }


ENCODERS = {
    "aqlm-1x16": Encoder(lambda weight: encode(weight, 1, 16), _config(1, 16), blocks=2),
    "aqlm-2x8": Encoder(lambda weight: encode(weight, 2, 8), _config(2, 8)),
}
