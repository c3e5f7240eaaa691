"""Weights in the order of Marlin's kernel, four bits with a scale for each row, and its 2:4 sparse
variant, two of four columns left out by their size.

The kernels' own limits (N in 256s, K in 128s) are not kept: few of this model's matrices are so.
"""

from collections.abc import Sequence
from typing import Any

import torch
from encoders.shared import Encoded, Encoder, Shapes, rounded, scaled, stream
from torch import Tensor


def encode(weight: Tensor) -> Encoded:
    rows, columns = weight.shape
    codes, scale = rounded(weight, 4, columns)
    # A thread keeps rows 2m, 2m + 1 and those eight further on, of two columns; [K, N] by digits:
    digits = codes.T.reshape(columns // 16, 2, 4, 2, rows // 64, 4, 2, 8)  # k: 8 b + 2 m + l
    strips = digits.permute(0, 4, 7, 2, 5, 3, 6, 1).reshape(columns // 16, -1)
    singles = scale.T.reshape(1, -1, 4, 4, 2).transpose(2, 3).reshape(1, rows)
    tensors = {"B": stream(strips, 4), "s": singles.contiguous()}
    tensors["workspace"] = torch.zeros(rows // 64 * 16, dtype=torch.int32)
    return Encoded(tensors, scaled(codes, scale, 8))


def encode_sparse(weight: Tensor, bits: int) -> Encoded:
    rows, columns = weight.shape
    fours = weight.view(rows, -1, 4)
    chosen = fours.abs().topk(2, 2)[1].sort(2)[0]  # [N, K / 4, 2]
    kept = fours.gather(2, chosen).flatten(1)
    codes, scale = rounded(kept, bits, columns // 2)
    # n: 16 o + 8 p + 4 b + j of 64, and k as above; [K / 2, N] by digits:
    digits = codes.T.reshape(columns // 32, 2, 4, 2, rows // 64, 4, 2, 2, 4)
    order = (0, 4, 5, 6, 2, 8, 3, 7, 1) if bits == 4 else (0, 4, 5, 6, 2, 8, 7, 3, 1)
    strips = digits.permute(*order).reshape(columns // 32, -1)
    pairs = (chosen[..., 0] | chosen[..., 1] << 2).view(rows, -1, 4)
    meta = (pairs << torch.tensor([0, 4, 8, 12])).sum(2)  # [N, K / 16]
    tiles = meta.view(rows // 64, 8, 2, 2, 2, columns // 32, 2).permute(5, 0, 3, 1, 4, 6, 2)
    tensors = {
        "B_24": stream(strips, bits),
        "B_meta": tiles.reshape(columns // 32, -1).to(torch.uint16).view(torch.int16),
        "s": scale.T.contiguous(),
        "workspace": torch.zeros(rows // 128 * 64 or 64, dtype=torch.int32),
    }
    values = scaled(codes, scale, 1 << bits - 1).view(rows, -1, 2)
    return Encoded(tensors, torch.zeros_like(fours).scatter_(2, chosen, values).flatten(1))


def _config(encoded: Shapes, plain: Sequence[str]) -> dict[str, Any]:
    sizes = {"bits": 4, "group_size": -1, "desc_act": False, "sym": True, "lm_head": False}
    return {"quant_method": "gptq", "checkpoint_format": "marlin", **sizes}


def _sparse(bits: int) -> Encoder:
    def config(encoded: Shapes, plain: Sequence[str]) -> dict[str, Any]:
        return {"quant_method": "gptq_marlin_24", "bits": bits, "group_size": -1}

    return Encoder(lambda weight: encode_sparse(weight, bits), config)


ENCODERS = {
    "marlin": Encoder(encode, _config),
    "marlin24-4": _sparse(4),
    "marlin24-8": _sparse(8),
}
